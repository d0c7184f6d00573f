//! Five books of one person: what was posted, and the balance after each line.
//!
//! Invariant: a balance is the one before it plus the line's amount, from zero on. Accounts count money
//! held, so spending is negative; cards count money owed, so spending is positive (contract.md section 1).

use jiff::civil::Date;

use super::money::Money;

/// Which book a line is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purse {
    Current,
    Savings,
    Euro,
    Visa,
    Amex,
}

impl Purse {
    pub(crate) const ACCOUNTS: [Self; 3] = [Self::Current, Self::Savings, Self::Euro];
    pub(crate) const CARDS: [Self; 2] = [Self::Visa, Self::Amex];

    pub(crate) fn is_card(self) -> bool {
        Self::CARDS.contains(&self)
    }

    pub(crate) fn currency(self) -> &'static str {
        if self == Self::Euro { "EUR" } else { "GBP" }
    }

    /// What its seed is named, so the source of its ids.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Current => "current account",
            Self::Savings => "savings account",
            Self::Euro => "euro account",
            Self::Visa => "visa card",
            Self::Amex => "amex card",
        }
    }
}

/// The categories of the contract that a mock life needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Atm,
    Credit,
    DirectDebit,
    Interest,
    Purchase,
    StandingOrder,
    Transfer,
}

impl Category {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Atm => "ATM",
            Self::Credit => "CREDIT",
            Self::DirectDebit => "DIRECT_DEBIT",
            Self::Interest => "INTEREST",
            Self::Purchase => "PURCHASE",
            Self::StandingOrder => "STANDING_ORDER",
            Self::Transfer => "TRANSFER",
        }
    }

    /// The short code a British bank prints.
    pub(crate) fn provider_code(self) -> &'static str {
        match self {
            Self::Atm => "CPT",
            Self::Credit => "BGC",
            Self::DirectDebit => "DD",
            Self::Interest => "INT",
            Self::Purchase => "DEB",
            Self::StandingOrder => "SO",
            Self::Transfer => "TFR",
        }
    }
}

/// What happened, before it is in a book.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) description: String,
    pub(crate) category: Category,
    pub(crate) classification: &'static [&'static str],
    pub(crate) merchant: Option<&'static str>,
    pub(crate) reference: Option<String>,
}

impl Event {
    pub(crate) fn new(description: impl Into<String>, category: Category) -> Self {
        Self {
            description: description.into(),
            category,
            classification: &[],
            merchant: None,
            reference: None,
        }
    }

    pub(crate) fn classified(self, classification: &'static [&'static str]) -> Self {
        Self { classification, ..self }
    }

    pub(crate) fn at(self, merchant: &'static str) -> Self {
        Self { merchant: Some(merchant), ..self }
    }

    pub(crate) fn with_reference(self, reference: &str) -> Self {
        Self { reference: Some(reference.to_owned()), ..self }
    }
}

/// One posted line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) day: Date,
    pub(crate) event: Event,
    pub(crate) amount: Money,
    pub(crate) balance: Money,
}

/// Lines in the order they were posted.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) lines: Vec<Line>,
}

impl Ledger {
    pub(crate) fn post(&mut self, day: Date, amount: Money, event: Event) {
        let balance = self.balance() + amount;
        self.lines.push(Line { day, event, amount, balance });
    }

    pub(crate) fn balance(&self) -> Money {
        self.lines.last().map_or(Money(0), |line| line.balance)
    }

    /// The balance at the end of `day`.
    pub(crate) fn balance_on(&self, day: Date) -> Money {
        let upto = self.lines.partition_point(|line| line.day <= day);
        upto.checked_sub(1).map_or(Money(0), |index| self.lines[index].balance)
    }

    /// The last line that carries `reference`.
    pub(crate) fn last_with(&self, reference: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.event.reference.as_deref() == Some(reference))
    }
}

/// The five books.
#[derive(Default)]
pub(crate) struct Ledgers([Ledger; 5]);

impl Ledgers {
    pub(crate) fn of(&self, purse: Purse) -> &Ledger {
        &self.0[purse as usize]
    }

    pub(crate) fn of_mut(&mut self, purse: Purse) -> &mut Ledger {
        &mut self.0[purse as usize]
    }

    /// Money goes out: an account holds less, a card owes more.
    pub(crate) fn spend(&mut self, day: Date, purse: Purse, amount: Money, event: Event) {
        let amount = if purse.is_card() { amount } else { -amount };
        self.of_mut(purse).post(day, amount, event);
    }

    /// Money comes in: an account holds more, a card owes less.
    pub(crate) fn receive(&mut self, day: Date, purse: Purse, amount: Money, event: Event) {
        self.spend(day, purse, -amount, event);
    }
}
