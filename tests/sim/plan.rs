//! What a seed makes of a run: the shape of the cluster, and all faults and operations with
//! their times, drawn before the run begins. What is drawn here can be left out one by one,
//! which is how a failing run is shrunk.

use raft_host::consensus::ConsensusConfig;
use raft_host::fsm::Limits;
use raft_host::node::{DigestConfig, NodeConfig, SnapshotConfig};
use raft_host::storage::StorageConfig;

use super::incarnations;
use super::observe::Micros;
use super::random::Random;

/// Sizes, timings and rates of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Name of the guest.
    pub guest: &'static str,
    /// Voters that the cluster grows to before anything goes wrong.
    pub voters: usize,
    /// Learners beside them.
    pub learners: usize,
    /// Timing and limits of nodes.
    pub node: NodeConfig,
    /// Limits of consensus.
    pub consensus: ConsensusConfig,
    /// Sizes of files and caches.
    pub storage: StorageConfig,
    /// Budgets of guests.
    pub limits: Limits,
    /// Clients at work at the same time.
    pub clients: usize,
    /// Operations of each client before everything is mended.
    pub operations: u64,
    /// Keys they share.
    pub keys: u8,
    /// Longest pause of a client between two operations.
    pub think_us: u64,
    /// Out of a thousand operations: reads.
    pub reads_per_mille: u64,
    /// Out of a thousand commands: ones that break the guest or make it do odd things.
    pub odd_per_mille: u64,
    /// Out of a thousand clients: ones without a session.
    pub sessionless_per_mille: u64,
    /// Out of a thousand times that a client has a command: ones with several, for one entry.
    pub batches_per_mille: u64,
    /// Most commands of one entry.
    pub batch_max: u64,
    /// Out of a thousand clients with a session: ones whose session is ordered, and who send commands
    /// out of their order.
    pub ordered_per_mille: u64,
    /// How long things go wrong.
    pub faults_us: u64,
    /// One entry in so many has a digest of the machine taken after it.
    pub digest_every: u64,
    /// Modules are uploaded in parts of so many bytes.
    pub chunk_bytes: usize,
    /// Time of one fsync, at most.
    pub fsync_us: u64,
    /// Time of applying a batch or of a turn of the event loop, at most.
    pub step_us: u64,
    /// The network when nothing is wrong.
    pub network: Quality,
    /// What each link takes.
    pub link: Bounds,
    /// Nodes are programs that offer different levels.
    pub levels: bool,
    /// Keys of publishers are trusted and revoked, and modules signed.
    pub signs: bool,
    /// Clients act as principals, and rights are in force.
    pub rights: bool,
    /// Modules are rehearsed, made ahead, undone and renewed.
    pub rehearses: bool,
}

/// How much a link takes, as the transport's limits (`transport::grpc`), but often far smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest message; a longer one is refused.
    pub message_bytes: u64,
    /// Bytes on their way over a link at a time; what is more is refused, unless it is alone.
    pub queue_bytes: u64,
    /// Messages on their way over a link at a time.
    pub queue_messages: usize,
}

/// How links treat messages.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Lost, out of a thousand.
    pub loss_per_mille: u64,
    /// Delivered twice, out of a thousand.
    pub duplicate_per_mille: u64,
    /// Shortest time on the way.
    pub delay_min_us: u64,
    /// Longest time on the way.
    pub delay_max_us: u64,
    /// Later messages may overtake earlier ones.
    pub reorders: bool,
}

/// Picks one of the nodes that are there when the time comes.
#[derive(Clone, Copy, Debug)]
pub struct Pick(pub u64);

