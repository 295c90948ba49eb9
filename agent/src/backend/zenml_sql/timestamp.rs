//! Naive UTC timestamps as ZenML (SQLAlchemy on SQLite) writes them: `YYYY-MM-DD HH:MM:SS.ffffff`. On MySQL they have
//! whole seconds; here these have six zeros.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Returns the time now.
pub(super) fn now() -> String {
    write(utc(Timestamp::now()))
}

/// Returns the time now, or one that differs from `before` if the clock stands there still.
pub(super) fn now_unlike(before: &str) -> String {
    let now = now();
    if now != before {
        return now;
    }
    let later = parse(&now).and_then(|time| time.checked_add(SignedDuration::from_micros(1)).ok());
    later.map_or(now, write)
}

/// The same for a column of whole seconds, which both then lack a part of.
pub(super) fn now_in_whole_seconds(before: Option<&str>) -> String {
    let mut time = whole_second(utc(Timestamp::now()));
    if before.and_then(parse).is_some_and(|before| before == time) {
        time = time.checked_add(SignedDuration::from_secs(1)).unwrap_or(time);
    }
    write(time)
}

/// Returns `text` with six digits of a second, where it has none or fewer.
pub(super) fn whole(text: String) -> String {
    const LENGTH: usize = "YYYY-MM-DD HH:MM:SS".len();
    match text.len().checked_sub(LENGTH) {
        Some(0) if parse(&text).is_some() => text + ".000000",
        Some(2..7) if text.is_ascii() && parse(&text).is_some() => format!("{text:0<26}"),
        _ => text,
    }
}

fn whole_second(time: DateTime) -> DateTime {
    DateTime::from_parts(time.date(), jiff::civil::Time::constant(time.hour(), time.minute(), time.second(), 0))
}

/// Returns how long ago `text` was; `None` when it is no timestamp or lies in the future.
pub(super) fn age(text: &str) -> Option<Duration> {
    utc(Timestamp::now()).duration_since(parse(text)?).try_into().ok()
}

/// Returns `text` in fewer characters, a different one for each; `None` when it is not written as ZenML writes it.
///
/// Microseconds since 1970 in base 36: versions hold it, and a cache holds many versions.
pub(super) fn short(text: &str) -> Option<String> {
    let time = parse(text).filter(|time| write(*time) == text)?;
    let mut rest = u64::try_from(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond()).ok()?;
    let mut digits = Vec::new();
    loop {
        digits.push(u32::try_from(rest % 36).ok().and_then(|digit| char::from_digit(digit, 36))?);
        rest /= 36;
        if rest == 0 {
            return Some(digits.into_iter().rev().collect());
        }
    }
}

fn utc(timestamp: Timestamp) -> DateTime {
    timestamp.to_zoned(TimeZone::UTC).datetime()
}

fn parse(text: &str) -> Option<DateTime> {
    text.parse().ok()
}

fn write(time: DateTime) -> String {
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.subsec_nanosecond() / 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_has_six_digits_of_a_second() {
        let check = |text: &str, expected: &str| assert_eq!(write(parse(text).expect("a time")), expected);
        check("2026-11-22 19:09:05.905544", "2026-11-22 19:09:05.905544");
        check("2026-01-02T03:04:05", "2026-01-02 03:04:05.000000");
        check("2026-01-02 03:04:05.000001999", "2026-01-02 03:04:05.000001");
    }

    #[test]
    fn a_short_timestamp_is_another_for_each_time_and_only_of_what_zenml_writes() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(short(text).as_deref(), expected, "{text}");
        check("1970-01-01 00:00:00.000000", Some("0"));
        check("1970-01-01 00:00:00.000037", Some("11"));
        check("2026-11-22 19:09:05.905544", Some("hoenohfnuw"));
        check("2026-11-22 19:09:05.905545", Some("hoenohfnux"));
        check("2026-11-22 19:09:05.9055449", None);
        check("2026-11-22T19:09:05.905544", None);
        check("1969-12-31 23:59:59.999999", None);
        check("", None);
    }

    #[test]
    fn fewer_digits_of_a_second_are_filled_up() {
        let check = |text: &str, expected: &str| assert_eq!(whole(text.to_owned()), expected);
        check("2026-11-22 19:09:05", "2026-11-22 19:09:05.000000");
        check("2026-11-22 19:09:05.9", "2026-11-22 19:09:05.900000");
        check("2026-11-22 19:09:05.905544", "2026-11-22 19:09:05.905544");
        check("2026-01-01", "2026-01-01");
        check("", "");
        check("no time at all, not", "no time at all, not");
    }

    #[test]
    fn two_changes_within_a_second_still_differ() {
        let now = now_in_whole_seconds(None);
        assert!(now.ends_with(".000000"), "{now}");
        let later = now_in_whole_seconds(Some(&now));
        assert!(later > now && later.ends_with(".000000"), "{now} {later}");
    }

    #[test]
    fn two_changes_never_have_one_timestamp() {
        assert_ne!(now_unlike("2026-11-22 19:09:05.905544"), "2026-11-22 19:09:05.905544");
        for _ in 0..1000 {
            let before = now();
            assert_ne!(now_unlike(&before), before);
        }
    }

    #[test]
    fn the_age_of_the_future_is_unknown() {
        assert!(age(&now()).is_some_and(|age| age < Duration::from_secs(60)));
        assert_eq!(age("9999-01-01 00:00:00.000000"), None);
        assert_eq!(age("yesterday"), None);
    }
}
