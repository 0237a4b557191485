//! Instances that are made ahead of an activation.

use super::*;

/// The activation with an instance that was made ahead or not, by a node that restarted or not.
#[test]
fn it_makes_no_difference_whether_and_how_far_an_instance_was_made_ahead() {
    let module = "test v=2";
    let begin = || {
        let mut machine = begun("test");
        upload(&mut machine, module);
        let index = {
            let receipt = receipt(&machine, module);
            record(&mut machine, receipt)
        };
        let body = fork(&machine, module);
        let reply = apply(&mut machine, 10, body).reply;
        let fork = machine.applied_index();
        assert_eq!(reply, Reply::Forked { index: fork, module: ModuleHash::of(module.as_bytes()) });
        (machine, index, fork)
    };
    let end = |machine: &mut Machine, receipt, at| {
        let body = taking_over(machine, module, TakeOver::Snapshot { fork: Some(at) }, receipt);
        let applied = apply(machine, 30, body);
        assert!(is_activated(&applied.reply), "{applied:?}");
        apply(machine, 31, command(b"after"));
        (applied, digest(machine), snapshot(machine))
    };
    let (mut plain, index, at) = begin();
    traffic().into_iter().for_each(|body| drop(apply_any(&mut plain, 20, body)));
    let mut classic = restore(&snapshot(&mut plain)).unwrap();
    let expected = end(&mut plain, index, at);
    // The state is what the classic way comes to, for a module that does the same with commands.
    let body = taking_over(&classic, module, TakeOver::default(), index);
    apply(&mut classic, 30, body);
    apply(&mut classic, 31, command(b"after"));
    assert_eq!(guest(&mut classic), guest(&mut plain));
    assert_eq!(plain.info().fork, None);

    let steps = traffic().len();
    for (begins, restarts, takes) in (0..=steps)
        .flat_map(|at| [(at, steps + 1, 0), (0, at, 1), (at, steps + 1, 3), (0, steps + 1, at)])
    {
        let (mut machine, index, at) = begin();
        let mut job = None;
        for (step, body) in traffic().into_iter().enumerate() {
            if step == begins {
                job = machine.ahead_job();
                assert_eq!(job.as_ref().map(AheadJob::fork), Some(at));
            }
            if step == restarts {
                machine = restore(&snapshot(&mut machine)).unwrap();
                job = None;
            }
            if let Some(job) = &mut job {
                job.advance(takes as u64).unwrap();
            }
            apply_any(&mut machine, 20, body);
        }
        if let Some(job) = job {
            assert!(job.commands() <= machine.info().fork.unwrap().commands);
            machine.take_ahead(job);
        }
        assert_eq!(end(&mut machine, index, at), expected, "{begins} {restarts} {takes}");
    }
}

#[test]
fn an_instance_that_is_made_ahead_goes_on_another_thread_and_says_how_far_it_is() {
    let mut machine = begun("test");
    upload(&mut machine, "test v=2");
    assert!(machine.ahead_job().is_none(), "there is no fork");
    let body = fork(&machine, "test v=2");
    apply(&mut machine, 0, body);
    let mut job = machine.ahead_job().unwrap();
    apply(&mut machine, 0, command(b"a"));
    apply(&mut machine, 0, command(b"b"));
    let mut job = std::thread::spawn(move || {
        assert_eq!(job.advance(1).unwrap(), Ahead::Behind);
        assert_eq!(job.advance(9).unwrap(), Ahead::UpToDate);
        job
    })
    .join()
    .unwrap();
    assert_eq!((job.commands(), machine.info().fork.unwrap().commands), (2, 2));
    // Another fork takes the place of this one.
    let body = fork(&machine, "test v=2");
    apply(&mut machine, 0, body);
    assert_eq!(job.advance(9).unwrap(), Ahead::Gone);
    machine.take_ahead(job);
    assert!(machine.ahead.is_none());
}

#[test]
fn an_instance_that_was_handed_in_goes_on_and_another_one_takes_its_place() {
    let module = "test v=2";
    let mut states = Vec::new();
    for hands_in in 0..4 {
        let mut machine = begun("test");
        upload(&mut machine, module);
        let index = {
            let receipt = receipt(&machine, module);
            record(&mut machine, receipt)
        };
        let body = fork(&machine, module);
        apply(&mut machine, 10, body);
        let at = machine.applied_index();
        apply(&mut machine, 11, command(b"a"));
        let mut first = machine.ahead_job();
        if hands_in == 1 {
            machine.take_ahead(first.take().unwrap());
        }
        apply(&mut machine, 12, command(b"b"));
        let second = (hands_in > 1).then(|| machine.ahead_job().unwrap());
        apply(&mut machine, 13, command(b"c"));
        // The first one is not told of everything any more; the second one is handed in, or never.
        if hands_in == 2 {
            machine.take_ahead(first.take().unwrap());
        }
        if let Some(second) = second.filter(|_| hands_in == 3) {
            machine.take_ahead(second);
        }
        apply(&mut machine, 14, command(b"d"));
        let body = taking_over(&machine, module, TakeOver::Snapshot { fork: Some(at) }, index);
        assert!(is_activated(&apply(&mut machine, 15, body).reply));
        states.push(snapshot(&mut machine));
    }
    assert!(states.iter().all(|state| *state == states[0]));
}

#[test]
fn an_instance_that_answers_otherwise_after_a_fork_is_not_activated() {
    let mut machine = begun("test");
    upload(&mut machine, TWIST);
    let index = {
        let receipt = receipt(&machine, TWIST);
        record(&mut machine, receipt)
    };
    let body = fork(&machine, TWIST);
    apply(&mut machine, 0, body);
    let at = machine.applied_index();
    let mut job = machine.ahead_job().unwrap();
    apply(&mut machine, 0, command(b"trap"));
    apply(&mut machine, 0, command(b"a"));
    let position = machine.applied_index();
    let before = guest(&mut machine);
    assert!(matches!(job.advance(9).unwrap(), Ahead::Refused(_)));
    machine.take_ahead(job);
    let without = taking_over(&machine, TWIST, TakeOver::Snapshot { fork: Some(at) }, 0);
    let reason = refused(apply(&mut machine, 0, without).reply);
    assert!(reason.contains("needs a receipt"), "{reason}");
    let way = taking_over(&machine, TWIST, TakeOver::Snapshot { fork: Some(at) }, index);
    let mut other = restore(&snapshot(&mut machine)).unwrap();
    let applied = apply(&mut machine, 0, way.clone());
    assert_eq!(apply(&mut other, 0, way.clone()), applied, "nobody made one ahead there");
    assert_eq!(digest(&mut other), digest(&mut machine));
    let reason = refused(applied.reply);
    assert!(reason.contains(&format!("the command at {}", Position::first(position))), "{reason}");
    assert_eq!(guest(&mut machine), before);
    let reason = refused(apply(&mut machine, 0, way).reply);
    assert!(reason.contains("is not kept any more"), "{reason}");
    let classic = taking_over(&machine, TWIST, TakeOver::default(), index);
    assert!(is_activated(&apply(&mut machine, 0, classic).reply));
}
