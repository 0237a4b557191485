//! A client that means well: it applies one command after the other and notes how long each takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::ClientTls;

use crate::harness::block_on;

/// See the module.
pub struct Honest {
    client: Client,
}

/// Commands whose times are looked at.
const COMMANDS: usize = 300;

impl Honest {
    /// A client of one node.
    pub fn of(address: SocketAddr) -> Honest {
        let endpoints = [address.to_string()];
        let client = Client::connect(endpoints, ClientOptions::default()).expect("an address");
        Honest { client }
    }

    /// The same of a node that speaks TLS.
    pub fn secured(address: SocketAddr, tls: ClientTls) -> Honest {
        let options = ClientOptions { tls: Some(tls), ..ClientOptions::default() };
        let client = Client::connect([address.to_string()], options).expect("an address");
        Honest { client }
    }

    /// What one command in a hundred takes longer than, while nothing else goes on or something does.
    pub fn p99(&self) -> Duration {
        self.p99_until(|| true)
    }

    /// The same while `attack` goes on, over no fewer commands; the attack is told to end by its argument.
    pub fn p99_during(&self, attack: impl FnOnce(&AtomicBool) + Send) -> Duration {
        let (end, over) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let (attack_end, attack_over) = (&end, Arc::clone(&over));
            scope.spawn(move || {
                attack(attack_end);
                attack_over.store(true, Ordering::Relaxed);
            });
            let began = Instant::now();
            // An attack needs some time to get going.
            let enough = || began.elapsed() >= ATTACK_TIME || over.load(Ordering::Relaxed);
            let p99 = self.p99_until(enough);
            end.store(true, Ordering::Relaxed);
            p99
        })
    }

    fn p99_until(&self, enough: impl Fn() -> bool) -> Duration {
        let mut times = Vec::new();
        while times.len() < COMMANDS || !enough() {
            let key = format!("honest-{}", times.len() % 100);
            let command = serde_json::json!({ "op": "set", "key": key, "value": "1" });
            let began = Instant::now();
            block_on(self.client.apply(command.to_string())).expect("it means well");
            times.push(began.elapsed());
        }
        times.sort();
        times[times.len() - 1 - times.len() / 100]
    }
}

/// How long an attack is looked at, at least.
const ATTACK_TIME: Duration = Duration::from_secs(4);
