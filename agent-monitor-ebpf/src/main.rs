//! agent-monitor's kernel side.
//!
//! Programs filter by cgroup, copy and count: no parsing beyond headers, no
//! policy beyond looking a verdict up in a map. Entry points are here, one line
//! each; what they do is in [`probes`], one behaviour a file.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod address;
mod atomic;
mod emit;
mod layout;
mod maps;
mod object;
mod outside;
mod peers;
mod probes;
mod sock;
mod task;

use aya_ebpf::macros::{
    btf_tracepoint, cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sysctl,
    sock_ops,
};
use aya_ebpf::programs::{
    BtfTracePointContext, DeviceContext, SkBuffContext, SockAddrContext, SockContext,
    SockOpsContext, SysctlContext,
};

/// Verdict of cgroup programs: let it happen.
const ALLOW: i32 = 1;

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    probes::fork::fork(&ctx)
}

#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(ctx: BtfTracePointContext) -> i32 {
    probes::exec::exec(&ctx)
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) -> i32 {
    probes::exit::exit(&ctx)
}

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    probes::cgroup::mkdir(&ctx)
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    probes::cgroup::rmdir(&ctx)
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach(ctx: BtfTracePointContext) -> i32 {
    probes::cgroup::attach(&ctx)
}

/// aya has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn uncovered(ctx: *mut core::ffi::c_void) -> i32 {
    probes::coverage::scan(&BtfTracePointContext::new(ctx))
}

#[cgroup_sock(sock_create)]
fn socket_create(ctx: SockContext) -> i32 {
    probes::socket::create(&ctx);
    ALLOW
}

#[cgroup_sock(post_bind4)]
fn bind4(ctx: SockContext) -> i32 {
    probes::socket::bind4(&ctx);
    ALLOW
}

#[cgroup_sock(post_bind6)]
fn bind6(ctx: SockContext) -> i32 {
    probes::socket::bind6(&ctx);
    ALLOW
}

#[cgroup_sock(sock_release)]
fn socket_release(ctx: SockContext) -> i32 {
    probes::socket::release(&ctx);
    ALLOW
}

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    probes::connect::connect4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    probes::connect::connect6(&ctx);
    ALLOW
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    probes::connect::sendmsg4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    probes::connect::sendmsg6(&ctx);
    ALLOW
}

#[sock_ops]
fn tcp_state(ctx: SockOpsContext) -> u32 {
    probes::tcp::state(&ctx);
    1
}

#[cgroup_skb(egress)]
fn packet_out(ctx: SkBuffContext) -> i32 {
    probes::packet::packet(&ctx, agent_monitor_common::event::direction::OUT);
    ALLOW
}

#[cgroup_skb(ingress)]
fn packet_in(ctx: SkBuffContext) -> i32 {
    probes::packet::packet(&ctx, agent_monitor_common::event::direction::IN);
    ALLOW
}

#[cgroup_device]
fn device(ctx: DeviceContext) -> i32 {
    probes::device::access(&ctx);
    ALLOW
}

#[cgroup_sysctl]
fn sysctl(ctx: SysctlContext) -> i32 {
    probes::sysctl::access(&ctx);
    ALLOW
}

/// Helpers such as `bpf_probe_read_kernel` are only for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
