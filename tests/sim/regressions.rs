//! Seeds that once found something. They must stay quiet; so each is a test that tells a story.
//!
//! A seed means what the plans of its day made of it. Whoever changes how plans are drawn makes
//! these runs others: still worth running, but no longer those that failed. So every bug also
//! has its test where it was, without the simulator.

use super::plan::Fixed;
use super::shrink::Cut;

/// A run that once failed.
#[derive(Clone, Debug)]
pub struct Regression {
    /// The seed.
    pub seed: u64,
    /// The guest, if it was fixed.
    pub guest: Option<&'static str>,
    /// Numbers of the actions that were left, if it was shrunk.
    pub only: Option<&'static [usize]>,
    /// Voters, if they were fixed or cut.
    pub voters: Option<usize>,
    /// What went wrong, and why.
    pub story: &'static str,
}

/// All of them.
pub const REGRESSIONS: &[Regression] = &[
    Regression {
        seed: 535,
        guest: None,
        only: None,
        voters: None,
        story: "A follower lost power when a snapshot that it had received was there, and its log did \
                not begin after it yet. What it held could not be inspected for a recovery, although \
                a start mends that.",
    },
    Regression {
        seed: 8_381,
        guest: None,
        only: None,
        voters: None,
        story: "Four parts of a module, which is how many were proposed at once, had more bytes than \
                the leader may have uncommitted: the fourth was refused as busy, and each attempt \
                began anew and failed there. The cluster never got its module.",
    },
    Regression {
        seed: 17_303_914,
        guest: None,
        only: None,
        voters: None,
        story: "An operator's attempt that was answered left its time-out behind, which began another \
                one, until no attempt was ever heard: a membership change every 25 ms, and a log that \
                grew. The simulator's own.",
    },
    Regression {
        seed: 17_531_095,
        guest: Some("registers"),
        only: None,
        voters: None,
        story: "A voter whose state was from before members had joined rehearsed from there on. It passed \
                over their joining, so a receipt that they had made up the majority of was none there, the \
                activation that relied on it did nothing, and it compared with the module before.",
    },
    Regression {
        seed: 100_495,
        guest: None,
        only: None,
        voters: None,
        story: "An only voter with learners, a stuck disk and power losses: it led term 3 twice, \
                since what it said in that term left before the term was durable, and a learner \
                kept an entry of the first time.",
    },
    Regression {
        seed: 3_002_132,
        guest: None,
        only: Some(&[8, 10, 14]),
        voters: None,
        story: "A disk was full when a new voter needed a snapshot. There was space again soon, \
                but nothing was applied any more, so the leader took no other snapshot; the new \
                voter, and with it the cluster, waited for ever.",
    },
    Regression {
        seed: 3_002_543,
        guest: None,
        only: None,
        voters: None,
        story: "A broken voter of four was removed and a moment later all nodes lost power: only \
                the leader had known that the removal was committed, and had told so. When \
                another disk broke, the two that were left of three asked for three votes of \
                four.",
    },
    Regression {
        seed: 4_000_258,
        guest: None,
        only: Some(&[3, 6, 7, 9]),
        voters: None,
        story: "A leader read entries for a follower that lagged, and the log was corrupt there: \
                raft-rs panicked, where the node should have stopped.",
    },
    Regression {
        seed: 15_002_220,
        guest: None,
        only: None,
        voters: None,
        story: "The clocks of two of four voters had jumped 90 s and counted for nothing, until a \
                voter whose clock was right was removed: then they were two of three, and the \
                log's clock followed them. clock_within_majority had not looked at the clocks \
                since the voters had changed. The simulator's own.",
    },
    Regression {
        seed: 15_015_960,
        guest: None,
        only: None,
        voters: None,
        story: "A wiped voter came back through a joint configuration, and all nodes lost power \
                when only the leader knew that it was left. The plan took the outgoing voters for \
                forgotten and wiped a third of six. The simulator's own.",
    },
];

impl Regression {
    /// For drawing its plan.
    pub fn fixed(&self) -> Fixed {
        Fixed { guest: self.guest, voters: self.voters, calm: false, flips: false }
    }

    /// What of its plan is left.
    pub fn cut(&self) -> Cut {
        let only = self.only.map(|numbers| numbers.iter().copied().collect());
        Cut { only, ..Cut::default() }
    }
}
