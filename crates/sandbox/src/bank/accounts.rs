//! Accounts, their balances, standing orders and direct debits: contract.md section 1.

#![expect(clippy::struct_field_names, reason = "the contract names the fields")]

use jiff::civil::Date;
use serde::Serialize;

use super::dates::{collected_on, next_on, shifted, stamp};
use super::habits::BILLS;
use super::ledger::{Line, Purse};
use super::money::Money;
use super::seed::Seed;
use super::story::{FIRST_DAY, RENT_DAY, SAVING_DAY, Story, card_reference, reference};
use super::transactions::{Holding, Statement};

const SORT_CODE: &str = "04-00-04";

/// One account with all that can be asked of it.
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) shown: AccountShown,
    pub(crate) balance: Balance,
    pub(crate) booked: Statement,
    pub(crate) pending: Statement,
    pub(crate) standing_orders: Vec<StandingOrder>,
    pub(crate) direct_debits: Vec<DirectDebit>,
}

#[derive(Clone, Serialize)]
pub(crate) struct AccountShown {
    update_timestamp: String,
    account_id: String,
    account_type: &'static str,
    display_name: &'static str,
    currency: &'static str,
    account_number: AccountNumber,
    provider: Provider,
}

#[derive(Clone, Serialize)]
struct AccountNumber {
    iban: String,
    number: String,
    sort_code: &'static str,
    swift_bic: &'static str,
}

/// The bank itself, as every account and card names it.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Provider {
    display_name: &'static str,
    provider_id: &'static str,
    logo_uri: &'static str,
}

pub(crate) const PROVIDER: Provider = Provider {
    display_name: "Mock",
    provider_id: "mock",
    logo_uri: "https://auth.ringback-sandbox.example/logos/mock.svg",
};

#[derive(Clone, Serialize)]
pub(crate) struct Balance {
    currency: &'static str,
    available: Money,
    current: Money,
    overdraft: Money,
    update_timestamp: String,
}

#[derive(Clone, Serialize)]
pub(crate) struct StandingOrder {
    frequency: String,
    status: &'static str,
    timestamp: String,
    currency: &'static str,
    next_payment_date: String,
    next_payment_amount: Money,
    first_payment_date: String,
    first_payment_amount: Money,
    final_payment_date: String,
    final_payment_amount: Money,
    reference: &'static str,
    payee: &'static str,
    meta: StandingOrderMeta,
}

#[derive(Clone, Serialize)]
struct StandingOrderMeta {
    provider_account_id: String,
}

#[derive(Clone, Serialize)]
pub(crate) struct DirectDebit {
    direct_debit_id: String,
    timestamp: String,
    name: &'static str,
    status: &'static str,
    previous_payment_timestamp: String,
    previous_payment_amount: Money,
    currency: &'static str,
    meta: DirectDebitMeta,
}

#[derive(Clone, Serialize)]
struct DirectDebitMeta {
    provider_mandate_identification: String,
    provider_account_id: String,
}

impl Account {
    /// One account of the owner of `seed`, as the bank shows it on `today`.
    pub(crate) fn open(seed: &Seed, purse: Purse, story: &Story, town: &str, today: Date) -> Self {
        let own = seed.child(purse.label());
        let id = own.hex(32);
        let holding = Holding { purse, seed: &own, card_number: None, town };
        let ledger = story.ledgers.of(purse);
        let reserved: Money = story.pending(purse).map(|line| line.amount).sum();
        let overdraft = Money(if purse == Purse::Current { 50_000 } else { 0 });
        let (standing_orders, direct_debits) = match purse {
            Purse::Current => (standing_orders(&own, story, today), direct_debits(seed, &own, story, today)),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            shown: AccountShown {
                update_timestamp: stamp(today),
                account_id: id.clone(),
                account_type: if purse == Purse::Savings { "SAVINGS" } else { "TRANSACTION" },
                display_name: match purse {
                    Purse::Savings => "Rainy Day Saver",
                    Purse::Euro => "Euro Account",
                    _ => "Everyday Current Account",
                },
                currency: purse.currency(),
                account_number: account_number(&own),
                provider: PROVIDER,
            },
            balance: Balance {
                currency: purse.currency(),
                available: ledger.balance() + reserved + overdraft,
                current: ledger.balance(),
                overdraft,
                update_timestamp: stamp(today),
            },
            booked: Statement::booked(&holding, &ledger.lines),
            pending: Statement::pending(&holding, story.pending(purse)),
            standing_orders,
            direct_debits,
            id,
        }
    }
}

