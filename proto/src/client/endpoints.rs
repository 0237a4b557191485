//! The nodes a client may ask, and which one it asks now.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;

use super::retry::FAR;
use super::{ClientError, ClientOptions};
use crate::dial::{Bearer, Dialer, Way};

/// How long an endpoint of another cluster is left alone: somebody may mend it meanwhile.
const FOREIGN_FOR: Duration = Duration::from_secs(60);

/// All endpoints of a client; never empty.
#[derive(Debug)]
pub(super) struct Endpoints {
    nodes: Vec<Node>,
    /// Below `nodes.len()`.
    current: AtomicUsize,
    connect_timeout: Duration,
}

#[derive(Debug)]
struct Node {
    address: String,
    way: Way,
    /// Shows the client's token, if it has one.
    bearer: Bearer,
    /// Made at first use, because that must happen inside of a runtime.
    channel: OnceLock<Channel>,
    /// Its latest answer came, so there is a connection.
    answers: AtomicBool,
    /// It belongs to another cluster, as far as is known until then.
    foreign_until: Mutex<Option<Instant>>,
}

/// What is left when an endpoint turned out to belong to another cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Nobody knew that it does.
    pub(super) is_news: bool,
    /// Endpoints that may belong to the client's.
    pub(super) others: usize,
}

/// One endpoint, to be asked now.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    pub(super) address: String,
    pub(super) channel: Channel,
    pub(super) bearer: Bearer,
    /// Which of the client's endpoints it is.
    pub(super) number: usize,
}

