//! Who banks here: any name makes a mock user, always the same one.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::dates::stamp;
use super::seed::Seed;
use jiff::civil::Date;

const NAME_BYTES_MAX: usize = 128;

/// The name of a mock user: 1 to 128 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MockUser(String);

impl MockUser {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let usable = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        usable.then(|| Self(name.to_owned()))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn seed(&self) -> Seed {
        Seed::of_user(&self.0)
    }

    /// 44 characters: base64 of 32 bytes, as real ones are (contract.md section 5).
    pub(crate) fn credentials_id(&self) -> String {
        BASE64_STANDARD.encode(self.seed().child("credentials id").bytes())
    }
}

/// A person as `/info` shows one.
#[derive(Clone, Serialize)]
pub(crate) struct Holder {
    pub(crate) full_name: String,
    emails: [String; 1],
    phones: [String; 1],
    addresses: [Address; 1],
    date_of_birth: String,
    update_timestamp: String,
}

#[derive(Clone, Serialize)]
struct Address {
    #[serde(rename = "address")]
    street: String,
    city: &'static str,
    state: &'static str,
    zip: String,
    country: &'static str,
}

struct Town {
    name: &'static str,
    county: &'static str,
    postcode: &'static str,
    phone: &'static str,
}

/// Phone numbers are from the ranges Ofcom keeps free for drama.
const TOWNS: [Town; 6] = [
    Town { name: "London", county: "Greater London", postcode: "SE15", phone: "+44 20 7946 0" },
    Town { name: "Leeds", county: "West Yorkshire", postcode: "LS6", phone: "+44 113 496 0" },
    Town { name: "Bristol", county: "Bristol", postcode: "BS5", phone: "+44 117 496 0" },
    Town { name: "Manchester", county: "Greater Manchester", postcode: "M14", phone: "+44 161 496 0" },
    Town { name: "Edinburgh", county: "City of Edinburgh", postcode: "EH6", phone: "+44 131 496 0" },
    Town { name: "Cardiff", county: "South Glamorgan", postcode: "CF24", phone: "+44 29 2018 0" },
];
const STREETS: [&str; 6] =
    ["Station Road", "Church Lane", "Victoria Street", "Mill Hill", "Park Avenue", "Queens Terrace"];
const SURNAMES: [&str; 8] =
    ["Whitfield", "Okafor", "Marsh", "Patel", "Hughes", "Lindqvist", "Carver", "Rahman"];

impl Holder {
    pub(crate) fn of(user: &MockUser, today: Date) -> Self {
        let mut dice = user.seed().child("holder").dice();
        let town = &TOWNS[town_index(user)];
        let surname = if ["john", "jane"].contains(&user.name()) { "Doe" } else { dice.pick(&SURNAMES) };
        let first_name = capitalised(user.name());
        let mailbox: String = first_name.chars().filter(char::is_ascii_alphanumeric).collect();
        let born = Date::constant(1960, 1, 1).saturating_add(jiff::Span::new().days(dice.between(0, 15_000)));
        Self {
            full_name: format!("{first_name} {surname}"),
            emails: [format!("{mailbox}.{surname}@example.com").to_lowercase()],
            phones: [format!("{}{:03}", town.phone, dice.between(100, 999))],
            addresses: [Address {
                street: format!("{} {}", dice.between(2, 148), dice.pick(&STREETS)),
                city: town.name,
                state: town.county,
                zip: format!("{} {}AB", town.postcode, dice.between(1, 9)),
                country: "GBR",
            }],
            date_of_birth: stamp(born),
            update_timestamp: stamp(today),
        }
    }
}

/// The town `user` lives and shops in.
pub(crate) fn home_town(user: &MockUser) -> &'static str {
    TOWNS[town_index(user)].name
}

fn town_index(user: &MockUser) -> usize {
    usize::from(user.seed().child("town").bytes()[0]) % TOWNS.len()
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_user_for_ever_and_other_names_are_others() {
        let john = MockUser::named("john").unwrap();
        assert_eq!(john.credentials_id(), MockUser::named("john").unwrap().credentials_id());
        assert_ne!(john.credentials_id(), MockUser::named("jane").unwrap().credentials_id());
        assert_eq!(john.credentials_id().len(), 44);
        let today = jiff::civil::date(2026, 1, 1);
        assert_eq!(Holder::of(&john, today).full_name, "John Doe");
    }

    #[test]
    fn an_empty_an_endless_and_a_control_name_are_no_users() {
        for name in ["", "a\nb", &"x".repeat(129)] {
            assert!(MockUser::named(name).is_none());
        }
        assert!(MockUser::named("Zoë <&>").is_some());
    }
}
