//! How the build of the eBPF object chooses its compiler, and what it refuses.

#[path = "../build/toolchain.rs"]
mod toolchain;

use toolchain::{Found, Way, check_object, choose};

fn with_linker() -> Found {
    Found {
        linker: Some("/tools/bpf-linker".into()),
        ..Found::default()
    }
}

#[test]
fn a_machine_without_bpf_linker_is_told_the_command_that_fixes_it() {
    let found = Found {
        debian: true,
        nightly: true,
        ..Found::default()
    };
    let error = choose(found).unwrap_err();
    assert!(
        error.contains("bpf-linker") && error.contains("cargo xtask setup"),
        "{error}"
    );
}

#[test]
fn a_machine_without_a_compiler_for_bpf_is_told_the_command_that_fixes_it() {
    let error = choose(with_linker()).unwrap_err();
    assert!(
        error.contains("toolchain") && error.contains("cargo xtask setup"),
        "{error}"
    );
}

#[test]
fn the_linker_that_setup_built_goes_with_debians_compiler() {
    let both = Found {
        debian: true,
        nightly: true,
        ..with_linker()
    };
    assert_eq!(choose(both), Ok(Way::Debian));
}

#[test]
fn nightly_with_source_is_used_where_debians_compiler_is_not() {
    let found = Found {
        nightly: true,
        ..with_linker()
    };
    assert_eq!(choose(found), Ok(Way::Rustup("nightly".to_owned())));
}

#[test]
fn a_toolchain_named_by_the_user_goes_before_what_was_found() {
    let found = Found {
        named: Some("nightly-2026-04-01".to_owned()),
        debian: true,
        nightly: true,
        ..with_linker()
    };
    assert_eq!(
        choose(found),
        Ok(Way::Rustup("nightly-2026-04-01".to_owned()))
    );
}

#[test]
fn a_prebuilt_object_needs_no_tools() {
    let found = Found {
        prebuilt: Some("/objects/agent-monitor".into()),
        ..Found::default()
    };
    assert_eq!(
        choose(found),
        Ok(Way::Prebuilt("/objects/agent-monitor".into()))
    );
}

#[test]
fn what_is_not_a_bpf_object_is_refused() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    for not_bpf in [&b""[..], b"\x7fELF", &own] {
        assert!(check_object(not_bpf).is_err());
    }
}

#[test]
fn the_object_of_this_build_is_accepted() {
    let built = include_bytes!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf"));
    assert_eq!(check_object(built), Ok(()));
}
