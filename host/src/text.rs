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
}
