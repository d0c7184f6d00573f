//! The endpoints of the Data API, the scopes they need, and their answers: contract.md section 1. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::civil::Date;
use serde::Serialize;
use serde_json::json;

use super::accounts::{Account, PROVIDER};
use super::book::Book;
use super::cards::Card;
use super::dates::{Range, shifted, stamp};
use super::error::{ACCOUNT_NOT_FOUND, Refusal};
use super::scope::{self, Scope};
use super::token::{CONSENT, Grant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    Me,
    Info,
    Accounts,
    Account(&'a str, AccountView),
    Cards,
    Card(&'a str, CardView),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountView {
    Itself,
    Balance,
    Transactions,
    Pending,
    StandingOrders,
    DirectDebits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CardView {
    Itself,
    Balance,
    Transactions,
    Pending,
}

impl<'a> Endpoint<'a> {
    /// The endpoint at a path below `/data/v1/`.
    pub(crate) fn at(path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.splitn(5, '/').collect();
        Some(match segments[..] {
            ["me"] => Self::Me,
            ["info"] => Self::Info,
            ["accounts"] => Self::Accounts,
            ["cards"] => Self::Cards,
            ["accounts", id, ref view @ ..] if !id.is_empty() => Self::Account(
                id,
                match view {
                    [] => AccountView::Itself,
                    ["balance"] => AccountView::Balance,
                    ["transactions"] => AccountView::Transactions,
                    ["transactions", "pending"] => AccountView::Pending,
                    ["standing_orders"] => AccountView::StandingOrders,
                    ["direct_debits"] => AccountView::DirectDebits,
                    _ => return None,
                },
            ),
            ["cards", id, ref view @ ..] if !id.is_empty() => Self::Card(
                id,
                match view {
                    [] => CardView::Itself,
                    ["balance"] => CardView::Balance,
                    ["transactions"] => CardView::Transactions,
                    ["transactions", "pending"] => CardView::Pending,
                    _ => return None,
                },
            ),
            _ => return None,
        })
    }

    /// The scopes a token must have, all of them.
    pub(crate) fn scopes(&self) -> &'static [Scope] {
        match self {
            Self::Me => &[],
            Self::Info => &[Scope::Info],
            Self::Accounts | Self::Account(_, AccountView::Itself) => &[Scope::Accounts],
            Self::Account(_, AccountView::Balance) => &[Scope::Accounts, Scope::Balance],
            Self::Account(_, AccountView::Transactions | AccountView::Pending) => {
                &[Scope::Accounts, Scope::Transactions]
            }
            Self::Account(_, AccountView::StandingOrders) => &[Scope::Accounts, Scope::StandingOrders],
            Self::Account(_, AccountView::DirectDebits) => &[Scope::Accounts, Scope::DirectDebits],
            Self::Cards | Self::Card(_, CardView::Itself) => &[Scope::Cards],
            Self::Card(_, CardView::Balance) => &[Scope::Cards, Scope::Balance],
            Self::Card(_, CardView::Transactions | CardView::Pending) => &[Scope::Cards, Scope::Transactions],
        }
    }

    /// Whether `from` and `to` mean something here.
    pub(crate) fn takes_dates(&self) -> bool {
        matches!(
            self,
            Self::Account(_, AccountView::Transactions | AccountView::Pending)
                | Self::Card(_, CardView::Transactions | CardView::Pending)
        )
    }

    /// The body of a success.
    ///
    /// # Errors
    /// `account_not_found`, for cards too.
    pub(crate) fn body(
        &self,
        grant: &Grant,
        book: &Book,
        range: Range,
        today: Date,
    ) -> Result<Bytes, Refusal> {
        Ok(match self {
            Self::Me => list(&[me(grant, today)]),
            Self::Info => list(&[&book.holder]),
            Self::Accounts => list(&book.accounts.iter().map(|account| &account.shown).collect::<Vec<_>>()),
            Self::Cards => list(&book.cards.iter().map(|card| &card.shown).collect::<Vec<_>>()),
            Self::Account(id, view) => {
                let account = book.accounts.iter().find(|account| account.id == *id);
                view.body(account.ok_or(ACCOUNT_NOT_FOUND)?, range)
            }
            Self::Card(id, view) => {
                let card = book.cards.iter().find(|card| card.id == *id);
                view.body(card.ok_or(ACCOUNT_NOT_FOUND)?, range)
            }
        })
    }
}

impl AccountView {
    fn body(self, account: &Account, range: Range) -> Bytes {
        match self {
            Self::Itself => list(&[&account.shown]),
            Self::Balance => list(&[&account.balance]),
            Self::Transactions => envelope(&account.booked.within(range)),
            Self::Pending => envelope(&account.pending.within(range)),
            Self::StandingOrders => list(&account.standing_orders),
            Self::DirectDebits => list(&account.direct_debits),
        }
    }
}

impl CardView {
    fn body(self, card: &Card, range: Range) -> Bytes {
        match self {
            Self::Itself => list(&[&card.shown]),
            Self::Balance => list(&[&card.balance]),
            Self::Transactions => envelope(&card.booked.within(range)),
            Self::Pending => envelope(&card.pending.within(range)),
        }
    }
}

/// The consent counts from the first of the month, so that the answer repeats within it.
fn me(grant: &Grant, today: Date) -> serde_json::Value {
    let consented = today.first_of_month();
    let consent_days = i64::try_from(CONSENT.as_secs() / 86_400).unwrap_or(90);
    json!({
        "client_id": grant.client_id,
        "credentials_id": grant.user.credentials_id(),
        "consent_status": "Authorised",
        "consent_status_updated_at": stamp(consented),
        "consent_created_at": stamp(consented),
        "consent_expires_at": stamp(shifted(consented, consent_days)),
        "provider": PROVIDER,
        "scopes": scope::to_text(&grant.scopes).split(' ').collect::<Vec<_>>(),
        "privacy_policy": "Feb2019",
    })
}

fn list<T: Serialize>(results: &[T]) -> Bytes {
    let text = serde_json::to_vec(results).expect("what the bank shows is plain text and numbers");
    // Without the brackets, which the envelope writes.
    envelope(&text[1..text.len() - 1])
}

/// `{"results":[…],"status":"Succeeded"}` around results that are JSON already.
fn envelope(results: &[u8]) -> Bytes {
    const BEFORE: &[u8] = br#"{"results":["#;
    const AFTER: &[u8] = br#"],"status":"Succeeded"}"#;
    let mut body = BytesMut::with_capacity(BEFORE.len() + results.len() + AFTER.len());
    for part in [BEFORE, results, AFTER] {
        body.put_slice(part);
    }
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_of_the_contract_is_found_and_nothing_else() {
        for (path, endpoint) in [
            ("me", Endpoint::Me),
            ("info", Endpoint::Info),
            ("accounts", Endpoint::Accounts),
            ("accounts/a", Endpoint::Account("a", AccountView::Itself)),
            ("accounts/a/balance", Endpoint::Account("a", AccountView::Balance)),
            ("accounts/a/transactions", Endpoint::Account("a", AccountView::Transactions)),
            ("accounts/a/transactions/pending", Endpoint::Account("a", AccountView::Pending)),
            ("accounts/a/standing_orders", Endpoint::Account("a", AccountView::StandingOrders)),
            ("accounts/a/direct_debits", Endpoint::Account("a", AccountView::DirectDebits)),
            ("cards", Endpoint::Cards),
            ("cards/c", Endpoint::Card("c", CardView::Itself)),
            ("cards/c/balance", Endpoint::Card("c", CardView::Balance)),
            ("cards/c/transactions", Endpoint::Card("c", CardView::Transactions)),
            ("cards/c/transactions/pending", Endpoint::Card("c", CardView::Pending)),
        ] {
            assert_eq!(Endpoint::at(path), Some(endpoint));
        }
        for path in [
            "",
            "accounts/",
            "cards/",
            "accounts//balance",
            "accounts/a/",
            "cards/c/direct_debits",
            "batch/transactions",
            "accounts/a/transactions/pending/x",
            "results/1",
            "connections/extend",
            "ME",
        ] {
            assert_eq!(Endpoint::at(path), None, "{path}");
        }
    }
}
