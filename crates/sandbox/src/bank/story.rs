//! The mock user's life, day by day from 2022-01-01: salary, rent, bills, shopping, savings.
//!
//! Pure. A day depends on the user's seed, its date and the days before it, never on the day it is told:
//! what was booked once stays booked, with the same ids, however much later one asks.

use jiff::civil::Date;

use super::dates::{collected_on, is_working_day, paid_out_on, shifted};
use super::habits::{BILLS, Bill, EMPLOYERS, HABITS, LANDLORDS, Merchant, SUBSCRIPTIONS};
use super::ledger::{Category, Event, Ledgers, Line, Purse};
use super::money::Money;
use super::seed::{Dice, Seed};

pub(crate) const FIRST_DAY: Date = Date::constant(2022, 1, 1);
/// A story stops here at the latest, so that a wrong clock costs no endless loop.
const LAST_DAY: Date = Date::constant(2099, 12, 31);

pub(crate) const RENT_DAY: i8 = 1;
pub(crate) const SAVING_DAY: i8 = 2;
/// A card's statement closes on the first of these days and is paid in full on the second.
pub(crate) const STATEMENT_DAY: i8 = 4;
pub(crate) const CARD_PAYMENT_DAY: i8 = 18;
const SWEEP_DAY: i8 = 27;

/// What was drawn once for this person.
pub(crate) struct Plan {
    pub(crate) rent: Money,
    pub(crate) landlord: &'static str,
    pub(crate) saving: Money,
    salary: Money,
    payday: i8,
    employer: &'static str,
    branch: i64,
    town: String,
    references: Vec<String>,
}

/// A life up to yesterday, and what is under way today.
pub(crate) struct Story {
    pub(crate) plan: Plan,
    pub(crate) ledgers: Ledgers,
    today: Ledgers,
}

impl Plan {
    fn draw(seed: &Seed, town: &str) -> Self {
        let mut dice = seed.child("plan").dice();
        let salary = dice.between(2_450, 3_900) * 100;
        Self {
            rent: Money(salary * dice.between(28, 34) / 100 / 500 * 500),
            landlord: dice.pick(&LANDLORDS),
            saving: Money(dice.between(2, 6) * 2_500),
            salary: Money(salary + dice.between(0, 99)),
            payday: i8::try_from(dice.between(23, 26)).unwrap_or(25),
            employer: dice.pick(&EMPLOYERS),
            branch: dice.between(2_000, 6_900),
            town: town.to_uppercase(),
            references: BILLS.iter().map(|bill| reference(seed, bill.label)).collect(),
        }
    }

    /// The reference of a bill's mandate, by its place in [`BILLS`].
    pub(crate) fn bill_reference(&self, index: usize) -> &str {
        &self.references[index]
    }

    /// The rent of that day: 3 % more each January, in whole pounds.
    pub(crate) fn rent_on(&self, day: Date) -> Money {
        Money(raised(self.rent, day.year()).0 / 100 * 100)
    }
}

/// The reference that a mandate's payments carry.
pub(crate) fn reference(seed: &Seed, label: &str) -> String {
    seed.child(label).hex(10).to_uppercase()
}

/// The reference under which a card's bill is collected from the current account.
pub(crate) fn card_reference(card: Purse) -> &'static str {
    if card == Purse::Amex { "AMEX CARD PAYMENT" } else { "VISA CARD PAYMENT" }
}

fn raised(amount: Money, year: i16) -> Money {
    (FIRST_DAY.year()..year).fold(amount, |amount, _| Money(amount.0 * 103 / 100))
}

impl Story {
    /// The life of the owner of `seed`, up to the day before `today`.
    pub(crate) fn tell(seed: &Seed, town: &str, today: Date) -> Self {
        let mut life = Life { seed, plan: Plan::draw(seed, town), ledgers: Ledgers::default() };
        life.open();
        let mut day = FIRST_DAY;
        while day < today.min(LAST_DAY) {
            life.live(day);
            day = shifted(day, 1);
        }
        let booked = Purse::ACCOUNTS.into_iter().chain(Purse::CARDS);
        let lengths: Vec<(Purse, usize)> =
            booked.map(|purse| (purse, life.ledgers.of(purse).lines.len())).collect();
        life.live(today);
        let mut pending = Ledgers::default();
        for (purse, length) in lengths {
            pending.of_mut(purse).lines = life.ledgers.of_mut(purse).lines.split_off(length);
        }
        Self { plan: life.plan, ledgers: life.ledgers, today: pending }
    }

