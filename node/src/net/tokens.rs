//! A bounded table of what the core still owes an answer to.
//!
//! A gossip payload awaiting its verdict, or a request awaiting its response, is put away under a number,
//! the token, which goes to the core and comes back with the answer. A core that never answers must not
//! make the table grow: when it is full, the oldest entry makes room and is handed back to be settled.

use std::collections::BTreeMap;

/// A table of at most `capacity` entries, keyed by ever-growing tokens.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    entries: BTreeMap<u64, T>,
    capacity: usize,
    next: u64,
}

impl<T> Tokens<T> {
    /// An empty table of at most `capacity` entries (at least one).
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), capacity: capacity.max(1), next: 0 }
    }

    /// Puts `value` away. Returns its token, and the oldest entry if that had to make room.
    pub(super) fn insert(&mut self, value: T) -> (u64, Option<T>) {
        let evicted = if self.entries.len() >= self.capacity {
            self.entries.pop_first().map(|(_, value)| value)
        } else {
            None
        };
        let token = self.next;
        self.next += 1;
        self.entries.insert(token, value);
        (token, evicted)
    }

    /// Takes out the entry of `token`, unless it was taken or had to make room.
    pub(super) fn take(&mut self, token: u64) -> Option<T> {
        self.entries.remove(&token)
    }

    /// How many entries `holds` is true of.
    pub(super) fn count(&self, holds: impl Fn(&T) -> bool) -> usize {
        self.entries.values().filter(|value| holds(value)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_makes_room() {
        let mut tokens = Tokens::new(2);
        let (a, none) = tokens.insert("a");
        assert_eq!(none, None);
        let (b, _) = tokens.insert("b");
        assert_eq!(tokens.insert("c").1, Some("a"));
        assert_eq!(tokens.take(a), None);
        assert_eq!(tokens.take(b), Some("b"));
        assert_eq!(tokens.take(b), None, "a token works once");
        let (_, none) = tokens.insert("d");
        assert_eq!(none, None);
        assert_eq!(tokens.count(|value| *value == "d"), 1);
    }
}
