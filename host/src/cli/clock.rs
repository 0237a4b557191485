//! `raft-host clock`: the log's clock, how those of the nodes stand to it, and putting it forward.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, human_time, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// Shows the log's clock, which guests see and sessions expire by, and puts it forward.
///
/// It follows what the clocks of most voters agree on; one wrong clock makes no difference.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct ClockArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows the log's clock and how far the nodes' clocks are off (the default).
    Show,
    /// Puts the log's clock forward on all nodes at the same index of the log. It is never put
    /// back.
    ///
    /// For when the clocks of most voters cannot agree, or to try what a state machine does later.
    /// Sessions that would have expired by then end. If the nodes' clocks do not show that time,
    /// the log's clock goes on from there at half the speed until they do.
    Set {
        /// `now` (what this machine's clock shows), `+90s` or `+2h` (from what the log's clock
        /// shows), `2026-01-31T12:34:56Z`, or milliseconds since 1970.
        #[arg(value_name = "TIME", value_parser = parse_target)]
        target: Target,
        /// Set it: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Now,
    Later(Duration),
    At(u64),
}

fn parse_target(text: &str) -> Result<Target, String> {
    if text == "now" {
        return Ok(Target::Now);
    }
    if let Some(later) = text.strip_prefix('+') {
        return remote::parse_duration(later).map(Target::Later);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let ms = text.parse().map_err(|_| format!("{text} is more than 64 bits hold"))?;
        return Ok(Target::At(ms));
    }
    parse_date(text).map(Target::At).ok_or_else(|| {
        format!(
            "{text:?} is not a time: write now, +90s, +2h, 2026-01-31T12:34:56Z, or milliseconds \
             since 1970"
        )
    })
}

/// `2026-01-31T12:34:56Z`, or with a space instead of `T`: in UTC (RFC 3339 without fractions).
fn parse_date(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' '])?;
    let number = |digits: &str, width: usize| -> Option<u64> {
        let is_it = digits.len() == width && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_it.then(|| digits.parse().ok())?
    };
    let mut date = date.splitn(3, '-');
    let (year, month, day) =
        (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let mut time = time.splitn(3, ':');
    let (hour, minute, second) =
        (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years begin in March, so that the leap day is the last day of a year.
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + day_of_year;
    let ms = ((days.checked_sub(719_468)? * 24 + hour) * 60 + minute) * 60_000 + second * 1_000;
    // A day that its month does not have comes back as another one.
    human_time(ms).starts_with(&format!("{year:04}-{month:02}-{day:02}")).then_some(ms)
}

fn here_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(super) fn run(args: &ClockArgs) -> Ended {
    match &args.action {
        None | Some(Action::Show) => show(&args.remote),
        Some(Action::Set { target, yes }) => set(&args.remote, *target, *yes),
    }
}

fn show(remote: &RemoteArgs) -> Ended {
    let status = remote::block_on(async {
        let client = remote.client().await?;
        client.status().await.map_err(|error| remote::failed_question(&error))
    })?;
    let group = status.group("").cloned().unwrap_or_default();
    let clock = group.clock.unwrap_or_default();
    match remote.output {
        Output::Json => {
            let mut value = to_json(&clock);
            value["node_id"] = json!(status.node_id);
            value["time_ms"] = json!(group.time_ms);
            print_json(&value)?;
        }
        Output::Table => print_text(&to_text(status.node_id, group.time_ms, &clock))?,
    }
    Ok(Exit::Done)
}

fn set(remote: &RemoteArgs, target: Target, yes: bool) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        let status = client.status().await.map_err(|error| remote::failed_question(&error))?;
        let current = status.group("").map_or(0, |group| group.time_ms);
        let time_ms = match target {
            Target::Now => here_ms(),
            Target::At(ms) => ms,
            Target::Later(by) => current.saturating_add(by.as_millis() as u64),
        };
        if !yes {
            return Err(Failure::new(unconfirmed(current, time_ms)));
        }
        client.set_clock(time_ms).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("setting the log's clock"))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "time_ms": answer.time_ms,
            "previous_ms": answer.previous_ms,
        }))?,
        Output::Table => print_text(&format!(
            "set at index {}: the log's clock shows {} (before: {})",
            answer.index,
            human_time(answer.time_ms),
            human_time(answer.previous_ms)
        ))?,
    }
    Ok(Exit::Done)
}