/// One fault or operation.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it; times are in microseconds")]
pub enum Action {
    // Network
    Partition { sides: u64, for_us: u64 },
    Isolate { node: Pick, inbound: bool, outbound: bool, for_us: u64 },
    CutLink { from: Pick, to: Pick, both_ways: bool, for_us: u64 },
    SlowLink { from: Pick, to: Pick, delay_us: u64, for_us: u64 },
    Weather { quality: Quality, for_us: u64 },
    ResetConnections { node: Pick },
    // Processes
    Kill { node: Pick, power_loss: bool, when: Boundary, down_us: u64 },
    KillAll { power_loss: bool, down_us: u64 },
    Pause { node: Pick, for_us: u64 },
    ClockJump { node: Pick, by_ms: i64 },
    ClockDrift { node: Pick, ppm: i64 },
    // Disks
    StallDisk { node: Pick, for_us: u64 },
    HangLeadersDisk { for_us: u64 },
    SlowDisk { node: Pick, fsync_us: u64, for_us: u64 },
    FailSync { node: Pick, down_us: u64 },
    FillDisk { node: Pick, spare_bytes: u64, for_us: u64 },
    LittleSpace { node: Pick, critical: bool, spare_bytes: u64, for_us: u64 },
    LittleSpaceForAll { critical: bool, spare_bytes: u64, for_us: u64 },
    Rot { node: Pick },
    MisdirectWrite { node: Pick },
    LoseWrite { node: Pick },
    // Operators
    Replace { node: Pick },
    Rejoin { node: Pick },
    Move { node: Pick },
    StartTwice { node: Pick },
    Join { promote: bool },
    Remove { node: Pick },
    Transfer { to: Pick },
    Snapshot { node: Pick },
    Upgrade { version: u64 },
    SetLimits { choice: u64 },
    SetKeys { choice: u64 },
    UpgradeSigned { version: u64, choice: u64 },
    UpgradeRehearsed { version: u64, choice: u64 },
    Shadow { node: Pick, version: u64, for_us: u64 },
    Rewind,
    TryRewind { nodes: u64, undoes: bool },
    SettleUpgrade,
    Renew { ahead: bool },
    Install { node: Pick, next: bool, down_us: u64 },
    RaiseLevel,
    SetRights { client: Pick, choice: u64 },
    MakeJoinToken { ttl_ms: u64 },
    EndJoinToken { choice: u64 },
    BringToken { choice: u64, are_two: bool },
    // Machines
    StallMachine { node: Pick, for_us: u64 },
    // Of copies of disks: what would be made of some nodes if all others were gone
    PlanRecovery { nodes: u64, power_loss: bool },
    // Clusters made beside this one, with nodes of this one that come back
    Recover { nodes: u64, power_loss: bool, return_of: u64 },
    Backup { node: Pick },
    Restore { choice: u64, exported: bool, return_of: u64 },
    // Memory
    FlipBit { node: Pick, at: u64 },
}

/// Between which of a node's steps it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Whatever comes.
    Now,
    /// In the middle of the next write of the log, after so many disk operations.
    InWrite(u64),
    /// After the next fsync of the log, before anybody hears of it.
    AfterWrite,
    /// In the middle of writing the next snapshot.
    InSave(u64),
    /// After the next entries are applied, before anybody hears of it.
    AfterApply,
    /// In the middle of releasing log space.
    InPurge(u64),
}

/// An action and its time after the faults begin.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Position in the plan as drawn; stays the same when others are left out.
    pub number: usize,
    /// When.
    pub at: Micros,
    /// What.
    pub action: Action,
}

/// All that a run needs besides its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The cluster.
    pub shape: Shape,
    /// By time.
    pub actions: Vec<Planned>,
}

/// What the caller fixes instead of leaving it to the seed.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// The guest.
    pub guest: Option<&'static str>,
    /// The number of voters.
    pub voters: Option<usize>,
    /// Nothing goes wrong.
    pub calm: bool,
    /// Nodes compare digests, and bits flip in their memory.
    pub flips: bool,
}

