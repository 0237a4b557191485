//! Links between hosts: what is cut, slow, lossy or full at the moment.

use std::collections::{BTreeMap, VecDeque};

use super::observe::{Micros, Slot};
use super::plan::{Bounds, Quality};
use super::random::Random;

/// A direction between two hosts.
pub(super) type Link = (Slot, Slot);

/// See the module.
pub(super) struct Network {
    random: Random,
    base: Quality,
    bounds: Bounds,
    /// What is on its way over each link.
    queues: BTreeMap<Link, LinkQueue>,
    /// Weather that holds for a while; the last one counts.
    weather: Vec<(u64, Quality)>,
    /// How many faults cut a link.
    cuts: BTreeMap<Link, u32>,
    /// Extra delays.
    slow: BTreeMap<Link, Vec<u64>>,
    /// When the last message of a link arrives: later ones do not overtake it.
    last: BTreeMap<Link, Micros>,
}

/// Messages on their way: when they arrive, and their bytes.
#[derive(Default)]
struct LinkQueue {
    messages: VecDeque<(Micros, u64)>,
    bytes: u64,
}

impl LinkQueue {
    fn arrive(&mut self, now: Micros) {
        let bytes = &mut self.bytes;
        self.messages.retain(|(at, size)| {
            let is_there = *at <= now;
            *bytes -= if is_there { *size } else { 0 };
            !is_there
        });
    }

    fn add(&mut self, at: Micros, bytes: u64) {
        self.messages.push_back((at, bytes));
        self.bytes += bytes;
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives then, and perhaps once more.
    Arrives(Micros, Option<Micros>),
    /// Nobody notices.
    Lost,
    /// The sender notices.
    Refused,
    /// It is too large, or too much is on its way. The sender notices.
    TooMuch,
}

impl Network {
    /// A network of that quality.
    pub(super) fn new(seed: u64, base: Quality, bounds: Bounds) -> Network {
        Network {
            random: Random::stream(seed, "network", 0),
            base,
            bounds,
            queues: BTreeMap::new(),
            weather: Vec::new(),
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    fn quality(&self) -> Quality {
        self.weather.last().map_or(self.base, |(_, quality)| *quality)
    }

    /// Whether a link is cut.
    pub(super) fn is_cut(&self, link: Link) -> bool {
        self.cuts.contains_key(&link)
    }

    /// Cuts links once more.
    pub(super) fn cut(&mut self, links: &[Link]) {
        for link in links {
            *self.cuts.entry(*link).or_default() += 1;
        }
    }

    /// Takes one cut of each link back.
    pub(super) fn mend(&mut self, links: &[Link]) {
        for link in links {
            if let Some(count) = self.cuts.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.cuts.remove(link);
                }
            }
        }
    }

    /// Slows a link down.
    pub(super) fn slow_down(&mut self, link: Link, delay_us: u64) {
        self.slow.entry(link).or_default().push(delay_us);
    }

    /// Takes a slow-down back.
    pub(super) fn speed_up(&mut self, link: Link, delay_us: u64) {
        if let Some(delays) = self.slow.get_mut(&link) {
            if let Some(at) = delays.iter().position(|delay| *delay == delay_us) {
                delays.remove(at);
            }
            if delays.is_empty() {
                self.slow.remove(&link);
            }
        }
    }

    /// Changes the weather, until `end_weather` with the same number.
    pub(super) fn begin_weather(&mut self, number: u64, quality: Quality) {
        self.weather.push((number, quality));
    }

    /// See [`Network::begin_weather`].
    pub(super) fn end_weather(&mut self, number: u64) {
        self.weather.retain(|(other, _)| *other != number);
    }

    /// All is well again.
    pub(super) fn mend_all(&mut self) {
        self.weather.clear();
        self.cuts.clear();
        self.slow.clear();
        self.base.loss_per_mille = 0;
    }

