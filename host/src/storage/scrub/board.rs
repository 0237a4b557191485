//! What a node tells of its scrubs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Damage;

/// So much of what was found is remembered: what is not mended first, then the newest.
const REMEMBERED: usize = 64;

/// Something that was found, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDamage {
    /// What and where.
    pub damage: Damage,
    /// When, in milliseconds since the Unix epoch.
    pub found_ms: u64,
    /// Whether a restart would not notice it any more.
    pub is_mended: bool,
    /// What was done, or is in the way, as a sentence.
    pub words: String,
}

/// How it is with a node's scrubs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// One is under way.
    pub is_running: bool,
    /// When the last one was through that read everything, in milliseconds since the Unix epoch.
    pub last_ms: Option<u64>,
    /// Bytes read since the start.
    pub read_bytes: u64,
    /// Damaged files found since the start.
    pub found: u64,
    /// Of them, those that were mended.
    pub mended: u64,
    /// What was found, oldest first; not all of it when it is much.
    pub damages: Vec<KnownDamage>,
    /// Why the last one did not get to its end, if it failed.
    pub failure: Option<String>,
}

/// Written by who scrubs, read by who tells of it.
#[derive(Debug)]
pub struct ScrubBoard {
    every_ms: u64,
    report: Mutex<ScrubReport>,
}

impl ScrubBoard {
    /// Nothing is known yet; `every_ms` is from one scrub to the next.
    pub fn new(every_ms: u64) -> ScrubBoard {
        ScrubBoard { every_ms, report: Mutex::default() }
    }

    /// From one scrub to the next, in milliseconds.
    pub fn every_ms(&self) -> u64 {
        self.every_ms
    }

    /// How it is now.
    pub fn report(&self) -> ScrubReport {
        self.lock().clone()
    }

    /// Something changed.
    pub fn update(&self, change: impl FnOnce(&mut ScrubReport)) {
        change(&mut self.lock());
    }

    /// Notes what was found. Says whether that is news: what is known and not mended is not.
    pub fn found(&self, damage: Damage, now_ms: u64) -> bool {
        let mut report = self.lock();
        let known = report.damages.iter_mut().find(|known| {
            !known.is_mended && known.damage.file == damage.file && known.damage.part == damage.part
        });
        if let Some(known) = known {
            known.damage = damage;
            return false;
        }
        report.found += 1;
        let words = "nothing has been done about it yet".to_owned();
        report.damages.push(KnownDamage { damage, found_ms: now_ms, is_mended: false, words });
        if report.damages.len() > REMEMBERED {
            let surplus = report.damages.iter().position(|known| known.is_mended).unwrap_or(0);
            report.damages.remove(surplus);
        }
        true
    }

    /// What is not mended.
    pub fn open(&self) -> Vec<Damage> {
        let report = self.lock();
        let open = report.damages.iter().filter(|known| !known.is_mended);
        open.map(|known| known.damage.clone()).collect()
    }

    /// Notes what became of something, or what is in the way.
    pub fn became(&self, damage: &Damage, is_mended: bool, words: impl Into<String>) {
        let mut report = self.lock();
        let known = report.damages.iter_mut().find(|known| {
            !known.is_mended && known.damage.file == damage.file && known.damage.part == damage.part
        });
        let Some(known) = known else { return };
        (known.is_mended, known.words) = (is_mended, words.into());
        report.mended += u64::from(is_mended);
    }

    /// Why somebody should look now: something is damaged, and is not mended.
    pub fn alarm(&self) -> Option<String> {
        let report = self.lock();
        let mut open = report.damages.iter().filter(|known| !known.is_mended);
        let KnownDamage { damage: Damage { file, offset, reason, .. }, words, .. } = open.next()?;
        let more = match open.count() {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        let file = file.display();
        Some(format!("{file} is damaged at offset {offset}: {reason}; {words}{more}"))
    }

    fn lock(&self) -> MutexGuard<'_, ScrubReport> {
        // Nothing that can panic half way runs under this lock.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::DamagedPart;
    use super::*;

    fn damage(file: &str) -> Damage {
        let reason = "the checksum does not fit".to_owned();
        Damage { part: DamagedPart::Log, file: file.into(), offset: 7, reason }
    }

    #[test]
    fn what_is_not_mended_is_an_alarm_and_counts_once_however_often_it_is_found() {
        let board = ScrubBoard::new(1);
        assert_eq!(board.alarm(), None);
        assert!(board.found(damage("a"), 1));
        assert!(!board.found(damage("a"), 2));
        assert!(board.found(damage("b"), 3));
        let alarm = board.alarm().expect("two of them");
        for words in ["a is damaged at offset 7: the checksum", "nothing has been", "(and 1 more)"]
        {
            assert!(alarm.contains(words), "{alarm}");
        }
        board.became(&damage("a"), false, "no state");
        assert!(board.alarm().expect("still").contains("no state"));
        board.became(&damage("a"), true, "replaced");
        board.became(&damage("a"), true, "replaced");
        assert_eq!(board.open(), [damage("b")]);
        board.became(&damage("b"), true, "replaced");
        assert_eq!(board.alarm(), None);
        assert!(board.found(damage("a"), 4), "the new file rots as well");
        let report = board.report();
        assert_eq!((report.found, report.mended), (3, 2));
    }

    #[test]
    fn what_is_mended_is_forgotten_first() {
        let board = ScrubBoard::new(1);
        board.found(damage("first"), 0);
        board.found(damage("second"), 0);
        board.became(&damage("second"), true, "replaced");
        for n in 2..=REMEMBERED {
            board.found(damage(&n.to_string()), 0);
        }
        let report = board.report();
        assert_eq!(report.damages.len(), REMEMBERED);
        assert_eq!(report.damages[0].damage, damage("first"));
        assert!(report.damages.iter().all(|known| !known.is_mended));
        assert_eq!((report.found, report.mended), (REMEMBERED as u64 + 1, 1));
    }
}
