//! How a believable person spends: where, how often, how much, and with which account or card.

use super::ledger::Purse;

/// One way of spending, rolled once a day.
pub(crate) struct Habit {
    /// Chance a day in permille: Monday to Thursday, Friday and Saturday, Sunday.
    pub(crate) permille: [i64; 3],
    pub(crate) purse: Purse,
    pub(crate) merchants: &'static [Merchant],
}

#[derive(Clone, Copy)]
pub(crate) struct Merchant {
    pub(crate) name: &'static str,
    /// As it stands on the statement; `#` becomes a branch number.
    pub(crate) text: &'static str,
    pub(crate) classification: &'static [&'static str],
    /// Smallest and largest amount in hundredths.
    pub(crate) amounts: (i64, i64),
}

const fn shop(
    name: &'static str,
    text: &'static str,
    classification: &'static [&'static str],
    low: i64,
    high: i64,
) -> Merchant {
    Merchant { name, text, classification, amounts: (low, high) }
}

const GROCERIES: &[&str] = &["Shopping", "Groceries"];
const COFFEE: &[&str] = &["Food & Dining", "Coffee shops"];
const FAST_FOOD: &[&str] = &["Food & Dining", "Fast Food"];
const RESTAURANTS: &[&str] = &["Food & Dining", "Restaurants"];
const PUBS: &[&str] = &["Food & Dining", "Alcohol & Bars"];
const PUBLIC_TRANSPORT: &[&str] = &["Auto & Transport", "Public transport"];
const FUEL: &[&str] = &["Auto & Transport", "Gas & Fuel"];
const CLOTHING: &[&str] = &["Shopping", "Clothing"];
const GENERAL: &[&str] = &["Shopping", "General"];
const HOME: &[&str] = &["Home", "Home Improvement"];
const PHARMACY: &[&str] = &["Health & Fitness", "Pharmacy"];
const ENTERTAINMENT: &[&str] = &["Entertainment", "Movies & DVDs"];
const TRAVEL: &[&str] = &["Travel", "Hotel"];
const FLIGHTS: &[&str] = &["Travel", "Air Travel"];

pub(crate) const HABITS: [Habit; 8] = [
    Habit {
        permille: [240, 420, 260],
        purse: Purse::Current,
        merchants: &[
            shop("Tesco", "TESCO STORES #", GROCERIES, 1_150, 7_480),
            shop("Sainsbury's", "SAINSBURYS S/MKT #", GROCERIES, 980, 6_250),
            shop("Lidl", "LIDL GB #", GROCERIES, 840, 4_630),
            shop("Co-op", "CO-OP FOOD #", GROCERIES, 320, 1_890),
        ],
    },
    Habit {
        permille: [230, 240, 120],
        purse: Purse::Current,
        merchants: &[
            shop("Pret A Manger", "PRET A MANGER", COFFEE, 295, 875),
            shop("Costa Coffee", "COSTA COFFEE #", COFFEE, 310, 640),
            shop("Greggs", "GREGGS PLC", FAST_FOOD, 225, 690),
        ],
    },
    Habit {
        permille: [280, 220, 60],
        purse: Purse::Current,
        merchants: &[
            shop("Trainline", "TRAINLINE.COM", PUBLIC_TRANSPORT, 640, 3_890),
            shop("City Buses", "CITY BUSES CONTACTLESS", PUBLIC_TRANSPORT, 200, 480),
        ],
    },
    Habit {
        permille: [30, 160, 110],
        purse: Purse::Visa,
        merchants: &[
            shop("Nando's", "NANDOS #", RESTAURANTS, 1_450, 4_890),
            shop("Pizza Express", "PIZZAEXPRESS #", RESTAURANTS, 1_680, 6_420),
            shop("The Crown", "THE CROWN PUB", PUBS, 580, 3_440),
            shop("Deliveroo", "DELIVEROO", FAST_FOOD, 1_240, 3_860),
        ],
    },
    Habit {
        permille: [80, 110, 90],
        purse: Purse::Visa,
        merchants: &[
            shop("Amazon", "AMAZON.CO.UK*#", GENERAL, 599, 6_499),
            shop("Marks & Spencer", "MARKS&SPENCER PLC", CLOTHING, 850, 7_900),
            shop("Boots", "BOOTS #", PHARMACY, 299, 2_450),
            shop("B&Q", "B & Q #", HOME, 640, 8_900),
            shop("Odeon", "ODEON CINEMAS", ENTERTAINMENT, 899, 2_697),
        ],
    },
    Habit {
        permille: [40, 60, 40],
        purse: Purse::Visa,
        merchants: &[
            shop("Shell", "SHELL #", FUEL, 2_500, 6_850),
            shop("BP", "BP FILLING STN #", FUEL, 2_000, 6_400),
        ],
    },
    Habit {
        permille: [14, 22, 18],
        purse: Purse::Amex,
        merchants: &[
            shop("John Lewis", "JOHN LEWIS #", GENERAL, 1_800, 16_500),
            shop("Premier Inn", "PREMIER INN #", TRAVEL, 5_900, 18_400),
            shop("easyJet", "EASYJET K#", FLIGHTS, 4_450, 21_300),
        ],
    },
    Habit {
        permille: [12, 40, 25],
        purse: Purse::Euro,
        merchants: &[
            shop("SNCF", "SNCF INTERNET", PUBLIC_TRANSPORT, 1_900, 8_700),
            shop("Carrefour", "CARREFOUR CITY #", GROCERIES, 640, 3_950),
            shop("Brasserie Lipp", "BRASSERIE LIPP PARIS", RESTAURANTS, 2_200, 7_400),
        ],
    },
];

