//! Numbers and reasons in sentences for people. Any room may name it; it names none.

use std::error::Error;

/// An error with its causes, each said once: many of our errors say their cause themselves.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

/// Days since 1970-01-01 to a date of the Gregorian calendar, counted in eras of 400 years
/// that begin in March, so that the leap day is the last day of a year.
pub(crate) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// A moment of the log's clock in UTC: `2026-01-31 12:34:56`.
pub(crate) fn human_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `60,123`.
pub(crate) fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.5 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failing {
        #[error("cannot read the file: {source}")]
        Saying { source: std::io::Error },
        #[error("starting")]
        Silent { source: Box<Failing> },
    }

    #[test]
    fn each_cause_is_said_once() {
        let saying = || Failing::Saying { source: std::io::Error::other("the disk is full") };
        assert_eq!(sentence(&saying()), "cannot read the file: the disk is full");
        let silent = Failing::Silent { source: Box::new(saying()) };
        assert_eq!(sentence(&silent), "starting: cannot read the file: the disk is full");
        let wrapped = anyhow::Error::from(saying()).context("starting");
        assert_eq!(sentence(wrapped.as_ref()), "starting: cannot read the file: the disk is full");
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(human_time(0), "1970-01-01 00:00:00");
        assert_eq!(human_time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(human_time(1_709_251_199_999), "2024-02-29 23:59:59");
        assert_eq!(human_time(4_107_542_400_000), "2100-03-01 00:00:00");
    }
}
