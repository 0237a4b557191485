//! Snapshots: there and back, and damaged ones.

use super::hints;
use super::lab::{Done, Stop, Subject};
use super::report::{Section, Weight};
use super::words::{ended, quoted};
use crate::fsm::GuestResult;
use crate::text::human_count;

/// Damaged snapshots of each kind that are tried, and of large ones.
const DAMAGED_MAX: usize = 48;
const DAMAGED_LARGE_MAX: usize = 6;
const LARGE_BYTES: usize = 1 << 20;

/// Takes a subject with some history, copies it twice by snapshot, and goes on with `commands`
/// on all three.
pub(super) fn there_and_back(
    subject: &mut Subject<'_>,
    commands: &[Vec<u8>],
    section: &mut Section,
) -> Result<(), Stop> {
    let first = subject.snapshot()?;
    let Some(first_bytes) = first.ok() else {
        let ended = ended(&first);
        section.fail(format!(
            "`snapshot` must give a snapshot, but it ended: {ended}; {}",
            hints::SNAPSHOT
        ));
        return Ok(());
    };
    let Some((mut copy, second)) = copy_of(subject, first_bytes, "its own snapshot", section)?
    else {
        return Ok(());
    };
    let Some(second_bytes) = second.ok() else {
        let ended = ended(&second);
        section.fail(format!("after `restore`, `snapshot` ended: {ended}; {}", hints::SNAPSHOT));
        return Ok(());
    };
    if first_bytes != second_bytes {
        section.fail(format!(
            "`restore` and `snapshot` again give other bytes ({} instead of {}): something is lost, \
             or the order of a hash map or an address is in the snapshot; write every part of the \
             state, sorted",
            human_count(second_bytes.len() as u64),
            human_count(first_bytes.len() as u64)
        ));
        return Ok(());
    }
    let Some((mut back, _)) = copy_of(&copy, second_bytes, "a copy's snapshot", section)? else {
        return Ok(());
    };
    for command in commands {
        let original = subject.apply(command)?;
        for (name, other) in [("a restored copy", &mut copy), ("a copy of the copy", &mut back)] {
            let done = other.apply(command)?;
            if done.outcome() != original.outcome() {
                section.fail(format!(
                    "{name} answers {} otherwise: {}; the original: {}; {}",
                    quoted(command),
                    ended(&done),
                    ended(&original),
                    hints::COPY
                ));
                return Ok(());
            }
        }
    }
    let (original, copy) = (subject.snapshot()?, copy.snapshot()?);
    if original.outcome() != copy.outcome() {
        section.fail(format!(
            "after the same commands a restored copy has another snapshot; {}",
            hints::COPY
        ));
        return Ok(());
    }
    section.good(format!(
        "a snapshot of {} bytes restores to the same bytes, and {} further commands give the same answers",
        human_count(first_bytes.len() as u64),
        commands.len()
    ));
    Ok(())
}

/// An instance restored from a snapshot, and the snapshot that it gives; `None` after a failure,
/// which is told.
fn copy_of<'a>(
    subject: &Subject<'a>,
    snapshot: &[u8],
    what: &str,
    section: &mut Section,
) -> Result<Option<(Subject<'a>, Done)>, Stop> {
    let (restored, mut copy) = subject.copy_from(snapshot)?;
    if restored.ok().is_none() {
        let ended = ended(&restored);
        section
            .fail(format!("`restore` must take {what}, but it ended: {ended}; {}", hints::RESTORE));
        return Ok(None);
    }
    let snapshot = copy.snapshot()?;
    Ok(Some((copy, snapshot)))
}

/// Restores what is no snapshot. Taking it or rejecting it is the module's business; trapping
/// is worth a look.
pub(super) fn damaged(subject: &mut Subject<'_>, section: &mut Section) -> Result<(), Stop> {
    let done = subject.snapshot()?;
    let Some(snapshot) = done.ok() else { return Ok(()) };
    let max = if snapshot.len() > LARGE_BYTES { DAMAGED_LARGE_MAX } else { DAMAGED_MAX };
    let positions = || {
        let tried = snapshot.len().min(max);
        (0..tried).map(move |at| at * snapshot.len() / tried)
    };
    let mut cases = vec![("empty".to_owned(), Vec::new())];
    cases.extend(positions().map(|at| (format!("cut after {at} bytes"), snapshot[..at].to_vec())));
    cases.extend(positions().map(|at| {
        let mut flipped = snapshot.to_vec();
        flipped[at] ^= 1 << (at % 8);
        (format!("with a bit flipped in byte {at}"), flipped)
    }));
    for byte in [0x00, 0xff] {
        let mut longer = snapshot.to_vec();
        longer.push(byte);
        cases.push((format!("with a trailing byte {byte:#04x}"), longer));
    }
    let (mut rejected, mut taken, mut trapped) = (0, Vec::new(), Vec::new());
    let all = cases.len();
    for (name, bytes) in cases {
        let (done, _) = subject.copy_from(&bytes)?;
        match done.call.result {
            GuestResult::Ok(_) => taken.push(format!("{name}: taken")),
            GuestResult::Rejected(_) => rejected += 1,
            GuestResult::Trapped(_) => trapped.push(format!("{name}: {}", ended(&done))),
        }
    }
    let text =
        format!("of {all} damaged snapshots it rejects {rejected} and takes {}", taken.len());
    section.add(Weight::Good, text, taken);
    if !trapped.is_empty() {
        let text = format!(
            "`restore` traps on {} damaged snapshots; the old state stays, but a reason would help",
            trapped.len()
        );
        section.add(Weight::Warning, text, trapped);
    }
    Ok(())
}
