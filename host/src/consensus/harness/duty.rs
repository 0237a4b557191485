//! Replicas that an operator has taken off duty.

use super::*;

/// `election_ticks` of the harness.
const ELECTION: u64 = 10;

#[test]
fn who_is_off_duty_votes_and_does_not_lead_while_somebody_else_can() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        let leader = cluster.elect();
        cluster.run(20);
        let others: Vec<NodeId> = cluster.alive().into_iter().filter(|id| *id != leader).collect();
        let [off, on] = others[..] else { panic!("three voters") };
        cluster.input(off, Input::OffDuty(true));
        cluster.input(leader, Input::TransferLeader(Some(off)));
        cluster.run(2 * ELECTION);
        assert_ne!(cluster.leader(), Some(off), "seed {seed}: it takes no leadership");
        let leader = cluster.elect();
        cluster.crash(leader);
        if leader != on {
            cluster.run_until("the other leads, with its vote", |c| c.leader() == Some(on));
        }
        cluster.settle();
    }
}

#[test]
fn when_all_are_off_duty_one_leads_all_the_same() {
    let mut cluster = Cluster::new(1, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    for id in cluster.alive() {
        cluster.input(id, Input::OffDuty(true));
    }
    cluster.run(20);
    assert_eq!(cluster.leader(), Some(leader), "nobody else would");
    cluster.crash(leader);
    cluster.run(4 * ELECTION);
    assert_eq!(cluster.leader(), None, "an operator may be about to put one back on duty");
    cluster.elect();
    cluster.settle();
}

#[test]
fn the_only_voter_leads_on_although_it_is_off_duty() {
    let mut cluster = Cluster::new(2, &[1]);
    let me = cluster.elect();
    cluster.input(me, Input::OffDuty(true));
    cluster.propose_to(me, 3);
    cluster.run(10 * ELECTION);
    assert_eq!(cluster.leader(), Some(me));
    cluster.settle();
}

#[test]
fn back_on_duty_it_may_lead_again() {
    let mut cluster = Cluster::new(3, &[1, 2]);
    let leader = cluster.elect();
    cluster.run(20);
    let other = cluster.alive().into_iter().find(|id| *id != leader).expect("two");
    cluster.input(other, Input::OffDuty(true));
    cluster.input(other, Input::OffDuty(false));
    cluster.input(leader, Input::TransferLeader(Some(other)));
    cluster.run_until("the other leads", |cluster| cluster.leader() == Some(other));
    cluster.settle();
}
