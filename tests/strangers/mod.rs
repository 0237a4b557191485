//! Those who reach the port of a node and mean harm, and somebody who does not.
//!
//! ```text
//!   frames    HTTP/2 by hand, whether it is allowed or not
//!   raw       messages of any bytes
//!   honest    a client that works meanwhile, and how long its commands take
//! ```

pub mod frames;
mod honest;
mod raw;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use honest::Honest;
pub use raw::{Raw, RawCodec};

/// A number of `/proc/<pid>/status`, in bytes.
pub fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib = line.trim_start_matches(':').split_whitespace().next().expect("a number");
    kib.parse::<u64>().expect("a number") << 10
}

/// As many files as the system lets this process open; how many that is.
pub fn with_many_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    assert!(hard > 4_096, "the test needs more open files than {hard} (ulimit -Hn)");
    hard
}
