//! Types that user space reads or writes, for the object's BTF: a test of user
//! space (`attach::layout`) compares them with its own.

use agent_monitor_common::event::{
    Bound, Burst, Bursts, Cgroup, Closed, Connect, Datagram, DatagramBurst, Device, Endpoint,
    Established, Exec, ExecDetails, Exit, FlowId, Fork, Found, Head, Header, Released, Segment,
    Socket, Spell, Sysctl, Uncovered, Unstarted,
};
use agent_monitor_common::policy::{
    AgentState, FlowControl, Nursery, Offsets, Owner, Settings, Task, Told, Watch,
};

/// Lists the types, each as a member of no size.
macro_rules! shared {
    ($($name:ident)*) => {
        /// A member for each type, none of which takes room.
        #[repr(C)]
        #[allow(non_snake_case)]
        pub struct Shared {
            $($name: [$name; 0],)*
            /// What has no size would not be in the object.
            nothing: u32,
        }

        /// Never read by a program.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".rodata")]
        pub static SHARED: Shared = Shared {
            $($name: [],)*
            nothing: 0,
        };
    };
}

shared! {
    Header FlowId Endpoint Fork Exec ExecDetails Exit Cgroup Connect Established Closed Socket Bound Unstarted Head Burst Segment Device Sysctl Uncovered Found Datagram DatagramBurst Released Spell Bursts
    Watch Owner Nursery FlowControl AgentState Told Task Settings Offsets
}
