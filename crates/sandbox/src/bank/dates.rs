//! `from` and `to`: every date form real clients send, contract.md section 1.
//!
//! A day means all of it in UTC, a date-time that instant; both ends belong to the range.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::error::{INVALID_DATE_RANGE, Refusal, VALIDATION_ERROR};

/// Which transactions are wanted; an absent end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

impl Range {
    /// From the values of the query parameters `from` and `to`, form-decoded.
    ///
    /// # Errors
    /// `validation_error` for what is no date, `invalid_date_range` when `from` is later than `to`.
    pub(crate) fn parse(from: Option<&str>, to: Option<&str>) -> Result<Self, Refusal> {
        let from = from.map(|text| parse("from", text)).transpose()?.map(When::first_instant);
        let to = to.map(|text| parse("to", text)).transpose()?.map(When::last_instant);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(INVALID_DATE_RANGE.into());
        }
        Ok(Self { from, to })
    }
}

#[derive(Clone, Copy, Debug)]
enum When {
    Day(Date),
    Instant(Timestamp),
}

impl When {
    fn first_instant(self) -> Timestamp {
        match self {
            Self::Day(day) => midnight(day),
            Self::Instant(instant) => instant,
        }
    }

    fn last_instant(self) -> Timestamp {
        match self {
            Self::Day(day) => in_utc(day.to_datetime(Time::MAX)),
            Self::Instant(instant) => instant,
        }
    }
}

fn parse(name: &str, text: &str) -> Result<When, Refusal> {
    read(text).ok_or_else(|| {
        let sentence =
            format!("The parameter '{name}' is not a date; write it as 2024-01-31 or 2024-01-31T23:59:59Z.");
        Refusal::because(VALIDATION_ERROR, sentence)
    })
}

fn read(text: &str) -> Option<When> {
    /// Of `2024-01-31T23:59`: an offset can only come after it.
    const SHORTEST_DATE_TIME: usize = 16;
    if text.len() > 64 || !text.is_ascii() || text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    if text.len() == 10 {
        return text.parse().ok().map(When::Day);
    }
    let (clock, offset) = text.split_at_checked(SHORTEST_DATE_TIME)?;
    // A raw `+` in a query decodes to a space; before an offset it can only have been a plus.
    let text = format!("{clock}{}", offset.replace(' ', "+"));
    let instant = text.parse::<Timestamp>().ok();
    // Without an offset: UTC, the zone of every timestamp the bank writes.
    instant.or_else(|| text.parse::<DateTime>().ok().map(in_utc)).map(When::Instant)
}

/// The first instant of a day.
pub(crate) fn midnight(day: Date) -> Timestamp {
    in_utc(day.to_datetime(Time::midnight()))
}

/// The day `instant` falls on.
pub(crate) fn day_of(instant: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(instant).date()
}

/// `2024-01-31T00:00:00Z`, the form of every timestamp in a body.
pub(crate) fn stamp(day: Date) -> String {
    format!("{day}T00:00:00Z")
}

fn in_utc(datetime: DateTime) -> Timestamp {
    // Fails only in the year 9999 and beyond, where the nearest instant does as well.
    TimeZone::UTC.to_timestamp(datetime).unwrap_or(Timestamp::MAX)
}

pub(crate) fn is_working_day(day: Date) -> bool {
    !matches!(day.weekday(), jiff::civil::Weekday::Saturday | jiff::civil::Weekday::Sunday)
}

/// Whether what is due on `day_of_month` (1 to 28) is collected on `day`: a weekend is made up for on
/// the Monday after it.
pub(crate) fn collected_on(day: Date, day_of_month: i8) -> bool {
    let reaches_back = if day.weekday() == jiff::civil::Weekday::Monday { 2 } else { 0 };
    is_working_day(day) && (0..=reaches_back).any(|days| shifted(day, -days).day() == day_of_month)
}

/// Whether what is due on `day_of_month` (1 to 28) is paid out on `day`: before a weekend, not after it.
pub(crate) fn paid_out_on(day: Date, day_of_month: i8) -> bool {
    let reaches_on = if day.weekday() == jiff::civil::Weekday::Friday { 2 } else { 0 };
    is_working_day(day) && (0..=reaches_on).any(|days| shifted(day, days).day() == day_of_month)
}

