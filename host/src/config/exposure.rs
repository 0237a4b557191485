//! Which ports others than this machine can reach, and whether that is meant.

use super::{Config, HostPort};
use crate::tls::TlsMode;
use crate::types::check_address;

/// What is wrong with the port of nodes, and with ports that are open to everybody.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = peer_problems(config);
    if config.tls.mode != TlsMode::Off || config.insecure {
        return problems;
    }
    let ports = [
        ("listen", Some(&config.listen)),
        ("peer_listen", config.peer_listen.as_ref()),
        ("metrics_listen", config.metrics_listen.as_ref()),
    ];
    let open = ports.into_iter().filter_map(|(name, at)| Some((name, at?))).find(|(_, at)| {
        // What is no address at all is a problem of its own.
        HostPort::parse(at).is_some_and(|at| !at.is_loopback())
    });
    problems.extend(open.map(|(name, at)| {
        format!(
            "{name} is {at}, which others than this machine can reach, and without TLS whoever reaches it can \
             read and change everything: make certificates (`raft-host certs init`, `raft-host certs node`) and \
             give them with --tls DIR; or listen on 127.0.0.1; or say with insecure (--insecure) that the \
             network lets nobody in who does not belong"
        )
    }));
    problems
}

fn peer_problems(config: &Config) -> Vec<String> {
    let Some(listen) = &config.peer_listen else {
        let unused = config.peer_advertise.is_some().then(|| {
            "peer_advertise (--peer-advertise) is where other nodes find their own port, and there is none: give \
             peer_listen (--peer-listen) as well, or advertise (--advertise) instead"
                .to_owned()
        });
        return unused.into_iter().collect();
    };
    let mut problems = Vec::new();
    let at = HostPort::parse(listen);
    match &at {
        None => problems.push(format!(
            "peer_listen is {listen:?}, but must be HOST:PORT, such as 10.0.0.1:7500"
        )),
        Some(at) if at.port != 0 && *listen == config.listen => problems.push(format!(
            "peer_listen and listen are both {listen}: the nodes' port is one of its own"
        )),
        Some(at) if config.peer_advertise.is_none() && at.is_unspecified() => {
            problems.push(format!(
                "peer_listen is {listen}, which nobody can dial: say with peer_advertise (--peer-advertise \
                 HOST:{}) under which address other nodes reach this one",
                at.port
            ));
        }
        Some(_) => {}
    }
    let dialled = config.peer_advertise.as_ref();
    let host = at.map(|at| format!("{}:1", at.host));
    if let Some(address) = dialled.or(host.as_ref())
        && problems.is_empty()
        && let Err(error) = check_address(address)
    {
        problems.push(format!("the address under which other nodes reach this one: {error}"));
    }
    problems
}

impl HostPort<'_> {
    /// Whether nobody but this machine gets there.
    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(listen: &str) -> Config {
        Config { listen: listen.to_owned(), ..Config::default() }
    }

    #[test]
    fn without_tls_only_this_machine_is_listened_to_unless_somebody_insists() {
        for listen in ["127.0.0.1:1", "localhost:0", "[::1]:1", "127.8.8.8:1"] {
            assert_eq!(problems(&listening(listen)), [""; 0], "{listen}");
        }
        for listen in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "node-1:1"] {
            let found = problems(&listening(listen)).join("");
            for words in ["listen is", listen, "certs init", "--insecure", "--tls DIR"] {
                assert!(found.contains(words), "{words}: {found}");
            }
            let meant = Config { insecure: true, ..listening(listen) };
            assert_eq!(problems(&meant), [""; 0], "{listen}");
            let mut secured = listening(listen);
            secured.tls.use_folder(std::path::Path::new("/d"));
            assert_eq!(problems(&secured), [""; 0], "{listen}");
        }
        let metrics = Some("0.0.0.0:2".to_owned());
        let open = Config { metrics_listen: metrics, ..Config::default() };
        assert!(problems(&open).join("").contains("metrics_listen is 0.0.0.0:2"));
    }

    #[test]
    fn the_port_of_nodes_is_one_of_its_own_and_can_be_dialled() {
        let with = |listen: &str, advertise: Option<&str>| Config {
            peer_listen: (!listen.is_empty()).then(|| listen.to_owned()),
            peer_advertise: advertise.map(str::to_owned),
            insecure: true,
            ..Config::default()
        };
        assert_eq!(problems(&with("10.0.0.1:7500", None)), [""; 0]);
        assert_eq!(problems(&with("0.0.0.0:7500", Some("a:7500"))), [""; 0]);
        for (config, words) in [
            (with("", Some("a:1")), "give peer_listen"),
            (with("7500", None), "must be HOST:PORT"),
            (with("0.0.0.0:7500", None), "--peer-advertise HOST:7500"),
            (with("127.0.0.1:7400", None), "one of its own"),
            (with("127.0.0.1:7500", Some("0.0.0.0:1")), "under which other nodes reach this one"),
        ] {
            let found = problems(&config).join("");
            assert!(found.contains(words), "{words}: {found}");
        }
    }
}