    /// What today's shopping has reserved: tomorrow the same lines are booked.
    pub(crate) fn pending(&self, purse: Purse) -> impl Iterator<Item = &Line> {
        self.today.of(purse).lines.iter().filter(|line| line.event.category == Category::Purchase)
    }
}

struct Life<'a> {
    seed: &'a Seed,
    plan: Plan,
    ledgers: Ledgers,
}

impl Life<'_> {
    fn open(&mut self) {
        let mut dice = self.seed.child("opening").dice();
        for (purse, low, high) in
            [(Purse::Current, 900, 2_400), (Purse::Savings, 2_500, 14_000), (Purse::Euro, 350, 1_900)]
        {
            let event = Event::new("TRANSFER FROM PREVIOUS BANK", Category::Transfer);
            self.ledgers.receive(FIRST_DAY, purse, Money(dice.between(low * 100, high * 100)), event);
        }
    }

    fn live(&mut self, day: Date) {
        let mut dice = self.seed.child(&day.to_string()).dice();
        self.income(day, &mut dice);
        self.standing_orders(day);
        for (index, bill) in BILLS.iter().enumerate() {
            self.bill(day, index, bill, &mut dice);
        }
        self.card_payments(day);
        self.shopping(day, &mut dice);
        self.savings(day);
    }

    fn income(&mut self, day: Date, dice: &mut Dice) {
        if paid_out_on(day, self.plan.payday) {
            let event = Event::new(format!("{} SALARY", self.plan.employer), Category::Credit)
                .classified(&["Income", "Paycheck"])
                .with_reference("SALARY");
            self.ledgers.receive(day, Purse::Current, raised(self.plan.salary, day.year()), event);
        }
        if paid_out_on(day, 12) {
            let event = Event::new("ATELIER LUMIERE SARL INVOICE", Category::Credit)
                .classified(&["Income", "Freelance"])
                .with_reference(&format!("INV-{}-{:02}", day.year(), day.month()));
            self.ledgers.receive(day, Purse::Euro, Money(dice.between(90, 260) * 100), event);
        }
        if day == day.last_of_month() {
            let yearly = self.ledgers.of(Purse::Savings).balance().0.max(0) * 3 / 100;
            let event =
                Event::new("GROSS INTEREST", Category::Interest).classified(&["Income", "Interest Income"]);
            self.ledgers.receive(day, Purse::Savings, Money(yearly / 12), event);
        }
    }

    fn standing_orders(&mut self, day: Date) {
        if collected_on(day, RENT_DAY) {
            let event = Event::new(self.plan.landlord, Category::StandingOrder)
                .classified(&["Home", "Mortgage & Rent"])
                .with_reference("RENT");
            self.ledgers.spend(day, Purse::Current, self.plan.rent_on(day), event);
        }
        if collected_on(day, SAVING_DAY) {
            self.save(day, self.plan.saving, Category::StandingOrder, "RAINY DAY");
        }
    }

    fn bill(&mut self, day: Date, index: usize, bill: &Bill, dice: &mut Dice) {
        // Council tax is paid in ten instalments, April to January.
        let pause = bill.label == "council tax" && [2, 3].contains(&day.month());
        if !collected_on(day, bill.day_of_month) || pause {
            return;
        }
        let usual = self.seed.child(bill.label).dice().between(bill.amounts.0, bill.amounts.1);
        let swing = usual * bill.swing_percent / 100;
        let amount = raised(Money(dice.between(usual - swing, usual + swing)), day.year());
        let event = Event::new(bill.name, Category::DirectDebit)
            .classified(bill.classification)
            .with_reference(self.plan.bill_reference(index));
        self.ledgers.spend(day, Purse::Current, amount, event);
    }

    fn card_payments(&mut self, day: Date) {
        if !collected_on(day, CARD_PAYMENT_DAY) {
            return;
        }
        for card in Purse::CARDS {
            let owed = self.ledgers.of(card).balance_on(super::dates::last_before(day, STATEMENT_DAY));
            if owed.0 <= 0 {
                continue;
            }
            let name = if card == Purse::Amex { "AMERICAN EXPRESS" } else { "MOCK BANK VISA" };
            let debit = Event::new(name, Category::DirectDebit)
                .classified(&["Transfer", "Credit Card Payment"])
                .with_reference(card_reference(card));
            self.ledgers.spend(day, Purse::Current, owed, debit);
            let thanks = Event::new("PAYMENT RECEIVED - THANK YOU", Category::Credit);
            self.ledgers.receive(day, card, owed, thanks);
        }
    }

    fn shopping(&mut self, day: Date, dice: &mut Dice) {
        let kind = match day.weekday() {
            jiff::civil::Weekday::Friday | jiff::civil::Weekday::Saturday => 1,
            jiff::civil::Weekday::Sunday => 2,
            _ => 0,
        };
        for habit in &HABITS {
            // A wallet without money stays shut: nobody buys abroad on an empty euro account.
            let shut = habit.purse == Purse::Euro && self.ledgers.of(Purse::Euro).balance().0 < 10_000;
            if dice.chance(habit.permille[kind]) && !shut {
                let merchant = dice.pick(habit.merchants);
                self.buy(day, habit.purse, &merchant, dice);
            }
        }
        for (merchant, day_of_month) in &SUBSCRIPTIONS {
            if day.day() == *day_of_month {
                self.buy(day, Purse::Visa, merchant, dice);
            }
        }
        if dice.chance(28) {
            let amount = Money(dice.between(1, 8) * 1_000);
            let event = Event::new(format!("CASH {} HIGH ST", self.plan.town), Category::Atm)
                .classified(&["Uncategorized", "Cash & ATM"]);
            self.ledgers.spend(day, Purse::Current, amount, event);
        }
    }

    fn buy(&mut self, day: Date, purse: Purse, merchant: &Merchant, dice: &mut Dice) {
        let branch = (self.plan.branch + i64::try_from(merchant.name.len()).unwrap_or(0) * 37).to_string();
        let mut text = merchant.text.replace('#', &branch);
        if merchant.text.ends_with(" #") {
            text = format!("{text} {}", self.plan.town);
        }
        let event =
            Event::new(text, Category::Purchase).classified(merchant.classification).at(merchant.name);
        let amount = Money(dice.between(merchant.amounts.0, merchant.amounts.1));
        self.ledgers.spend(day, purse, amount, event);
    }

    /// Keeps the current account believable: spare money moves to savings once a month, and comes back
    /// when little is left.
    fn savings(&mut self, day: Date) {
        let balance = self.ledgers.of(Purse::Current).balance().0;
        let keep = raised(self.plan.salary, day.year()).0 * 5 / 4;
        if collected_on(day, SWEEP_DAY) && balance > keep + 5_000 {
            self.save(day, Money((balance - keep) / 5_000 * 5_000), Category::Transfer, "SPARE");
        }
        let saved = self.ledgers.of(Purse::Savings).balance().0;
        let missing = Money(((30_000 - balance) / 5_000 + 1) * 5_000);
        if is_working_day(day) && balance < 10_000 && saved > missing.0 {
            let event = |text: &str| Event::new(text, Category::Transfer).with_reference("TOP UP");
            self.ledgers.spend(day, Purse::Savings, missing, event("TRANSFER TO CURRENT ACCOUNT"));
            self.ledgers.receive(day, Purse::Current, missing, event("TRANSFER FROM SAVINGS"));
        }
    }

    fn save(&mut self, day: Date, amount: Money, category: Category, reference: &str) {
        let out = Event::new("TRANSFER TO SAVINGS", category).with_reference(reference);
        let into = Event::new("TRANSFER FROM CURRENT ACCOUNT", Category::Transfer).with_reference(reference);
        self.ledgers.spend(day, Purse::Current, amount, out.classified(&["Transfer", "Savings"]));
        self.ledgers.receive(day, Purse::Savings, amount, into.classified(&["Transfer", "Savings"]));
    }
}
