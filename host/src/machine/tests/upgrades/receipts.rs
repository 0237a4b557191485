//! What a rehearsal found, and activations that rely on it.

use super::*;

#[test]
fn an_activation_that_relies_on_a_receipt_is_refused_when_that_fits_no_more() {
    let modules = ["test v=2", "test v=3"];
    let begin = || {
        let mut machine = begun("test");
        modules.iter().for_each(|module| upload(&mut machine, module));
        let receipt = receipt(&machine, modules[0]);
        let index = record(&mut machine, receipt);
        (machine, index)
    };
    let activate = |machine: &mut Machine, module, receipt| {
        let body = taking_over(machine, module, TakeOver::default(), receipt);
        apply(machine, 9, body).reply
    };
    let stale = |reply| match reply {
        Reply::ReceiptStale(reason) => reason,
        other => panic!("{other:?}"),
    };
    let (mut machine, index) = begin();
    assert_eq!(machine.info().receipts[0].index, Index(index));
    assert!(stale(activate(&mut machine, modules[1], index)).contains("is of module"));
    assert!(stale(activate(&mut machine, modules[0], index + 1)).contains("no receipt"));
    // What is no rule of commands changes nothing.
    apply(
        &mut machine,
        0,
        set_limits(&[Limit::ActivationFuel(1_000_000), Limit::UpgradeKeepMs(5)]),
    );
    let fuel = machine.info().limits.apply_fuel;
    apply(&mut machine, 0, set_limits(&[Limit::ApplyFuel(fuel)]));
    assert!(is_activated(&activate(&mut machine, modules[0], index)));
    assert!(matches!(activate(&mut machine, modules[0], index), Reply::AlreadyActive { .. }));

    let (mut machine, index) = begin();
    apply(&mut machine, 0, set_limits(&[Limit::ApplyFuel(77_777)]));
    let before = digest(&mut machine);
    let reason = stale(activate(&mut machine, modules[0], index));
    assert!(reason.contains("limits or the engine profile changed"), "{reason}");
    assert_ne!(digest(&mut machine), before, "it was answered");
    assert_eq!(machine.info().history.len(), 1);
    let newer = receipt(&machine, modules[0]);
    let newer = record(&mut machine, newer);
    assert!(is_activated(&activate(&mut machine, modules[0], newer)));

    // Another upgrade, and one back, came between: the same module runs as then, and not since then.
    let (mut machine, index) = begin();
    assert!(is_activated(&activate(&mut machine, modules[1], 0)));
    assert!(stale(activate(&mut machine, modules[0], index)).contains("not what is active"));
    let back = rewind(&machine);
    assert!(is_activated(&apply(&mut machine, 0, back).reply));
    assert!(stale(activate(&mut machine, modules[0], index)).contains("not what is active"));
}

#[test]
fn a_rehearsal_with_differences_that_nothing_allows_is_no_ground_for_an_activation() {
    let mut machine = begun("test");
    upload(&mut machine, TWIST);
    let found = stored::RecordReceipt { refused: 2, allowed: 1, ..receipt(&machine, TWIST) };
    let index = record(&mut machine, found.clone());
    let body = taking_over(&machine, TWIST, TakeOver::default(), index);
    let reason = refused(apply(&mut machine, 0, body).reply);
    assert!(reason.contains("found 2 differences"), "{reason}");
    let allowances = vec!["reply:transfer".to_owned()];
    let index = record(&mut machine, stored::RecordReceipt { refused: 0, allowances, ..found });
    // What differs as intended is answered so from the activation on, and not from a fork.
    let body = fork(&machine, TWIST);
    apply(&mut machine, 0, body);
    let at = Some(machine.applied_index());
    let body = taking_over(&machine, TWIST, TakeOver::Snapshot { fork: at }, index);
    let reason = refused(apply(&mut machine, 0, body).reply);
    assert!(reason.contains("nothing differed"), "{reason}");
    let body = taking_over(&machine, TWIST, TakeOver::default(), index);
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
}