fn account_number(own: &Seed) -> AccountNumber {
    let number = format!("{:08}", own.child("number").dice().between(10_000_000, 99_999_999));
    AccountNumber {
        iban: iban("MOCK", &format!("{}{number}", SORT_CODE.replace('-', ""))),
        number,
        sort_code: SORT_CODE,
        swift_bic: "MOCKGB2LXXX",
    }
}

/// A British IBAN with its check digits (ISO 13616: the whole, rearranged, is 1 modulo 97).
fn iban(bank: &str, account: &str) -> String {
    let digits = format!("{bank}{account}GB00");
    let remainder = digits.chars().filter_map(|letter| letter.to_digit(36)).fold(0, |sum, digit| {
        let shift = if digit < 10 { 10 } else { 100 };
        (sum * shift + digit) % 97
    });
    format!("GB{:02}{bank}{account}", 98 - remainder)
}

fn standing_orders(own: &Seed, story: &Story, today: Date) -> Vec<StandingOrder> {
    let rent = |day| story.plan.rent_on(day);
    let saving = |_| story.plan.saving;
    vec![
        standing_order(own, today, RENT_DAY, "RENT", story.plan.landlord, rent),
        standing_order(own, today, SAVING_DAY, "RAINY DAY", "Rainy Day Saver", saving),
    ]
}

fn standing_order(
    own: &Seed,
    today: Date,
    day_of_month: i8,
    reference: &'static str,
    payee: &'static str,
    amount: impl Fn(Date) -> Money,
) -> StandingOrder {
    let first = collection_from(FIRST_DAY, day_of_month);
    let next = collection_from(today, day_of_month);
    // Orders run three years past the next payment; the year changes only when that one does.
    let last = collection_from(shifted(next_on(next, day_of_month), 3 * 365), day_of_month);
    StandingOrder {
        frequency: format!("IntrvlMnthDay:01:{day_of_month:02}"),
        status: "Active",
        timestamp: stamp(today),
        currency: "GBP",
        next_payment_date: stamp(next),
        next_payment_amount: amount(next),
        first_payment_date: stamp(first),
        first_payment_amount: amount(first),
        final_payment_date: stamp(last),
        final_payment_amount: amount(last),
        reference,
        payee,
        meta: StandingOrderMeta { provider_account_id: own.hex(32) },
    }
}

/// The first day from `day` on when a monthly payment leaves the account.
fn collection_from(day: Date, day_of_month: i8) -> Date {
    (0..35).map(|days| shifted(day, days)).find(|next| collected_on(*next, day_of_month)).unwrap_or(day)
}

fn direct_debits(seed: &Seed, own: &Seed, story: &Story, today: Date) -> Vec<DirectDebit> {
    let bills = BILLS.iter().enumerate().map(|(index, bill)| (bill.name, story.plan.bill_reference(index)));
    let cards = Purse::CARDS.map(|card| match card {
        Purse::Amex => ("AMERICAN EXPRESS", card_reference(card)),
        _ => ("MOCK BANK VISA", card_reference(card)),
    });
    let ledger = story.ledgers.of(Purse::Current);
    bills
        .chain(cards)
        // A mandate that was never used has no previous payment to show.
        .filter_map(|(name, label)| {
            ledger.last_with(label).map(|line| direct_debit(seed, own, name, line, today))
        })
        .collect()
}

fn direct_debit(seed: &Seed, own: &Seed, name: &'static str, last: &Line, today: Date) -> DirectDebit {
    DirectDebit {
        direct_debit_id: own.child(name).hex(32),
        timestamp: stamp(today),
        name,
        status: "Active",
        previous_payment_timestamp: stamp(last.day),
        previous_payment_amount: -last.amount,
        currency: "GBP",
        meta: DirectDebitMeta {
            provider_mandate_identification: reference(seed, name),
            provider_account_id: own.hex(32),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iban_has_the_check_digits_of_a_published_example() {
        // The example for the United Kingdom in the IBAN registry (SWIFT).
        assert_eq!(iban("NWBK", "60161331926819"), "GB29NWBK60161331926819");
    }
}