const SECOND: u64 = 1_000_000;

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64, fixed: &Fixed) -> Plan {
        let mut random = Random::stream(seed, "shape", 0);
        let mut shape = draw_shape(&mut random, fixed);
        let mut random = Random::stream(seed, "actions", 0);
        let count = if fixed.calm { 0 } else { random.between(4, 40) };
        // Some runs suffer from everything, some from a few things, again and again.
        let weights: Vec<u64> = (0..KINDS).map(|_| random.below(4).pow(2)).collect();
        let mut actions: Vec<(u64, Action)> = (0..count)
            .map(|_| (random.below(shape.faults_us), draw_action(&mut random, &weights, &shape)))
            .collect();
        actions.sort_by_key(|(at, _)| *at);
        // Drawn last and from a stream of their own, so that seeds without them stay what they
        // are, and actions keep their numbers.
        draw_bounds(&mut Random::stream(seed, "bounds", 0), &mut shape);
        draw_digests(&mut Random::stream(seed, "digests", 0), &mut shape);
        draw_batches(&mut Random::stream(seed, "batches", 0), &mut shape);
        shape.ordered_per_mille = *Random::stream(seed, "ordered", 0).pick(&[0, 0, 300, 1000]);
        actions.extend(draw_hangs(&mut Random::stream(seed, "hangs", 0), fixed, &shape));
        actions.extend(draw_flips(&mut Random::stream(seed, "flips", 0), fixed, &mut shape));
        actions.extend(draw_slow_machines(&mut Random::stream(seed, "machines", 0), fixed, &shape));
        actions.extend(draw_leaps(&mut Random::stream(seed, "leaps", 0), fixed, &shape));
        actions.extend(draw_rejoins(&mut Random::stream(seed, "rejoins", 0), fixed, &shape));
        actions.extend(draw_levels(&mut Random::stream(seed, "levels", 0), fixed, &mut shape));
        actions.extend(draw_little_space(&mut Random::stream(seed, "space", 0), fixed, &shape));
        actions.extend(draw_moves(&mut Random::stream(seed, "moves", 0), fixed, &shape));
        actions.extend(draw_recoveries(&mut Random::stream(seed, "recoveries", 0), fixed, &shape));
        actions.extend(draw_keys(&mut Random::stream(seed, "keys", 0), fixed, &mut shape));
        actions.extend(draw_rights(&mut Random::stream(seed, "rights", 0), fixed, &mut shape));
        actions.extend(incarnations::draw(&mut Random::stream(seed, "backups", 0), fixed, &shape));
        actions.extend(draw_rehearsals(
            &mut Random::stream(seed, "rehearsals", 0),
            fixed,
            &mut shape,
        ));
        actions.extend(draw_shadows(&mut Random::stream(seed, "shadows", 0), &shape));
        actions.extend(draw_second_starts(
            &mut Random::stream(seed, "second-starts", 0),
            fixed,
            &shape,
        ));
        actions.extend(draw_newcomers(&mut Random::stream(seed, "newcomers", 0), &shape));
        actions.extend(draw_trials(&mut Random::stream(seed, "trials", 0), &shape));
        shape.node.snapshot.costly_fuel =
            *Random::stream(seed, "costly", 0).pick(&[0, shape.node.snapshot.costly_fuel]);
        let mut actions: Vec<Planned> = actions
            .into_iter()
            .enumerate()
            .map(|(number, (at, action))| Planned { number, at: Micros(at), action })
            .collect();
        actions.sort_by_key(|planned| planned.at);
        Plan { seed, shape, actions }
    }
}

/// Longest time that one job of a machine takes: less than a query may take at a healthy node.
const SLOW_APPLY_US: u64 = SECOND;

/// Jobs of machines that take long, as a large snapshot's installation or a costly command does.
fn draw_slow_machines(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    let count = if fixed.calm { 0 } else { *random.pick(&[0, 0, 1, 4]) };
    let mut slow = || {
        let for_us = random.magnitude(SLOW_APPLY_US / 64, SLOW_APPLY_US);
        let action = Action::StallMachine { node: Pick(random.number()), for_us };
        (random.below(shape.faults_us), action)
    };
    (0..count).map(|_| slow()).collect()
}

/// Longest entry besides parts of modules, and what such a part has around it.
const SMALL_ENTRY_BYTES: u64 = 2 << 10;

