//! Which of our processes holds the other end of a connection.
//!
//! A member has one address, which all its peers dial, so a proxy in front of it cannot tell
//! them apart by where they connect to. The kernel can: `/proc/net/tcp` names the inode of the
//! dialling socket, and the process that has it open is the peer. No guess about the protocol,
//! no privileges.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process ids of the nodes, by place; 0: does not run.
#[derive(Debug)]
pub(super) struct Pids(Vec<AtomicU32>);

impl Pids {
    pub(super) fn new(nodes: usize) -> Pids {
        Pids((0..nodes).map(|_| AtomicU32::new(0)).collect())
    }

    pub(super) fn set(&self, at: usize, pid: u32) {
        self.0[at].store(pid, Ordering::SeqCst);
    }

    /// The node whose socket is bound to `dialler` and connected to `dialled`. Blocks.
    pub(super) fn owner(&self, dialler: SocketAddr, dialled: SocketAddr) -> Option<usize> {
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let inode = inode_of(&table, &hexadecimal(dialler)?, &hexadecimal(dialled)?)?;
        let link = format!("socket:[{inode}]");
        let running = self.0.iter().map(|pid| pid.load(Ordering::SeqCst)).enumerate();
        running
            .filter(|(_, pid)| *pid != 0)
            .find(|(_, pid)| has_open(*pid, &link))
            .map(|(at, _)| at)
    }
}

fn has_open(pid: u32, link: &str) -> bool {
    // Processes and descriptors that vanish meanwhile own nothing any more.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.as_os_str() == link)
}

/// As in `/proc/net/tcp`: the address as a number of the machine's byte order.
fn hexadecimal(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

fn inode_of<'a>(table: &'a str, local: &str, remote: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let found = fields.get(1) == Some(&local) && fields.get(2) == Some(&remote);
        fields.get(9).filter(|inode| found && **inode != "0").copied()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_process_that_dialled_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let dialler = TcpStream::connect(address).expect("listening");
        let from = dialler.local_addr().expect("connected");
        let pids = Pids::new(2);
        assert_eq!(pids.owner(from, address), None, "nobody runs");
        pids.set(1, std::process::id());
        assert_eq!(pids.owner(from, address), Some(1));
        assert_eq!(pids.owner(address, address), None, "no such connection");
    }
}
