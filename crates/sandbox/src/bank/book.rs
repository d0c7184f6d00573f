//! All the bank knows of one user on one day, and the last few such books.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::Date;
use tokio::sync::OnceCell;

use super::accounts::Account;
use super::cards::Card;
use super::error::{INTERNAL_SERVER_ERROR, Refusal};
use super::ledger::Purse;
use super::story::Story;
use super::user::{Holder, MockUser, home_town};

/// A book is about 2 MB, most of it statements.
const BOOKS_MAX: usize = 32;

/// One user's holdings.
pub(crate) struct Book {
    pub(crate) holder: Holder,
    pub(crate) accounts: Vec<Account>,
    pub(crate) cards: Vec<Card>,
}

impl Book {
    /// Pure: the same for the same user and day, wherever and whenever it is written.
    pub(crate) fn write(user: &MockUser, today: Date) -> Self {
        let seed = user.seed();
        let town = home_town(user);
        let holder = Holder::of(user, today);
        let story = Story::tell(&seed, town, today);
        let who = (holder.full_name.as_str(), town);
        Self {
            accounts: Purse::ACCOUNTS.map(|purse| Account::open(&seed, purse, &story, town, today)).into(),
            cards: Purse::CARDS.map(|purse| Card::open(&seed, purse, &story, who, today)).into(),
            holder,
        }
    }
}

type Slot = Arc<OnceCell<Arc<Book>>>;

/// The books asked for last; the one that came first makes room.
#[derive(Default)]
pub(crate) struct Shelf {
    slots: Mutex<VecDeque<(MockUser, Date, Slot)>>,
}

impl Shelf {
    /// The user's book of `today`, written at most once while it stays on the shelf.
    pub(crate) async fn book(&self, user: &MockUser, today: Date) -> Result<Arc<Book>, Refusal> {
        let slot = self.slot(user, today);
        let owner = user.clone();
        let write = || async move {
            let book = tokio::task::spawn_blocking(move || Arc::new(Book::write(&owner, today)));
            book.await.map_err(|_| Refusal::from(INTERNAL_SERVER_ERROR))
        };
        slot.get_or_try_init(write).await.cloned()
    }

    fn slot(&self, user: &MockUser, today: Date) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, slot)) = slots.iter().find(|(owner, day, _)| owner == user && *day == today) {
            return Arc::clone(slot);
        }
        if slots.len() == BOOKS_MAX {
            slots.pop_front();
        }
        let slot = Slot::default();
        slots.push_back((user.clone(), today, Arc::clone(&slot)));
        slot
    }
}