/// Limits in bytes, of links and of what leaders keep: from as tight as they can be to those of the
/// product.
fn draw_bounds(random: &mut Random, shape: &mut Shape) {
    let entry_bytes = shape.largest_entry_bytes();
    let consensus = &mut shape.consensus;
    let message_bytes = consensus.max_append_bytes.max(entry_bytes) * 2;
    shape.link.message_bytes = random.magnitude(message_bytes, 64 << 20);
    // What is checked of the product's configuration: a window fits the queue.
    let window_bytes = random.magnitude(consensus.max_append_bytes, 16 << 20);
    consensus.append_window_bytes = window_bytes;
    let least = 2 * (window_bytes + message_bytes);
    shape.link.queue_bytes = random.magnitude(least, (64 << 20).max(least));
    shape.link.queue_messages = random.magnitude(64, 16_384) as usize;
    consensus.held_bytes = random.magnitude(64, 64 << 10);
    consensus.trailing_ms = *random.pick(&[0, 0, 0, 100, 1_000]);
}

/// Addresses that no guest ever reads or writes: `registers` has nothing there, and of the kv
/// plugin it is the far end of a stack of a megabyte.
const UNREAD: (u64, u64) = (2_048, 60_000);

/// Disks of leaders that do not answer for far longer than the others may take to notice.
fn draw_hangs(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm {
        return Vec::new();
    }
    let election_us = shape.node.election_ms * 1_000;
    let count = *random.pick(&[0, 0, 1, 2]);
    let mut hang = || {
        let for_us = random.between(election_us * 8, election_us * 40);
        (random.below(shape.faults_us), Action::HangLeadersDisk { for_us })
    };
    (0..count).map(|_| hang()).collect()
}

/// Some runs compare digests although no bit flips, so that digests meet every other fault.
fn draw_digests(random: &mut Random, shape: &mut Shape) {
    if random.per_mille(250) {
        shape.node.digest = DigestConfig {
            every_commands: random.magnitude(2, 256),
            every_ms: *random.pick(&[0, 500, 2_000, 10_000]),
            pause_ms: 0,
        };
    }
}

/// How often clients have several commands for one entry, and how many. The commands of an entry are
/// under way at the same time, and whoever judges the history has to look at all orders of those that
/// are about one key.
fn draw_batches(random: &mut Random, shape: &mut Shape) {
    shape.batches_per_mille = *random.pick(&[0, 0, 100, 500, 1000]);
    let most = 4 * u64::from(shape.keys) / shape.clients as u64;
    if most < 2 {
        // Orders of that many are too many to look at: about one seed in 10,000 was never judged.
        shape.batches_per_mille = 0;
    }
    shape.batch_max = random.between(2, most.clamp(2, 8));
}

/// Whether nodes compare digests, how often, and which bits flip.
fn draw_flips(random: &mut Random, fixed: &Fixed, shape: &mut Shape) -> Vec<(u64, Action)> {
    if !fixed.flips {
        return Vec::new();
    }
    shape.node.digest = DigestConfig {
        every_commands: random.magnitude(2, 64),
        every_ms: *random.pick(&[0, 500, 2_000]),
        pause_ms: 0,
    };
    let count = if fixed.calm { 0 } else { random.between(1, 6) };
    let mut flip = || {
        let action =
            Action::FlipBit { node: Pick(random.number()), at: random.between(UNREAD.0, UNREAD.1) };
        (random.below(shape.faults_us), action)
    };
    (0..count).map(|_| flip()).collect()
}

/// Out of a thousand seeds, those with members that lose their data and join again under their
/// address.
const REJOINS_PER_MILLE: u64 = 250;

fn draw_rejoins(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(REJOINS_PER_MILLE) {
        return Vec::new();
    }
    let count = random.between(1, 4);
    let mut rejoin = || {
        let action = Action::Rejoin { node: Pick(random.number()) };
        (random.below(shape.faults_us), action)
    };
    (0..count).map(|_| rejoin()).collect()
}

/// Out of a thousand seeds, those with disks that others fill, and nodes that see it come.
const LITTLE_SPACE_PER_MILLE: u64 = 250;

