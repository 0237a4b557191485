//! Queries that change the state. On a node they run on a fork, so what they change is lost; here
//! they run where it stays, and everything that can be asked is asked before and after.
//!
//! Memory is not compared: an allocator writes to it, and a cache may.

use super::hints;
use super::lab::{Done, Stop, Subject};
use super::report::{Section, Weight};
use super::words::{ended, quoted};

/// Bytes of snapshots that are compared.
const COMPARED_MAX_BYTES: usize = 64 << 20;
const EXAMPLES_MAX: usize = 10;

/// Puts queries to a subject, one after the other; what they change stays. Nobody may rely on the
/// subject's state afterwards.
pub(super) fn run(
    subject: &mut Subject<'_>,
    queries: &[Vec<u8>],
    section: &mut Section,
) -> Result<(), Stop> {
    let answers_at_first = answers(subject, queries)?;
    let mut before = subject.snapshot()?;
    let mut does_snapshot_tell = None;
    let (mut kept, mut compared_bytes, mut changes) = (0, 0, Vec::new());
    for query in queries {
        if compared_bytes > COMPARED_MAX_BYTES {
            break;
        }
        let answer = subject.query_and_keep(query)?;
        if answer.trapped() {
            continue;
        }
        kept += 1;
        let (again, after) = (subject.query(query)?, subject.snapshot()?);
        compared_bytes += after.ok().map_or(0, <[u8]>::len);
        let change = match difference(&before, &after) {
            Some(_) if does_snapshot_tell == Some(false) => None,
            Some(difference) => {
                let tells = *does_snapshot_tell.get_or_insert(is_canonical(subject, &before)?);
                tells.then(|| format!("the snapshot {difference}"))
            }
            None => None,
        };
        let change = change
            .or_else(|| (answer.outcome() != again.outcome()).then(|| otherwise(&answer, &again)));
        changes.extend(change.map(|change| format!("{}: {change}", quoted(query))));
        before = after;
    }
    if changes.is_empty() {
        // A query may also change what another one tells.
        let answers_at_last = answers(subject, queries)?;
        let pairs = queries.iter().zip(answers_at_first.iter().zip(&answers_at_last));
        let changed = pairs.filter(|(_, (first, last))| first.outcome() != last.outcome());
        changes.extend(changed.map(|(query, (first, last))| {
            format!("{}, after the others: {}", quoted(query), otherwise(first, last))
        }));
    }
    match changes.first() {
        None => section.good(format!(
            "{kept} were let write, which a node does not: the snapshot and their answers stayed \
             the same"
        )),
        Some(first) => {
            let text = format!(
                "a query changes the state; the host undoes that, so the change is lost: {first}; {}",
                hints::QUERY
            );
            changes.truncate(EXAMPLES_MAX);
            section.add(Weight::Warning, text, changes);
        }
    }
    Ok(())
}

fn answers(subject: &mut Subject<'_>, queries: &[Vec<u8>]) -> Result<Vec<Done>, Stop> {
    queries.iter().map(|query| Ok(subject.query(query)?)).collect()
}

/// In what a snapshot differs from an earlier one.
fn difference(before: &Done, after: &Done) -> Option<String> {
    if before.outcome() == after.outcome() {
        return None;
    }
    let (Some(old), Some(new)) = (before.ok(), after.ok()) else {
        return Some(format!("then ends: {}", ended(after)));
    };
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    Some(match (old.len(), new.len()) {
        (old, new) if old != new => format!("then has {new} bytes instead of {old}"),
        _ => format!("then has other bytes from byte {same} on"),
    })
}

/// Whether a state has one snapshot only. Where a copy has another one, such as with the order of
/// a hash map in it, a difference does not mean that the state changed.
fn is_canonical(subject: &Subject<'_>, snapshot: &Done) -> Result<bool, Stop> {
    let Some(bytes) = snapshot.ok() else { return Ok(true) };
    let (restored, mut copy) = subject.copy_from(bytes)?;
    Ok(restored.ok().is_some() && copy.snapshot()?.outcome() == snapshot.outcome())
}

fn otherwise(first: &Done, then: &Done) -> String {
    format!("the same query is answered {} instead of {}", ended(then), ended(first))
}
