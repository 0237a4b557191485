//! Links between hosts: what is cut, slow, or lossy at the moment.

use std::collections::BTreeMap;

use super::observe::{Micros, Slot};
use super::plan::Quality;
use super::random::Random;

/// A direction between two hosts.
pub type Link = (Slot, Slot);

/// See the module.
pub struct Network {
    random: Random,
    base: Quality,
    /// Weather that holds for a while; the last one counts.
    weather: Vec<(u64, Quality)>,
    /// How many faults cut a link.
    cuts: BTreeMap<Link, u32>,
    /// Extra delays.
    slow: BTreeMap<Link, Vec<u64>>,
    /// When the last message of a link arrives: later ones do not overtake it.
    last: BTreeMap<Link, Micros>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then, and perhaps once more.
    Arrives(Micros, Option<Micros>),
    /// Nobody notices.
    Lost,
    /// The sender notices.
    Refused,
}

impl Network {
    /// A network of that quality.
    pub fn new(seed: u64, base: Quality) -> Network {
        Network {
            random: Random::stream(seed, "network", 0),
            base,
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
    pub fn is_cut(&self, link: Link) -> bool {
        self.cuts.contains_key(&link)
    }

    /// Cuts links once more.
    pub fn cut(&mut self, links: &[Link]) {
        for link in links {
            *self.cuts.entry(*link).or_default() += 1;
        }
    }

    /// Takes one cut of each link back.
    pub fn mend(&mut self, links: &[Link]) {
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
    pub fn slow_down(&mut self, link: Link, delay_us: u64) {
        self.slow.entry(link).or_default().push(delay_us);
    }

    /// Takes a slow-down back.
    pub fn speed_up(&mut self, link: Link, delay_us: u64) {
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
    pub fn begin_weather(&mut self, number: u64, quality: Quality) {
        self.weather.push((number, quality));
    }

    /// See [`Network::begin_weather`].
    pub fn end_weather(&mut self, number: u64) {
        self.weather.retain(|(other, _)| *other != number);
    }

    /// All is well again.
    pub fn mend_all(&mut self) {
        self.weather.clear();
        self.cuts.clear();
        self.slow.clear();
        self.base.loss_per_mille = 0;
    }

    /// Decides about a message sent now, of so many bytes.
    pub fn send(&mut self, now: Micros, link: Link, bytes: u64) -> Fate {
        if self.is_cut(link) {
            return Fate::Refused;
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
        let is_double = self.random.per_mille(quality.duplicate_per_mille);
        Fate::Arrives(at, is_double.then_some(again))
    }

    /// Decides about a client's request or answer: when it arrives, if it does.
    pub fn send_client(&mut self, now: Micros) -> Option<Micros> {
        let quality = self.quality();
        if self.random.per_mille(quality.loss_per_mille) {
            return None;
        }
        let delay = self.random.between(quality.delay_min_us, quality.delay_max_us);
        Some(Micros(now.0 + delay))
    }
}