fn draw_little_space(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(LITTLE_SPACE_PER_MILLE) {
        return Vec::new();
    }
    let election_us = shape.node.election_ms * 1_000;
    let count = random.between(1, 8);
    let mut squeeze = || {
        let (critical, node) = (random.per_mille(500), Pick(random.number()));
        let spare_bytes = *random.pick(&[0, 0, 4 << 10, 64 << 10, 1 << 20, 16 << 20]);
        let for_us = random.magnitude(election_us, election_us * 40);
        let action = match random.per_mille(200) {
            true => Action::LittleSpaceForAll { critical, spare_bytes, for_us },
            false => Action::LittleSpace { node, critical, spare_bytes, for_us },
        };
        (random.below(shape.faults_us), action)
    };
    (0..count).map(|_| squeeze()).collect()
}

/// Out of a thousand seeds, those with members that move to other addresses.
const MOVES_PER_MILLE: u64 = 200;

fn draw_moves(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(MOVES_PER_MILLE) {
        return Vec::new();
    }
    let count = random.between(1, 6);
    let mut moves =
        || (random.below(shape.faults_us), Action::Move { node: Pick(random.number()) });
    (0..count).map(|_| moves()).collect()
}

/// Out of a thousand seeds, those in which somebody looks what a recovery would make of the cluster.
const RECOVERIES_PER_MILLE: u64 = 300;

fn draw_recoveries(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(RECOVERIES_PER_MILLE) {
        return Vec::new();
    }
    let mut look = || {
        let (nodes, power_loss) = (random.number(), random.per_mille(500));
        (random.below(shape.faults_us), Action::PlanRecovery { nodes, power_loss })
    };
    (0..12).map(|_| look()).collect()
}

/// Out of a thousand seeds, those in which clients act as principals.
const RIGHTS_PER_MILLE: u64 = 250;

/// Rights that are given and taken away, tokens that end, by operators who do not ask who needs them.
fn draw_rights(random: &mut Random, fixed: &Fixed, shape: &mut Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(RIGHTS_PER_MILLE) {
        return Vec::new();
    }
    shape.rights = true;
    let mut change = || {
        let (client, choice) = (Pick(random.number()), random.number());
        (random.below(shape.faults_us), Action::SetRights { client, choice })
    };
    let count = 4 + shape.clients as u64 * 4;
    (0..count).map(|_| change()).collect()
}

/// Where rights matter, some nodes join with tokens.
fn draw_newcomers(random: &mut Random, shape: &Shape) -> Vec<(u64, Action)> {
    if !shape.rights {
        return Vec::new();
    }
    let (tokens, ends, newcomers) = (random.between(1, 4), random.below(2), random.between(1, 5));
    let mut drawn = |at: u64| {
        let choice = random.number();
        let action = if at < tokens {
            Action::MakeJoinToken { ttl_ms: *random.pick(&[100, 1_000, 10_000, 600_000, 600_000]) }
        } else if at < tokens + ends {
            Action::EndJoinToken { choice }
        } else {
            Action::BringToken { choice, are_two: random.per_mille(400) }
        };
        (random.below(shape.faults_us), action)
    };
    (0..tokens + ends + newcomers).map(&mut drawn).collect()
}

/// Out of a thousand seeds, those with programs that offer different levels.
const LEVELS_PER_MILLE: u64 = 250;

/// Rolling upgrades, forwards mostly, by careless operators.
fn draw_levels(random: &mut Random, fixed: &Fixed, shape: &mut Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(LEVELS_PER_MILLE) {
        return Vec::new();
    }
    shape.levels = true;
    shape.node.level_settle_ms = *random.pick(&[0, 100, 1_000, 5_000]);
    let election_us = shape.node.election_ms * 1_000;
    let nodes = (shape.voters + shape.learners) as u64;
    let installs = random.between(nodes, nodes * 4);
    let raises = random.below(3);
    let mut drawn = |at: u64| {
        let action = if at < installs {
            Action::Install {
                node: Pick(random.number()),
                next: random.per_mille(850),
                down_us: random.magnitude(1_000, election_us * 3),
            }
        } else {
            Action::RaiseLevel
        };
        (random.below(shape.faults_us), action)
    };
    (0..installs + raises).map(&mut drawn).collect()
}

