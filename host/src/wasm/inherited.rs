//! What a child process that compiles modules has of its parent's open files: nothing.
//!
//! Rust's standard library opens files so that other programs do not get them, and so does the log. What
//! else is open in the parent is not all its own doing: whoever started it may have left it something. So
//! the child closes what it got, as the first thing that it does. (A function between
//! fork and exec would do it a moment earlier, and have the whole of the parent forked for that,
//! guests' memories included, where it is only spawned.)
#![expect(unsafe_code, reason = "two system calls on numbers of descriptors")]

use std::io;
use std::os::fd::RawFd;

/// Input, output and errors are below.
const FIRST: RawFd = 3;

/// Closes all descriptors but input, output and errors. Only for a process that has opened nothing yet.
///
/// # Errors
/// The system cannot close a range (before Linux 5.9), nor say what is open.
pub(super) fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor of that range: it is as it was started.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, 0) } {
        0 => Ok(()),
        _ => close_listed(),
    }
}

fn close_listed() -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for descriptor in open.into_iter().filter(|descriptor| *descriptor >= FIRST) {
        // SAFETY: as above. The one of the listing itself is closed already, which costs an error.
        unsafe { libc::close(descriptor) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::IntoRawFd as _;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "RAFT_HOST_INHERITED_CHILD";

    /// In a process of its own, for the other tests of this one need their files. (The usual way is
    /// tried by `tests/tests/attackers.rs`.)
    #[test]
    fn without_the_system_call_what_is_listed_is_closed() {
        if std::env::var_os(CHILD).is_some() {
            return close_own();
        }
        let name = "wasm::inherited::tests::without_the_system_call_what_is_listed_is_closed";
        let output = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("a second process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("all are closed"), "{said}");
    }

    fn close_own() {
        let open = || File::open("/dev/null").expect("it is always there").into_raw_fd();
        let opened = [open(), open(), open()];
        close_listed().expect("it is listed");
        let is_open =
            |descriptor: &RawFd| Path::new(&format!("/proc/self/fd/{descriptor}")).exists();
        assert!(!opened.iter().any(is_open) && is_open(&0), "{opened:?}");
        println!("all are closed");
    }
}
