//! Which ids nodes may still get: none is given twice.

use std::ops::RangeInclusive;

use crate::types::NodeId;

/// The ids of one cluster's nodes, as a file keeps them: the next one, and a line `free FIRST-LAST` for each
/// range that was passed over because somebody asked for a higher id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    next: u64,
    free: Vec<RangeInclusive<u64>>,
}

impl Ids {
    /// Those of a cluster without nodes.
    pub(super) fn new() -> Ids {
        Ids { next: 1, free: Vec::new() }
    }

    /// What a file holds; `None`: nothing that [`Ids::text`] writes.
    pub(super) fn read(text: &str) -> Option<Ids> {
        let mut lines = text.lines();
        let next = lines.next()?.trim().parse().ok().filter(|next| *next > 0)?;
        let range = |line: &str| {
            let (first, last) = line.strip_prefix("free ")?.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.trim().parse().ok()?);
            (0 < first && first <= last && last < next).then_some(first..=last)
        };
        Some(Ids { next, free: lines.map(range).collect::<Option<_>>()? })
    }

    /// What a file is to hold.
    pub(super) fn text(&self) -> String {
        let free = self.free.iter().map(|ids| format!("free {}-{}\n", ids.start(), ids.end()));
        format!("{}\n", self.next) + &free.collect::<String>()
    }

    /// Takes an id, or the next one; `None`: it was given before, or cannot be one.
    pub(super) fn take(&mut self, wish: Option<NodeId>) -> Option<NodeId> {
        let id = wish.map_or(self.next, |id| id.0);
        if !(1..=NodeId::HIGHEST.0).contains(&id) {
            return None;
        }
        if id >= self.next {
            if id > self.next {
                self.free.push(self.next..=id - 1);
            }
            self.next = id + 1;
            return Some(NodeId(id));
        }
        let at = self.free.iter().position(|ids| ids.contains(&id))?;
        let ids = self.free.remove(at);
        let parts = [*ids.start()..=id - 1, id + 1..=*ids.end()];
        self.free.extend(parts.into_iter().filter(|part| !part.is_empty()));
        Some(NodeId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_none_comes_twice() {
        let mut ids = Ids::new();
        let mut take = |wish: Option<u64>| ids.take(wish.map(NodeId)).map(|id| id.0);
        assert_eq!(
            [take(None), take(None), take(Some(2)), take(Some(0))],
            [Some(1), Some(2), None, None]
        );
        assert_eq!([take(Some(7)), take(Some(7)), take(None)], [Some(7), None, Some(8)]);
        assert_eq!([take(Some(4)), take(Some(4)), take(Some(3))], [Some(4), None, Some(3)]);
        assert_eq!([take(Some(u64::MAX)), take(None)], [None, Some(9)]);
        assert_eq!(ids.text(), "10\nfree 5-6\n");
        assert_eq!(Ids::read(&ids.text()), Some(ids));
    }

    #[test]
    fn a_damaged_file_is_not_believed() {
        assert_eq!(Ids::read("3"), Some(Ids { next: 3, free: vec![] }));
        for bad in ["", "0", "x", "3\nfree 1", "3\nfree 2-1", "3\nfree 1-3", "3\nfree 0-1", "3\n4"]
        {
            assert_eq!(Ids::read(bad), None, "{bad:?}");
        }
    }
}
