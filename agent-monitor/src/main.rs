//! The binary: reads the command line and runs the command.

use std::process::ExitCode;

use agent_monitor::cli::Cli;
use agent_monitor::commands;
use clap::Parser as _;

fn main() -> ExitCode {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    static_names::use_built_in_ways();
    commands::run(Cli::parse())
}

/// Looking up hosts' names where the C library is linked in.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod static_names {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// Says by which ways a database is asked, in place of /etc/nsswitch.conf (nss.h of glibc).
        fn __nss_configure_lookup(database: *const c_char, ways: *const c_char) -> c_int;
    }

    /// Has names of hosts looked up in /etc/hosts and DNS, whatever nsswitch.conf(5)
    /// says. These two are in the C library since 2.34; any other is a shared library
    /// that fits one release of it alone, and is the machine's, not ours.
    pub(super) fn use_built_in_ways() {
        // SAFETY: both are strings that end in NUL and live for ever, and no other
        // thread exists yet that could be looking up a name.
        let refused =
            unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) } != 0;
        if refused {
            eprintln!("agent-monitor: names of hosts are looked up as /etc/nsswitch.conf says");
        }
    }
}
