//! Incarnations of a cluster beside the one that the world is about: a new one that was made of a backup or of
//! a survivor's disk, and nodes of the old one that come back meanwhile, on copies of their disks, under their
//! old addresses. All of them share a network, and several an address.
//!
//! ```text
//!   a new cluster of one voter ─► members join ─► clients ─► all of it is mended ─► do all agree?
//!   nodes of the old one come and go ─► dial whoever is at the addresses that they know ─► the door
//! ```
//!
//! It goes on in rounds of a tick, in each of which every node takes some of its steps. The world stands still
//! meanwhile, and nothing here changes anything there. Whoever comes in by a door is asked by the
//! product's own one (`transport::grpc::introduce`).

mod draw;
mod post;
mod residents;
mod work;

use std::collections::BTreeMap;

use raft_host::fsm::SharedLoader;
use raft_host::types::ClusterId;

pub(super) use self::draw::draw;
use self::post::Parcel;
use self::residents::Resident;
use self::work::Work;
use super::guest::Guest;
use super::observe::{Fact, Micros};
use super::plan::Plan;
use super::random::Random;
use super::witness::{Early, Notes};

/// A command that the old cluster has executed, by its session and its number there.
pub(super) type Told = (u64, u64, bytes::Bytes);

/// What is violated, and in which words.
pub(super) type Wrong = (&'static str, String);

/// What the new cluster is made of.
pub(super) struct Beginning {
    /// Its id.
    pub cluster: ClusterId,
    /// The values of its keys.
    pub values: Vec<Option<i64>>,
    /// Something that the old one has executed, and that a client may send again.
    pub told: Option<Told>,
    /// Rights are in force.
    pub has_rights: bool,
}

/// Whom the scene shows what happens.
pub(super) type Show<'a> = &'a mut dyn FnMut(&Fact<'_>);

/// See the module.
pub(super) struct Scene<'a> {
    plan: &'a Plan,
    guest: &'static dyn Guest,
    loader: SharedLoader,
    beginning: Beginning,
    random: Random,
    now: Micros,
    /// Things still go wrong.
    is_stormy: bool,
    residents: Vec<Resident>,
    parcels: BTreeMap<(Micros, u64), Parcel>,
    next_parcel: u64,
    notes: Notes,
    early: Early,
    work: Work,
    /// How often somebody of another incarnation was refused.
    pub(super) turned_away: u64,
    wrong: Option<Wrong>,
}

/// Elections that things go wrong for.
const STORM: u64 = 7;
/// Elections after which everything that was mended must be well.
const PATIENCE: u64 = 150;

impl<'a> Scene<'a> {
    /// Nobody is there yet.
    pub(super) fn new(
        plan: &'a Plan,
        guest: &'static dyn Guest,
        loader: SharedLoader,
        beginning: Beginning,
        (now, number): (Micros, u64),
    ) -> Scene<'a> {
        let mut random = Random::stream(plan.seed, "incarnations", number);
        let work = Work::draw(&mut random, &beginning);
        Scene {
            plan,
            guest,
            loader,
            beginning,
            random,
            now,
            is_stormy: true,
            residents: Vec::new(),
            parcels: BTreeMap::new(),
            next_parcel: 0,
            notes: Notes::default(),
            early: Early::default(),
            work,
            turned_away: 0,
            wrong: None,
        }
    }

    /// Goes on until all that was to be done is done, and the new cluster's members agree.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn run(&mut self, show: Show<'_>) -> Result<(), Wrong> {
        let tick_us = self.plan.shape.node.tick().as_micros() as u64;
        let election_us = self.plan.shape.node.election_ms * 1_000;
        let began = self.now.0;
        let storm = began + election_us * STORM;
        for at in 0..self.residents.len() {
            self.start(at, show);
        }
        while self.wrong.is_none() {
            self.now.0 += tick_us;
            self.set_clocks();
            self.deliver(show);
            self.step_all(show);
            self.go_on_with_work(show);
            if self.is_stormy {
                match self.now.0 > storm {
                    true => self.mend(show),
                    false => self.let_something_go_wrong(show),
                }
            } else if self.is_done() {
                break;
            } else if self.now.0 > storm + election_us * PATIENCE {
                let what = format!("the new incarnation does not go on: {}", self.missing());
                self.fail("progress", what);
            }
        }
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn fail(&mut self, invariant: &'static str, what: String) {
        self.wrong.get_or_insert((invariant, what));
    }
}