impl Endpoints {
    pub(super) fn new(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: &ClientOptions,
    ) -> Result<Endpoints, ClientError> {
        let invalid = |error: &dyn std::fmt::Display| ClientError::Invalid(error.to_string());
        let dialer = Dialer::of(options.tls.as_ref()).map_err(|error| invalid(&error))?;
        let nodes = endpoints
            .into_iter()
            .map(|text| Node::new(text.as_ref().trim(), &dialer, options))
            .collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(ClientError::Invalid("no endpoint was given".to_owned()));
        }
        let connect_timeout = connect_timeout(options);
        Ok(Endpoints { nodes, current: AtomicUsize::new(0), connect_timeout })
    }

    pub(super) fn pick(&self) -> Picked {
        let number = self.current.load(Ordering::Relaxed);
        let node = &self.nodes[number];
        let channel = node.channel.get_or_init(|| node.way.connect_lazy()).clone();
        let bearer = node.bearer.clone();
        Picked { address: node.address.clone(), channel, bearer, number }
    }

    /// Why the connection of a request ended, where that is known.
    pub(super) fn trouble(&self, picked: &Picked) -> Option<String> {
        self.nodes[picked.number].way.trouble()
    }

    /// Remembers whether the node itself answered.
    pub(super) fn note(&self, picked: &Picked, answered: bool) {
        self.nodes[picked.number].answers.store(answered, Ordering::Relaxed);
    }

    /// Whether there is a connection to the current endpoint, as far as is known.
    pub(super) fn answers(&self) -> bool {
        self.nodes[self.current.load(Ordering::Relaxed)].answers.load(Ordering::Relaxed)
    }

    /// How long a connection may take to be made.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Turns to the next endpoint, unless somebody else turned away from `failed` already.
    pub(super) fn rotate(&self, failed: &Picked) {
        let count = self.nodes.len();
        let next = (1..=count)
            .map(|step| (failed.number + step) % count)
            .find(|number| !self.nodes[*number].is_foreign(Instant::now()))
            .unwrap_or((failed.number + 1) % count);
        // Failing means that another request rotated first, which is as good.
        let _ = self.current.compare_exchange(
            failed.number,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Leaves an endpoint of another cluster alone for a while, and turns to the next one.
    pub(super) fn leave_foreign(&self, picked: &Picked) -> Left {
        let now = Instant::now();
        let is_news = !self.nodes[picked.number].is_foreign(now);
        self.nodes[picked.number].leave(now);
        self.rotate(picked);
        let others = self.nodes.iter().filter(|node| !node.is_foreign(now)).count();
        Left { is_news, others }
    }
}

/// Shorter than a whole request, so that a node that cannot be reached is told from one that is slow.
fn connect_timeout(options: &ClientOptions) -> Duration {
    options.connect_timeout.min(options.deadline.min(FAR).mul_f64(0.8))
}

impl Node {
    fn new(text: &str, dialer: &Dialer, options: &ClientOptions) -> Result<Node, ClientError> {
        let way = dialer.way(text).map_err(|error| ClientError::Invalid(error.to_string()))?;
        let way = way.tuned(|endpoint| {
            endpoint
                .connect_timeout(connect_timeout(options))
                .http2_keep_alive_interval(options.keepalive.min(FAR))
                .keep_alive_timeout(options.keepalive.min(FAR))
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
        });
        let bearer = match options.insecure_token {
            true => Bearer::in_the_open(options.token.as_ref()),
            false => way.bearer(options.token.as_ref()),
        };
        Ok(Node {
            address: way.target().to_string(),
            bearer: bearer.map_err(|error| ClientError::Invalid(error.to_string()))?,
            way,
            channel: OnceLock::new(),
            answers: AtomicBool::new(false),
            foreign_until: Mutex::default(),
        })
    }

    fn is_foreign(&self, now: Instant) -> bool {
        // Nothing panics under this lock.
        let until = self.foreign_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    fn leave(&self, now: Instant) {
        let mut until = self.foreign_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(now + FOREIGN_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        Node::new(text, &Dialer::plain(), &ClientOptions::default())
            .map(|node| node.address)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints_come_with_or_without_a_scheme() {
        assert_eq!(address("localhost:7400").unwrap(), "localhost:7400");
        assert_eq!(address("http://10.0.0.1:7400/").unwrap(), "10.0.0.1:7400");
        assert_eq!(address("[::1]:7400").unwrap(), "[::1]:7400");
    }

    #[tokio::test]
    async fn an_endpoint_of_another_cluster_is_left_alone_for_a_while() {
        let addresses = ["a:1", "b:2", "c:3"];
        let endpoints = Endpoints::new(addresses, &ClientOptions::default()).unwrap();
        let first = Picked {
            address: addresses[0].to_owned(),
            channel: Dialer::plain().way("a:1").unwrap().connect_lazy(),
            bearer: Bearer::default(),
            number: 0,
        };
        let left = endpoints.leave_foreign(&first);
        assert!(left.is_news && left.others == 2);
        assert!(!endpoints.leave_foreign(&first).is_news);
        let turns: Vec<usize> = (0..4)
            .map(|_| {
                let number = endpoints.current.load(Ordering::Relaxed);
                endpoints.rotate(&Picked { number, ..first.clone() });
                number
            })
            .collect();
        assert_eq!(turns, [1, 2, 1, 2]);
        // Only a person mends it, who needs a while.
        let later = Instant::now() + FOREIGN_FOR;
        assert!(endpoints.nodes[0].is_foreign(Instant::now()));
        assert!(!endpoints.nodes[0].is_foreign(later));
    }

    #[test]
    fn an_endpoint_that_cannot_be_dialled_is_refused_with_the_reason() {
        assert!(address("localhost").unwrap_err().contains("port is missing"));
        assert!(address("https://localhost:1").unwrap_err().contains("--tls-ca"));
        assert_eq!(address("unix:/a/b").unwrap(), "unix:/a/b");
        assert!(address("a b:1").unwrap_err().contains("expected host:port"));
        assert!(address("").is_err());
        let token = Some(crate::Secret::new("rh1.abc"));
        let options = ClientOptions { token, ..ClientOptions::default() };
        let refused = Endpoints::new(["10.0.0.1:1"], &options).unwrap_err().to_string();
        assert!(refused.contains("others could read it") && !refused.contains("abc"), "{refused}");
        let options = ClientOptions { insecure_token: true, ..options };
        assert!(Endpoints::new(["10.0.0.1:1"], &options).is_ok());
        let none: [&str; 0] = [];
        assert!(Endpoints::new(none, &ClientOptions::default()).is_err());
    }
}