/// Out of a thousand seeds, those with publishers who sign modules.
const KEYS_PER_MILLE: u64 = 250;

/// Keys that are trusted and revoked, and modules that some of them have signed.
fn draw_keys(random: &mut Random, fixed: &Fixed, shape: &mut Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(KEYS_PER_MILLE) {
        return Vec::new();
    }
    shape.signs = true;
    let (changes, upgrades) = (random.between(3, 12), random.between(3, 16));
    let mut drawn = |at: u64| {
        let choice = random.number();
        let action = match at < changes {
            true => Action::SetKeys { choice },
            false => Action::UpgradeSigned { version: random.below(6), choice },
        };
        (random.below(shape.faults_us), action)
    };
    (0..changes + upgrades).map(&mut drawn).collect()
}

/// Out of a thousand seeds, those with upgrades that are rehearsed, made ahead, undone and renewed.
const REHEARSALS_PER_MILLE: u64 = 250;

/// Operators who go forward and back, each as if alone, and what is kept for that bounded as tightly as can be.
fn draw_rehearsals(random: &mut Random, fixed: &Fixed, shape: &mut Shape) -> Vec<(u64, Action)> {
    if fixed.calm || fixed.flips || !random.per_mille(REHEARSALS_PER_MILLE) {
        return Vec::new();
    }
    shape.rehearses = true;
    shape.limits.upgrade_keep_bytes = random.magnitude(1 << 10, 64 << 20);
    shape.limits.upgrade_keep_ms = *random.pick(&[0, 1_000, 5_000, 3_600_000, 3_600_000]);
    if random.per_mille(300) {
        shape.limits.activation_fuel = random.magnitude(1_000, 100_000_000);
    }
    let (upgrades, others) = (random.between(3, 10), random.between(3, 12));
    let mut drawn = |at: u64| {
        let action = match (at < upgrades, random.below(6)) {
            (true, _) => {
                let (version, choice) = (random.below(6), random.number());
                Action::UpgradeRehearsed { version, choice }
            }
            (false, 0) => Action::SettleUpgrade,
            (false, 1) => Action::Renew { ahead: true },
            (false, 2) => Action::Renew { ahead: false },
            (false, _) => Action::Rewind,
        };
        (random.below(shape.faults_us), action)
    };
    (0..upgrades + others).map(&mut drawn).collect()
}

/// Where upgrades are rehearsed, modules run in the shadow of nodes as well; a program that stops for another engine
/// or level has no time for that.
fn draw_shadows(random: &mut Random, shape: &Shape) -> Vec<(u64, Action)> {
    if !shape.rehearses || shape.levels {
        return Vec::new();
    }
    let mut drawn = || {
        let (node, version) = (Pick(random.number()), random.below(6));
        let for_us = random.magnitude(10_000, 5 * SECOND);
        (random.below(shape.faults_us), Action::Shadow { node, version, for_us })
    };
    (0..6).map(|_| drawn()).collect()
}

/// Out of a thousand seeds, those in which somebody starts a node that runs.
const SECOND_STARTS_PER_MILLE: u64 = 200;

fn draw_second_starts(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(SECOND_STARTS_PER_MILLE) {
        return Vec::new();
    }
    let count = random.between(1, 6);
    let mut drawn =
        || (random.below(shape.faults_us), Action::StartTwice { node: Pick(random.number()) });
    (0..count).map(|_| drawn()).collect()
}

/// Where upgrades are undone, some look before what that would change, on several nodes.
fn draw_trials(random: &mut Random, shape: &Shape) -> Vec<(u64, Action)> {
    if !shape.rehearses {
        return Vec::new();
    }
    let count = random.between(4, 16);
    let mut drawn = || {
        let (nodes, undoes) = (random.number(), random.per_mille(300));
        (random.below(shape.faults_us), Action::TryRewind { nodes, undoes })
    };
    (0..count).map(|_| drawn()).collect()
}

