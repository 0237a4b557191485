//! Mutual TLS: certificates of the nodes and of the clients, as `raft-host certs` makes them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use raft_host_proto::dial::ClientTls;

/// Whom a cluster that is formed with TLS lets do everything.
const CLIENT: &str = "admin";
/// Nodes and their proxies listen there, and nowhere else.
const HOST: &str = "127.0.0.1";

/// A folder with a CA, of which each node has a certificate.
pub(super) struct Certificates {
    program: PathBuf,
    dir: PathBuf,
    client: ClientTls,
    /// How many nodes have had one. Ids are given in that order, so only one is made at a time.
    issued: Mutex<usize>,
}

impl Certificates {
    /// Makes the CA and the clients' certificate.
    pub(super) fn new(program: &Path, dir: &Path) -> anyhow::Result<Certificates> {
        let dir = dir.join("certs");
        let place = dir.display().to_string();
        run(program, &["certs", "init", &place, "--client", CLIENT])?;
        let client = ClientTls::in_folder(&dir.join("clients").join(CLIENT));
        Ok(Certificates { program: program.to_owned(), dir, client, issued: Mutex::new(0) })
    }

    /// What clients show, and whom they trust.
    pub(super) fn client(&self) -> &ClientTls {
        &self.client
    }

    /// The folder with the certificate of a node that was not there yet: it names the next id.
    pub(super) fn issue(&self) -> anyhow::Result<PathBuf> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        *issued += 1;
        let (name, place) = (format!("n{issued}"), self.dir.display().to_string());
        run(&self.program, &["certs", "node", &place, "--name", &name, "--address", HOST])?;
        Ok(self.dir.join("nodes").join(name))
    }
}

fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(())
}
