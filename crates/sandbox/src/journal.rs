//! The last things that happened, oldest first.
//!
//! Bounded by entries and by bytes: the oldest make room. An entry is written when a request arrives
//! and completed when it is answered, so that a request nobody waited for is still seen.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) struct Journal<T> {
    entries_max: usize,
    bytes_max: usize,
    pages: Mutex<Pages<T>>,
}

struct Pages<T> {
    /// Number of the oldest entry kept.
    first: u64,
    bytes: usize,
    entries: VecDeque<(usize, T)>,
}

/// Names one entry, also after older ones have gone.
#[derive(Clone, Copy)]
pub(crate) struct Number(u64);

impl<T: Clone> Journal<T> {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        let pages = Pages { first: 0, bytes: 0, entries: VecDeque::new() };
        Self { entries_max, bytes_max, pages: Mutex::new(pages) }
    }

    /// Adds an entry that holds about `bytes`, dropping the oldest as far as needed.
    pub(crate) fn push(&self, entry: T, bytes: usize) -> Number {
        let mut pages = self.lock();
        pages.entries.push_back((bytes, entry));
        pages.bytes += bytes;
        while pages.entries.len() > self.entries_max || pages.bytes > self.bytes_max {
            let Some((freed, _)) = pages.entries.pop_front() else { break };
            pages.bytes -= freed;
            pages.first += 1;
        }
        Number(pages.first + pages.entries.len() as u64 - 1)
    }

    /// Changes an entry; does nothing when it has gone already.
    pub(crate) fn amend(&self, Number(number): Number, change: impl FnOnce(&mut T)) {
        let mut pages = self.lock();
        let index = number.checked_sub(pages.first).and_then(|index| usize::try_from(index).ok());
        if let Some((_, entry)) = index.and_then(|index| pages.entries.get_mut(index)) {
            change(entry);
        }
    }

    pub(crate) fn entries(&self) -> Vec<T> {
        self.lock().entries.iter().map(|(_, entry)| entry.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pages<T>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_make_room_by_number_and_by_bytes() {
        let journal = Journal::new(3, 10);
        let first = journal.push('a', 1);
        for entry in ['b', 'c', 'd'] {
            journal.push(entry, 1);
        }
        assert_eq!(journal.entries(), ['b', 'c', 'd']);
        let big = journal.push('e', 9);
        assert_eq!(journal.entries(), ['d', 'e']);
        journal.amend(first, |_| panic!("this entry has gone"));
        journal.amend(big, |entry| *entry = 'E');
        assert_eq!(journal.entries(), ['d', 'E']);
    }

    #[test]
    fn an_entry_larger_than_the_journal_is_not_kept() {
        let journal = Journal::new(3, 10);
        let number = journal.push('a', 11);
        journal.amend(number, |_| panic!("this entry was never kept"));
        assert!(journal.entries().is_empty());
    }
}