    /// Whether a message fits the link, as the transport's queue decides it.
    fn fits(&mut self, now: Micros, link: Link, bytes: u64) -> bool {
        let queue = self.queues.entry(link).or_default();
        queue.arrive(now);
        let Bounds { message_bytes, queue_bytes, queue_messages } = self.bounds;
        let has_room = queue.bytes + bytes <= queue_bytes && queue.messages.len() < queue_messages;
        bytes <= message_bytes && (queue.messages.is_empty() || has_room)
    }

    /// Decides about a message sent now, of so many bytes, and if it carries a snapshot of so many.
    /// Snapshots take a connection of their own.
    pub(super) fn send(
        &mut self,
        now: Micros,
        link: Link,
        message_bytes: u64,
        snapshot_bytes: Option<u64>,
    ) -> Fate {
        let bytes = message_bytes + snapshot_bytes.unwrap_or(0);
        if self.is_cut(link) {
            return Fate::Refused;
        }
        if snapshot_bytes.is_none() && !self.fits(now, link, message_bytes) {
            return Fate::TooMuch;
        }
        let quality = self.quality();
        if self.random.per_mille(quality.loss_per_mille) {
            return Fate::Lost;
        }
        let extra = self.slow.get(&link).and_then(|delays| delays.iter().max()).copied();
        // 100 MB/s.
        let base = extra.unwrap_or(0) + bytes / 100;
        let mut delay = || self.random.between(quality.delay_min_us, quality.delay_max_us) + base;
        let mut at = Micros(now.0 + delay());
        let again = Micros(now.0 + delay());
        if !quality.reorders {
            at = at.max(*self.last.get(&link).unwrap_or(&Micros(0)));
            self.last.insert(link, at);
        }
        if snapshot_bytes.is_none() {
            self.queues.entry(link).or_default().add(at, message_bytes);
        }
        let is_double = self.random.per_mille(quality.duplicate_per_mille);
        Fate::Arrives(at, is_double.then_some(again))
    }

    /// Decides about a client's request or answer: when it arrives, if it does.
    pub(super) fn send_client(&mut self, now: Micros) -> Option<Micros> {
        let quality = self.quality();
        if self.random.per_mille(quality.loss_per_mille) {
            return None;
        }
        let delay = self.random.between(quality.delay_min_us, quality.delay_max_us);
        Some(Micros(now.0 + delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = (Slot(0), Slot(1));

    fn network() -> Network {
        let quality = Quality {
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay_min_us: 1_000,
            delay_max_us: 1_000,
            reorders: false,
        };
        let bounds = Bounds { message_bytes: 300, queue_bytes: 250, queue_messages: 2 };
        Network::new(1, quality, bounds)
    }

    fn arrives(fate: Fate) -> bool {
        matches!(fate, Fate::Arrives(..))
    }

    #[test]
    fn a_link_takes_no_more_than_the_real_one_and_is_free_again_when_it_has_delivered() {
        let mut network = network();
        assert!(arrives(network.send(Micros(0), LINK, 200, None)));
        assert_eq!(network.send(Micros(10), LINK, 51, None), Fate::TooMuch);
        assert!(arrives(network.send(Micros(10), LINK, 50, None)));
        // Two messages are as many as may be under way, whatever their size.
        assert_eq!(network.send(Micros(20), LINK, 0, None), Fate::TooMuch);
        assert!(arrives(network.send(Micros(20), (Slot(1), Slot(0)), 1, None)));
        assert!(arrives(network.send(Micros(20), LINK, 1, Some(1 << 30))));
        assert!(arrives(network.send(Micros(5_000), LINK, 10, None)));
    }

    #[test]
    fn a_message_larger_than_the_queue_passes_alone_and_one_beyond_the_limit_never() {
        let mut network = network();
        assert!(arrives(network.send(Micros(0), LINK, 300, None)));
        assert_eq!(network.send(Micros(5_000), LINK, 301, None), Fate::TooMuch);
    }
}