/// The first day from `day` on that is that day of a month.
pub(crate) fn next_on(day: Date, day_of_month: i8) -> Date {
    (0..31).map(|days| shifted(day, days)).find(|next| next.day() == day_of_month).unwrap_or(day)
}

/// The last day before `day` that is that day of a month.
pub(crate) fn last_before(day: Date, day_of_month: i8) -> Date {
    (1..=31).map(|days| shifted(day, -days)).find(|past| past.day() == day_of_month).unwrap_or(day)
}

pub(crate) fn shifted(day: Date, days: i64) -> Date {
    day.saturating_add(days.days())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn range(from: &str, to: &str) -> Range {
        Range::parse(Some(from), Some(to)).unwrap()
    }

    #[test]
    fn every_form_of_one_instant_is_that_instant() {
        let noon = Some("2024-01-31T12:00:00Z".parse().unwrap());
        for form in [
            "2024-01-31T12:00:00Z",
            "2024-01-31t12:00:00z",
            "2024-01-31T12:00:00.000Z",
            "2024-01-31T12:00:00.000000+00:00",
            "2024-01-31T13:00:00+01:00",
            "2024-01-31T13:00:00+0100",
            "2024-01-31T13:00:00 0100",
            "2024-01-31T13:00:00 01:00",
            "2024-01-31T06:30:00-0530",
            "2024-01-31 12:00:00",
            "2024-01-31T12:00:00",
            "2024-01-31T12:00Z",
        ] {
            assert_eq!(Range::parse(Some(form), None).unwrap().from, noon, "{form}");
            assert_eq!(Range::parse(None, Some(form)).unwrap().to, noon, "{form}");
        }
    }

    #[test]
    fn a_day_is_the_whole_day() {
        let day = range("2024-02-29", "2024-02-29");
        assert_eq!(day.from, Some("2024-02-29T00:00:00Z".parse().unwrap()));
        assert_eq!(day.to, Some("2024-02-29T23:59:59.999999999Z".parse().unwrap()));
    }

    #[test]
    fn what_is_no_date_is_a_validation_error() {
        for text in [
            "",
            "x",
            "2024",
            "2024-01",
            "2024-1-1",
            "2024-02-30",
            "2024-13-01",
            "31-01-2024",
            "20240131",
            "2024-01-31T",
            "2024-01-31T25:00:00Z",
            "2024-01-31T12:00:00+",
            "2024-01-31T12:00:00Zz",
            "2024-01-3é",
        ] {
            for refusal in [Range::parse(Some(text), None), Range::parse(None, Some(text))] {
                let refusal = refusal.expect_err(text);
                assert!(format!("{refusal:?}").contains("validation_error"), "{text}");
            }
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        assert_eq!(Range::parse(Some("2024-02-01"), Some("2024-01-31")), Err(INVALID_DATE_RANGE.into()));
        assert_eq!(
            range("2024-01-31T23:00:00Z", "2024-01-31").from,
            Some("2024-01-31T23:00:00Z".parse().unwrap())
        );
    }

    #[test]
    fn payments_due_on_a_weekend_move_to_a_working_day() {
        let saturday = date(2024, 6, 1);
        let collected: Vec<Date> =
            (0..5).map(|n| shifted(saturday, n)).filter(|day| collected_on(*day, 1)).collect();
        assert_eq!(collected, [date(2024, 6, 3)]);
        let paid: Vec<Date> =
            (-3..5).map(|n| shifted(saturday, n)).filter(|day| paid_out_on(*day, 1)).collect();
        assert_eq!(paid, [date(2024, 5, 31)]);
    }

    #[test]
    fn a_day_of_the_month_is_found_either_way() {
        assert_eq!(next_on(date(2024, 1, 31), 1), date(2024, 2, 1));
        assert_eq!(next_on(date(2024, 1, 28), 28), date(2024, 1, 28));
        assert_eq!(last_before(date(2024, 3, 1), 1), date(2024, 2, 1));
        assert_eq!(last_before(date(2024, 3, 4), 3), date(2024, 3, 3));
    }
}
