//! cgroup `sock_create`, net/ipv4/af_inet.c (inet_create), since 4.10: runs when
//! a process makes an inet socket, before anyone can use it.

use agent_monitor_common::event::FlowId;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockContext;

use crate::{emit, sock, task};

/// Writes down whose socket this is.
#[inline(always)]
pub fn create(ctx: &SockContext) {
    let cgroup = task::current_cgroup();
    let Some(agent) = task::agent_of_cgroup(cgroup) else {
        return;
    };
    let tgid = task::current_tgid();
    // SAFETY: the hook's own socket, never null.
    let Some(socket) = (unsafe { sock::get_or_create(ctx.sock) }) else {
        emit::no_room(agent);
        return;
    };
    socket.agent = agent;
    socket.cgroup = cgroup;
    socket.tgid = tgid;
    socket.start = match task::remembered(tgid) {
        // SAFETY: a value of TASKS, valid while the program runs.
        Some(known) => unsafe { (*known).start },
        None => task::start(task::current()),
    };
    // SAFETY: the hook's context.
    let (cookie, protocol) =
        unsafe { (bpf_get_socket_cookie(ctx.sock.cast()), (*ctx.sock).protocol) };
    socket.protocol = protocol;
    socket.flags = 0;
    socket.begin(FlowId {
        cookie,
        generation: 0,
    });
}
