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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::civil::date;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::bank::dates::{Range, shifted, stamp};
    use crate::bank::transactions::Statement;

    fn book(user: &str, today: Date) -> Book {
        Book::write(&MockUser::named(user).unwrap(), today)
    }

    fn lines(statement: &Statement) -> Vec<Value> {
        let text = String::from_utf8(statement.within(Range::default()).to_vec()).unwrap();
        serde_json::from_str(&format!("[{text}]")).unwrap()
    }

    fn hundredths(amount: &Value) -> i64 {
        let text = format!("{:.2}", amount.as_f64().unwrap());
        text.replace('.', "").parse().unwrap()
    }

    fn check_statement(statement: &Statement, current: &Value, today: Date) {
        let lines = lines(statement);
        let mut balance = hundredths(current);
        let mut ids = HashSet::new();
        let mut later = stamp(today);
        for line in &lines {
            assert_eq!(hundredths(&line["running_balance"]["amount"]), balance, "{line}");
            balance -= hundredths(&line["amount"]);
            assert!(ids.insert(line["transaction_id"].to_string()), "{line}");
            let timestamp = line["timestamp"].as_str().unwrap().to_owned();
            assert!(timestamp <= later && timestamp >= stamp(date(2022, 1, 1)) && timestamp < stamp(today));
            later = timestamp;
        }
        assert_eq!(balance, 0, "before the first line there was nothing");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn running_balances_add_up_to_the_current_balance(user in "[a-z]{1,8}", days in 1i64..2500) {
            let today = shifted(date(2022, 1, 1), days);
            let book = book(&user, today);
            for account in &book.accounts {
                let balance = serde_json::to_value(&account.balance).unwrap();
                check_statement(&account.booked, &balance["current"], today);
                let reserved: i64 = lines(&account.pending).iter().map(|line| hundredths(&line["amount"])).sum();
                let available = hundredths(&balance["current"]) + hundredths(&balance["overdraft"]) + reserved;
                prop_assert_eq!(hundredths(&balance["available"]), available);
                prop_assert!(available >= 0, "{} lives beyond the overdraft", user);
            }
            for card in &book.cards {
                let balance = serde_json::to_value(&card.balance).unwrap();
                check_statement(&card.booked, &balance["current"], today);
                prop_assert!(hundredths(&balance["available"]) > 0);
            }
        }

        #[test]
        fn what_was_booked_stays_and_what_is_pending_is_booked_next(user in "[a-z]{1,8}", days in 1i64..2500) {
            let today = shifted(date(2022, 1, 1), days);
            let (now, next) = (book(&user, today), book(&user, shifted(today, 1)));
            let statements = |book: &Book| {
                let accounts = book.accounts.iter().map(|account| (lines(&account.booked), lines(&account.pending)));
                let cards = book.cards.iter().map(|card| (lines(&card.booked), lines(&card.pending)));
                accounts.chain(cards).collect::<Vec<_>>()
            };
            for ((booked, pending), (booked_next, _)) in statements(&now).into_iter().zip(statements(&next)) {
                prop_assert!(booked_next.ends_with(&booked));
                let new: Vec<&Value> =
                    booked_next[..booked_next.len() - booked.len()].iter().map(|line| &line["transaction_id"]).collect();
                for line in pending {
                    prop_assert!(line.get("running_balance").is_none());
                    prop_assert!(new.contains(&&line["transaction_id"]));
                }
            }
        }
    }

    #[test]
    fn a_year_has_its_salaries_rents_and_bills() {
        let today = date(2025, 1, 1);
        let john = book("john", today);
        let year: Vec<Value> = lines(&john.accounts[0].booked)
            .into_iter()
            .filter(|line| line["timestamp"].as_str().unwrap().starts_with("2024"))
            .collect();
        let count = |of: &dyn Fn(&Value) -> bool| year.iter().filter(|line| of(line)).count();
        assert_eq!(count(&|line| line["meta"]["provider_reference"] == "SALARY"), 12);
        assert_eq!(count(&|line| line["meta"]["provider_reference"] == "RENT"), 12);
        assert_eq!(count(&|line| line["description"] == "OCTOPUS ENERGY"), 12);
        assert_eq!(count(&|line| line["description"] == "CITY COUNCIL TAX"), 10);
        assert!(count(&|line| line["transaction_category"] == "PURCHASE") > 200);
        let credits = count(&|line| line["transaction_type"] == "CREDIT");
        assert_eq!(credits, count(&|line| line["amount"].as_f64().unwrap() > 0.0));
    }

    #[tokio::test]
    async fn a_book_is_written_once_and_the_oldest_makes_room() {
        let shelf = Shelf::default();
        let today = date(2022, 1, 3);
        let john = MockUser::named("john").unwrap();
        let first = shelf.book(&john, today).await.unwrap();
        assert!(Arc::ptr_eq(&first, &shelf.book(&john, today).await.unwrap()));
        for number in 0..BOOKS_MAX {
            shelf.book(&MockUser::named(&format!("user {number}")).unwrap(), today).await.unwrap();
        }
        assert_eq!(shelf.slots.lock().unwrap().len(), BOOKS_MAX);
        assert!(!Arc::ptr_eq(&first, &shelf.book(&john, today).await.unwrap()));
    }
}