/// Clocks that suddenly say another year, in some runs.
fn draw_leaps(random: &mut Random, fixed: &Fixed, shape: &Shape) -> Vec<(u64, Action)> {
    const DAY_MS: u64 = 86_400_000;
    let count = if fixed.calm { 0 } else { *random.pick(&[0, 0, 0, 1, 1, 3]) };
    let mut leap = || {
        let by_ms = random.magnitude(DAY_MS, 20 * 365 * DAY_MS) as i64;
        let by_ms = if random.per_mille(800) { by_ms } else { -by_ms };
        (random.below(shape.faults_us), Action::ClockJump { node: Pick(random.number()), by_ms })
    };
    (0..count).map(|_| leap()).collect()
}

fn draw_shape(random: &mut Random, fixed: &Fixed) -> Shape {
    let guest = *random.pick(&["registers", "registers", "registers", "kv", "native", "native"]);
    let voters = *random.pick(&[1, 3, 3, 3, 3, 5, 5, 7]);
    let heartbeat_ms = *random.pick(&[50, 100, 100, 200, 400]);
    let snapshot = SnapshotConfig {
        threshold: random.magnitude(4, 400),
        growth_percent: *random.pick(&[0, 10, 100]),
        keep: random.between(1, 3) as usize,
        // What the invariants about the log's length go by are commands and bytes.
        pause_ms: 0,
        ..SnapshotConfig::default()
    };
    let node = NodeConfig {
        heartbeat_ms,
        election_ms: heartbeat_ms * random.between(4, 12),
        snapshot,
        digest: DigestConfig::OFF,
        level_settle_ms: 0,
        ..NodeConfig::default()
    };
    let max_append_bytes = random.magnitude(64, 1 << 20);
    let consensus = ConsensusConfig {
        max_append_bytes,
        max_inflight_messages: random.magnitude(1, 256) as usize,
        max_uncommitted_bytes: random.magnitude(max_append_bytes.max(16 << 10), 64 << 20),
        max_unapplied_bytes: random.magnitude(512, 64 << 20),
        entry_cache_bytes: random.magnitude(64, 1 << 20),
        trailing_logs: random.magnitude(1, 300),
        trailing_bytes: random.magnitude(64, 1 << 20),
        promotion_lag: random.magnitude(2, 1000),
        ..ConsensusConfig::default()
    };
    let storage = StorageConfig {
        log_file_bytes: random.magnitude(4 << 10, 256 << 10),
        compress_above_bytes: random.magnitude(16, 8 << 10),
        recent_entries_bytes: random.magnitude(64, 1 << 20),
        ..StorageConfig::default()
    };
    let limits = Limits { apply_fuel: 2_000_000, memory_max_bytes: 4 << 20, ..Limits::default() };
    let guest = fixed.guest.unwrap_or(guest);
    // A large module in tiny parts would be all that a slow cluster ever does.
    let smallest_chunk = if guest == "kv" { 8 << 10 } else { 64 };
    Shape {
        guest,
        voters: fixed.voters.unwrap_or(voters),
        learners: *random.pick(&[0, 0, 0, 1, 2]),
        node,
        consensus,
        storage,
        limits,
        clients: random.between(1, 6) as usize,
        operations: random.magnitude(10, 200),
        keys: random.between(1, 6) as u8,
        think_us: random.magnitude(1_000, 500_000),
        reads_per_mille: random.between(100, 600),
        odd_per_mille: *random.pick(&[0, 50, 200]),
        sessionless_per_mille: *random.pick(&[0, 0, 200, 1000]),
        batches_per_mille: 0,
        batch_max: 2,
        ordered_per_mille: 0,
        faults_us: random.between(5, 40) * SECOND,
        digest_every: random.magnitude(8, 128),
        chunk_bytes: random.magnitude(64, 4096).max(smallest_chunk) as usize,
        fsync_us: random.magnitude(100, 20_000),
        step_us: random.magnitude(10, 2_000),
        network: Quality {
            loss_per_mille: *random.pick(&[0, 0, 5]),
            duplicate_per_mille: *random.pick(&[0, 0, 5]),
            delay_min_us: 100,
            delay_max_us: random.magnitude(300, 20_000),
            reorders: false,
        },
        link: Bounds { message_bytes: 64 << 20, queue_bytes: 64 << 20, queue_messages: 16_384 },
        levels: false,
        signs: false,
        rights: false,
        rehearses: false,
    }
}