#[test]
fn a_receipt_is_good_for_the_way_in_which_the_module_took_over_and_no_other() {
    let mut machine = begun("test");
    upload(&mut machine, TWIST);
    let of_image = stored::RecordReceipt { from_image: true, ..receipt(&machine, TWIST) };
    let classic = receipt(&machine, TWIST);
    let state = ModuleHash([9; 32]);
    let of_state =
        stored::RecordReceipt { portable_state: state.0.to_vec().into(), ..classic.clone() };
    let indexes = [classic, of_image, of_state].map(|receipt| record(&mut machine, receipt));
    let ways = [TakeOver::default(), TakeOver::Image, TakeOver::PortableState(state)];
    for (wrong, way) in [(1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2)] {
        let body = taking_over(&machine, TWIST, ways[way], indexes[wrong]);
        let reply = apply(&mut machine, 0, body).reply;
        assert!(matches!(&reply, Reply::ReceiptStale(words) if words.contains("another way")));
    }
    let other = TakeOver::PortableState(ModuleHash([8; 32]));
    let body = taking_over(&machine, TWIST, other, indexes[2]);
    assert!(refused(apply(&mut machine, 0, body).reply).contains("another way"));
    // They survive a snapshot as they are.
    let kept = machine.info().receipts;
    assert_eq!(restore(&snapshot(&mut machine)).expect("whole").info().receipts, kept);
    let body = taking_over(&machine, TWIST, ways[0], indexes[0]);
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
}

#[test]
fn receipts_are_of_most_voters_of_the_past_and_the_latest_are_kept() {
    let mut machine = begun("test");
    let good = receipt(&machine, TWIST);
    let ahead = machine.applied_index().0 + 1;
    let wrong = [
        (stored::RecordReceipt { voters: vec![2, 3], ..good.clone() }, "most voters"),
        (stored::RecordReceipt { voters: vec![1, 1], ..good.clone() }, "out of order"),
        (stored::RecordReceipt { base: 5, until: 4, ..good.clone() }, "entries after 5 up to 4"),
        (stored::RecordReceipt { until: ahead + 20, ..good.clone() }, "recorded at"),
        (stored::RecordReceipt { report_hash: vec![1].into(), ..good.clone() }, "32 bytes"),
        (stored::RecordReceipt { module_hash: vec![1].into(), ..good.clone() }, "32 bytes"),
        (stored::RecordReceipt { replaces: None, ..good.clone() }, "compared with"),
        (stored::RecordReceipt { portable_state: vec![1].into(), ..good.clone() }, "32 bytes"),
        (
            stored::RecordReceipt {
                portable_state: vec![1; 32].into(),
                from_image: true,
                ..good.clone()
            },
            "two ways",
        ),
        (stored::RecordReceipt { allowances: vec!["x".repeat(129)], ..good.clone() }, "at most"),
        (stored::RecordReceipt { allowances: vec![String::new(); 65], ..good.clone() }, "at most"),
    ];
    for (receipt, words) in wrong {
        let reason = refused(apply(&mut machine, 0, Body::RecordReceipt(receipt)).reply);
        assert!(reason.contains(words), "{reason}");
    }
    let other = stored::RecordReceipt {
        replaces: Some(
            Incumbent { hash: ModuleHash::of(b"test"), activated_at: Index(1) }.to_log(),
        ),
        ..good.clone()
    };
    let reply = apply(&mut machine, 0, Body::RecordReceipt(other)).reply;
    assert!(matches!(reply, Reply::ActivationSuperseded { .. }), "{reply:?}");
    let mut last = 0;
    for _ in 0..RECEIPTS_MAX + 3 {
        last = record(&mut machine, good.clone());
    }
    let receipts = machine.info().receipts;
    assert_eq!(receipts.len(), RECEIPTS_MAX);
    assert_eq!(receipts.last().map(|it| it.index.0), Some(last));
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(restored.info(), machine.info());
    assert_eq!(snapshot(&mut restored), bytes);
}
