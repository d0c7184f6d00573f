//! Cards and their balances: contract.md section 1. A card's balance is what is owed, above zero.

use jiff::civil::Date;
use serde::Serialize;

use super::accounts::{PROVIDER, Provider};
use super::dates::{collected_on, last_before, next_on, shifted, stamp};
use super::ledger::Purse;
use super::money::Money;
use super::seed::Seed;
use super::story::{CARD_PAYMENT_DAY, STATEMENT_DAY, Story};
use super::transactions::{Holding, Statement};

/// One card with all that can be asked of it.
pub(crate) struct Card {
    pub(crate) id: String,
    pub(crate) shown: CardShown,
    pub(crate) balance: CardBalance,
    pub(crate) booked: Statement,
    pub(crate) pending: Statement,
}

#[derive(Clone, Serialize)]
pub(crate) struct CardShown {
    account_id: String,
    card_network: &'static str,
    card_type: &'static str,
    currency: &'static str,
    display_name: &'static str,
    partial_card_number: String,
    name_on_card: String,
    valid_from: String,
    valid_to: String,
    update_timestamp: String,
    provider: Provider,
}

#[derive(Clone, Serialize)]
pub(crate) struct CardBalance {
    available: Money,
    current: Money,
    currency: &'static str,
    credit_limit: Money,
    last_statement_balance: Money,
    last_statement_date: String,
    payment_due: Money,
    payment_due_date: String,
    update_timestamp: String,
}

impl Card {
    /// One card of the owner of `seed`, as the bank shows it on `today`.
    pub(crate) fn open(seed: &Seed, purse: Purse, story: &Story, who: (&str, &str), today: Date) -> Self {
        let (holder_name, town) = who;
        let own = seed.child(purse.label());
        let last_digits = format!("{:04}", own.child("number").dice().between(1, 9999));
        let masked = format!("************{last_digits}");
        let holding = Holding { purse, seed: &own, card_number: Some(&masked), town };
        let (network, kind, name) = match purse {
            Purse::Amex => ("AMEX", "CHARGE", "Preferred Charge Card"),
            _ => ("VISA", "CREDIT", "Classic Credit Card"),
        };
        // Issued for four years at a time, in the month of the last renewal.
        let issued = 2022 + (today.year().max(2022) - 2022) / 4 * 4;
        Self {
            id: own.hex(32),
            shown: CardShown {
                account_id: own.hex(32),
                card_network: network,
                card_type: kind,
                currency: purse.currency(),
                display_name: name,
                partial_card_number: last_digits,
                name_on_card: holder_name.to_uppercase(),
                valid_from: format!("{issued}-01"),
                valid_to: format!("{}-01", issued + 4),
                update_timestamp: stamp(today),
                provider: PROVIDER,
            },
            balance: CardBalance::of(purse, story, today),
            booked: Statement::booked(&holding, &story.ledgers.of(purse).lines),
            pending: Statement::pending(&holding, story.pending(purse)),
        }
    }
}

impl CardBalance {
    fn of(purse: Purse, story: &Story, today: Date) -> Self {
        let ledger = story.ledgers.of(purse);
        let reserved: Money = story.pending(purse).map(|line| line.amount).sum();
        let limit = Money(if purse == Purse::Amex { 1_000_000 } else { 500_000 });
        let closed = last_before(today, STATEMENT_DAY);
        let statement = ledger.balance_on(closed);
        let due = (0..35)
            .map(|days| shifted(next_on(closed, CARD_PAYMENT_DAY), days))
            .find(|day| collected_on(*day, CARD_PAYMENT_DAY))
            .unwrap_or(today);
        let open = if due < today { Money(0) } else { statement.max(Money(0)) };
        Self {
            available: limit - ledger.balance() - reserved,
            current: ledger.balance(),
            currency: purse.currency(),
            credit_limit: limit,
            last_statement_balance: statement,
            last_statement_date: stamp(closed),
            payment_due: open,
            payment_due_date: stamp(due),
            update_timestamp: stamp(today),
        }
    }
}