fn unconfirmed(current_ms: u64, wanted_ms: u64) -> String {
    format!(
        "nothing was changed. The log's clock would go from {} to {}. Sessions that would have \
         expired by then end, and guests see that time; there is no way back. Then say so with --yes",
        human_time(current_ms),
        human_time(wanted_ms)
    )
}

/// Also part of `status -o json`.
pub(super) fn to_json(clock: &v1::ClockStatus) -> Value {
    json!({
        "log_time_ms": clock.log_time_ms,
        "offset_ms": clock.offset_ms,
        "agreed": clock.agreed,
        "log_ahead_ms": clock.log_ahead_ms,
        "members": clock.members.iter().map(|member| json!({
            "node_id": member.node_id,
            "offset_ms": member.offset_ms,
        })).collect::<Vec<_>>(),
        "alarm": clock.alarm,
    })
}

fn offset(ms: i64) -> String {
    let by = Duration::from_millis(ms.unsigned_abs());
    let by = super::output::human_duration(by);
    if ms < 0 { format!("{by} behind") } else { format!("{by} ahead") }
}

fn to_text(node: u64, applied_ms: u64, clock: &v1::ClockStatus) -> String {
    let mut lines = vec![
        format!("log's clock      {} (at the last entry)", human_time(applied_ms)),
        format!("an entry now     {}", human_time(clock.log_time_ms)),
    ];
    let own = clock.offset_ms.map_or("not known".to_owned(), offset);
    lines.push(format!("clock of node {node}  {own}"));
    for member in &clock.members {
        lines.push(format!("clock of node {}  {}", member.node_id, offset(member.offset_ms)));
    }
    match clock.agreed {
        Some(true) => lines.push("the clocks of most voters agree".to_owned()),
        Some(false) => lines.push("the clocks of most voters do NOT agree".to_owned()),
        None => lines.push("ask the leader for what all clocks show".to_owned()),
    }
    if !clock.alarm.is_empty() {
        lines.push(format!("ALARM: {}", clock.alarm));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_target("now"), Ok(Target::Now));
        assert_eq!(parse_target("+90s"), Ok(Target::Later(Duration::from_secs(90))));
        assert_eq!(parse_target("1700000000000"), Ok(Target::At(1_700_000_000_000)));
        for ms in [0, 951_782_400_000, 1_709_251_199_000, 1_700_000_000_000, 253_402_300_799_000] {
            let text = human_time(ms);
            assert_eq!(parse_target(&text), Ok(Target::At(ms)), "{text}");
            let text = format!("{}Z", text.replace(' ', "T"));
            assert_eq!(parse_target(&text), Ok(Target::At(ms)), "{text}");
        }
        for nonsense in [
            "",
            "later",
            "+",
            "-5s",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01",
            "1969-12-31T23:59:59Z",
            "99999999999999999999",
            "2026-00-00T00:00:00Z",
            "20é6-01-01T00:00:00Z",
        ] {
            assert!(parse_target(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn the_text_says_whose_clock_is_off_and_what_to_look_at() {
        let clock = v1::ClockStatus {
            log_time_ms: 1_700_000_000_000,
            offset_ms: Some(-90_000),
            agreed: Some(true),
            log_ahead_ms: Some(0),
            members: vec![v1::MemberClock { node_id: 2, offset_ms: 3 }],
            alarm: "this node's clock is behind".to_owned(),
        };
        let text = to_text(1, 1_700_000_000_000, &clock);
        for words in ["node 1  1m 30s behind", "node 2  3ms ahead", "most voters agree", "ALARM"] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        assert_eq!(to_json(&clock)["offset_ms"], -90_000);
    }
}