/// Kinds of actions that [`draw_action`] knows.
const KINDS: u64 = 25;

fn draw_action(random: &mut Random, weights: &[u64], shape: &Shape) -> Action {
    let total: u64 = weights.iter().sum::<u64>().max(1);
    let mut at = random.below(total);
    let kind = weights.iter().position(|weight| match at.checked_sub(*weight) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    });
    let election_us = shape.node.election_ms * 1000;
    let mut node = || Pick(random.number());
    let (first, second) = (node(), node());
    let for_us = random.magnitude(election_us / 4, election_us * 12);
    let down_us = random.magnitude(1_000, election_us * 10);
    let power_loss = random.per_mille(600);
    match kind.unwrap_or(0) {
        0 => Action::Partition { sides: random.number(), for_us },
        1 => {
            let (inbound, outbound) = *random.pick(&[(true, true), (true, false), (false, true)]);
            Action::Isolate { node: first, inbound, outbound, for_us }
        }
        2 => Action::CutLink { from: first, to: second, both_ways: random.per_mille(500), for_us },
        3 => {
            let delay_us = random.magnitude(election_us / 10, election_us * 3);
            Action::SlowLink { from: first, to: second, delay_us, for_us }
        }
        4 => {
            let quality = Quality {
                loss_per_mille: random.magnitude(1, 400),
                duplicate_per_mille: random.magnitude(1, 300),
                delay_min_us: 50,
                delay_max_us: random.magnitude(1_000, election_us),
                reorders: random.per_mille(500),
            };
            Action::Weather { quality, for_us }
        }
        5 => Action::ResetConnections { node: first },
        6..=9 => {
            let operations = random.between(0, 12);
            let when = match random.below(9) {
                0 | 1 => Boundary::InWrite(operations),
                2 | 3 => Boundary::AfterWrite,
                4 => Boundary::InSave(operations),
                5 => Boundary::AfterApply,
                6 => Boundary::InPurge(operations),
                _ => Boundary::Now,
            };
            Action::Kill { node: first, power_loss, when, down_us }
        }
        10 => Action::KillAll { power_loss, down_us },
        11 => Action::Pause { node: first, for_us },
        12 => {
            let by_ms = random.magnitude(10, 100_000) as i64;
            Action::ClockJump { node: first, by_ms: if power_loss { by_ms } else { -by_ms } }
        }
        13 => Action::ClockDrift { node: first, ppm: random.between(0, 400_000) as i64 - 200_000 },
        14 => Action::StallDisk { node: first, for_us },
        15 => {
            Action::SlowDisk { node: first, fsync_us: random.magnitude(1_000, election_us), for_us }
        }
        16 => Action::FailSync { node: first, down_us },
        17 => Action::FillDisk { node: first, spare_bytes: random.below(20_000), for_us },
        18 => match random.below(3) {
            0 => Action::Rot { node: first },
            1 => Action::MisdirectWrite { node: first },
            _ => Action::LoseWrite { node: first },
        },
        19 => Action::Replace { node: first },
        20 => Action::Join { promote: random.per_mille(700) },
        21 => Action::Remove { node: first },
        22 => Action::Transfer { to: first },
        23 => Action::Snapshot { node: first },
        _ => match random.below(4) {
            0 => Action::SetLimits { choice: random.number() },
            _ => Action::Upgrade { version: random.below(6) },
        },
    }
}

impl Shape {
    /// Longest entry, with some room.
    pub fn largest_entry_bytes(&self) -> u64 {
        self.chunk_bytes as u64 + SMALL_ENTRY_BYTES
    }

    /// Whether nodes compare digests, and bits flip.
    pub fn compares_digests(&self) -> bool {
        self.node.digest != DigestConfig::OFF
    }
}
