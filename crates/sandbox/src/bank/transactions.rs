//! A ledger as the Data API shows it: newest first, filtered by date, contract.md section 1.
//!
//! Rendered once: an answer for any range is one slice of the same text, so equal calls get equal bytes.

#![expect(clippy::struct_field_names, reason = "the contract names the fields")]

use std::ops::Range as Span;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::dates::{Range, midnight, stamp};
use super::ledger::{Category, Line, Purse};
use super::money::Money;
use super::seed::Seed;

/// The lines of one account or card, ready to send.
pub(crate) struct Statement {
    /// JSON objects, newest first, a comma between them.
    text: Bytes,
    /// When each happened and where in the text it is, in the same order.
    places: Vec<(Timestamp, Span<usize>)>,
}

/// What a line needs to know of the account it is in.
pub(crate) struct Holding<'a> {
    pub(crate) purse: Purse,
    pub(crate) seed: &'a Seed,
    /// Only for cards: shown masked in each line.
    pub(crate) card_number: Option<&'a str>,
    pub(crate) town: &'a str,
}

#[derive(Serialize)]
struct Transaction<'a> {
    transaction_id: String,
    normalised_provider_transaction_id: String,
    provider_transaction_id: String,
    timestamp: String,
    description: &'a str,
    amount: Money,
    currency: &'static str,
    transaction_type: &'static str,
    transaction_category: &'static str,
    transaction_classification: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running_balance: Option<Balance>,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Balance {
    amount: Money,
    currency: &'static str,
}

#[derive(Serialize)]
struct Meta<'a> {
    provider_transaction_category: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_reference: Option<&'a str>,
    #[serde(rename = "cardNumber", skip_serializing_if = "Option::is_none")]
    card_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
}

impl Statement {
    /// Booked lines, each with the balance after it.
    pub(crate) fn booked(holding: &Holding, lines: &[Line]) -> Self {
        Self::render(holding, lines.iter(), true)
    }

    /// Lines that are only reserved yet: the bank does not say a balance for them.
    pub(crate) fn pending<'a>(holding: &Holding, lines: impl Iterator<Item = &'a Line>) -> Self {
        Self::render(holding, lines, false)
    }

    fn render<'a>(holding: &Holding, lines: impl Iterator<Item = &'a Line>, balances: bool) -> Self {
        let mut numbered: Vec<(usize, &Line)> = Vec::new();
        for line in lines {
            let today = numbered.iter().rev().take_while(|(_, other)| other.day == line.day);
            let alike = today.filter(|(_, other)| other.event.category == line.event.category).count();
            numbered.push((alike, line));
        }
        let mut text = Vec::new();
        let mut places = Vec::with_capacity(numbered.len());
        for (number, line) in numbered.into_iter().rev() {
            if !text.is_empty() {
                text.push(b',');
            }
            let start = text.len();
            let transaction = holding.transaction(line, number, balances);
            serde_json::to_writer(&mut text, &transaction).expect("plain text and numbers are JSON");
            places.push((midnight(line.day), start..text.len()));
        }
        Self { text: text.into(), places }
    }

    /// The lines in `range`, newest first, a comma between them.
    pub(crate) fn within(&self, range: Range) -> Bytes {
        let newest = range.to.map_or(0, |to| self.places.partition_point(|(at, _)| *at > to));
        let beyond =
            range.from.map_or(self.places.len(), |from| self.places.partition_point(|(at, _)| *at >= from));
        match self.places.get(newest..beyond) {
            Some([(_, first), .., (_, last)]) => self.text.slice(first.start..last.end),
            Some([(_, only)]) => self.text.slice(only.clone()),
            _ => Bytes::new(),
        }
    }
}

impl<'a> Holding<'a> {
    fn transaction<'b>(&self, line: &'b Line, number: usize, balances: bool) -> Transaction<'b>
    where
        'a: 'b,
    {
        // Numbered within its day and category: only purchases can be pending, so that a purchase keeps
        // its id when it is booked among the other lines of its day.
        let seed = self.seed.child(&format!("{} {number} {}", line.day, line.event.category.name()));
        let credit = (line.amount.0 > 0) != self.purse.is_card();
        let currency = self.purse.currency();
        Transaction {
            transaction_id: seed.hex(32),
            normalised_provider_transaction_id: format!("txn-{}", seed.child("normalised").hex(17)),
            provider_transaction_id: seed.child("provider").hex(16),
            timestamp: stamp(line.day),
            description: &line.event.description,
            amount: line.amount,
            currency,
            transaction_type: if credit { "CREDIT" } else { "DEBIT" },
            transaction_category: line.event.category.name(),
            transaction_classification: line.event.classification,
            merchant_name: line.event.merchant,
            running_balance: balances.then_some(Balance { amount: line.balance, currency }),
            meta: Meta {
                provider_transaction_category: line.event.category.provider_code(),
                provider_reference: line.event.reference.as_deref(),
                card_number: self.card_number,
                location: self
                    .card_number
                    .and((line.event.category == Category::Purchase).then_some(self.town)),
            },
        }
    }
}