/// A direct debit on the current account.
pub(crate) struct Bill {
    pub(crate) name: &'static str,
    /// Names the bill's seed: its mandate and its share of the amount.
    pub(crate) label: &'static str,
    pub(crate) classification: &'static [&'static str],
    pub(crate) day_of_month: i8,
    /// The usual amount in hundredths is drawn once from this; see `swing_percent`.
    pub(crate) amounts: (i64, i64),
    /// How far one payment may lie from the usual amount.
    pub(crate) swing_percent: i64,
}

const fn bill(
    name: &'static str,
    label: &'static str,
    classification: &'static [&'static str],
    day_of_month: i8,
    (low, high): (i64, i64),
    swing_percent: i64,
) -> Bill {
    Bill { name, label, classification, day_of_month, amounts: (low, high), swing_percent }
}

const UTILITIES: &[&str] = &["Bills and Utilities", "Utilities"];

pub(crate) const BILLS: [Bill; 7] = [
    bill("CITY COUNCIL TAX", "council tax", &["Taxes", "Local Tax"], 3, (10_800, 16_900), 0),
    bill("THAMES WATER", "water", UTILITIES, 5, (2_400, 4_100), 0),
    bill("OCTOPUS ENERGY", "energy", UTILITIES, 8, (7_800, 14_500), 18),
    bill("BT BROADBAND", "broadband", &["Bills and Utilities", "Internet"], 11, (2_799, 4_499), 0),
    bill("EE LIMITED", "mobile", &["Bills and Utilities", "Mobile Phone"], 14, (1_200, 3_200), 9),
    bill("PUREGYM LTD", "gym", &["Health & Fitness", "Gym"], 16, (1_999, 3_299), 0),
    bill(
        "AVIVA HOME INSURANCE",
        "insurance",
        &["Bills and Utilities", "Home Insurance"],
        22,
        (1_450, 2_900),
        0,
    ),
];

/// A monthly charge on the credit card.
pub(crate) const SUBSCRIPTIONS: [(Merchant, i8); 3] = [
    (shop("Netflix", "NETFLIX.COM", ENTERTAINMENT, 1_099, 1_099), 6),
    (shop("Spotify", "SPOTIFY P#", &["Entertainment", "Music"], 1_199, 1_199), 13),
    (shop("The Guardian", "GUARDIAN NEWS & MEDIA", &["Entertainment", "News"], 1_200, 1_200), 19),
];

pub(crate) const EMPLOYERS: [&str; 5] = [
    "NORTHFIELD ENGINEERING",
    "BRIGHTWATER SYSTEMS",
    "HARBOUR & LANE LLP",
    "ST ANNES NHS TRUST",
    "COPPER BEECH MEDIA",
];
pub(crate) const LANDLORDS: [&str; 4] =
    ["HARCOURT LETTINGS", "M J FENWICK", "OAKTREE PROPERTY MGMT", "S & R HOLDINGS"];
