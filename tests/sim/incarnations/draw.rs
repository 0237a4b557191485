//! What a plan holds of backups and of what is made of them.

use crate::sim::plan::{Action, Fixed, Pick, Shape};
use crate::sim::random::Random;

/// Out of a thousand seeds, those in which clusters are made of backups and of survivors.
const BACKUPS_PER_MILLE: u64 = 150;

/// Backups first, then what is made of them, beside nodes of this cluster that come back.
pub(in crate::sim) fn draw(
    random: &mut Random,
    fixed: &Fixed,
    shape: &Shape,
) -> Vec<(u64, Action)> {
    if fixed.calm || !random.per_mille(BACKUPS_PER_MILLE) {
        return Vec::new();
    }
    let half = shape.faults_us / 2;
    let mut drawn: Vec<(u64, Action)> = (0..random.between(2, 6))
        .map(|_| (random.below(shape.faults_us), Action::Backup { node: Pick(random.number()) }))
        .collect();
    for _ in 0..random.between(1, 2) {
        let (choice, return_of) = (random.number(), random.number());
        let action = Action::Restore { choice, exported: random.per_mille(300), return_of };
        drawn.push((half + random.below(half), action));
    }
    if random.per_mille(500) {
        let (nodes, return_of) = (random.number(), random.number());
        let action = Action::Recover { nodes, power_loss: random.per_mille(500), return_of };
        drawn.push((random.below(shape.faults_us), action));
    }
    drawn
}
