//! The SDK without its features needs no `std`.
//!
//! A crate with a panic handler of its own cannot be built once anything below it asks for `std`,
//! which has one too. So rustc itself tells, on any machine and without a second target. What the
//! SDK has for wasm32 only is held to the same by `no-std/`, whose module `plugins/build` builds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GUEST: &str = "\
#![no_std]
extern crate raft_fsm_sdk;
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

/// Where the pieces of one guest go.
struct Folder(PathBuf);

impl Folder {
    fn compile(&self, name: &str, source: &Path, arguments: &[&str]) -> Output {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "--crate-type", "rlib", "--emit", "metadata"]);
        command.args(["-C", "panic=abort", "--crate-name", name]).args(arguments);
        command.arg("-L").arg(&self.0).arg("--out-dir").arg(&self.0);
        command.arg(source).output().expect("rustc starts")
    }

    fn must_compile(&self, name: &str, source: &Path, arguments: &[&str]) {
        let output = self.compile(name, source, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}:\n{stderr}");
    }
}

/// Compiles a guest on the SDK, which gets these arguments.
fn guest_on_sdk(name: &str, arguments: &[&str]) -> Output {
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.must_compile("raft_fsm_abi", &here.join("../abi/src/lib.rs"), &[]);
    let external = ["--extern", "raft_fsm_abi"];
    folder.must_compile(
        "raft_fsm_sdk",
        &here.join("src/lib.rs"),
        &[&external[..], arguments].concat(),
    );
    let guest = folder.0.join("guest.rs");
    std::fs::write(&guest, GUEST).expect("written");
    folder.compile("guest", &guest, &["--extern", "raft_fsm_sdk"])
}

#[test]
fn the_sdk_without_features_asks_for_no_std() {
    let output = guest_on_sdk("no-std-plain", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn with_std_the_check_above_would_fail() {
    let output = guest_on_sdk("no-std-with-std", &["--cfg", "feature=\"std\""]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("panic_impl"), "{stderr}");
}
