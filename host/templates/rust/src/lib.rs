//! A counter: commands are decimal numbers, which are added; an empty query gives the sum.

use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Writer};

const NOT_A_NUMBER: &str = "a command is a decimal number of at most 18 digits, such as 5 or -3";

/// All state: what is not in here does not survive an upgrade or a restart.
#[derive(Default)]
struct Counter {
    sum: i64,
}

impl StateMachine for Counter {
    /// Only the log decides: take time and randomness from the context, everything else from the command.
    fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        let number = parse(command).ok_or(NOT_A_NUMBER)?;
        // Rejected means unchanged: check first, change after.
        self.sum = self.sum.checked_add(number).ok_or("the counter would overflow")?;
        Ok(self.sum.to_string().into())
    }

    fn query(&self, _: &Context, question: &[u8]) -> Result<Answer, Rejection> {
        match question {
            [] => Ok(self.sum.to_string().into()),
            _ => Err("a query of the counter is empty".into()),
        }
    }

    /// Snapshots are versioned: the 1 of the magic. A later release must read what this one wrote.
    fn snapshot(&self, _: &Context, out: &mut Writer) {
        out.bytes(b"CNT1");
        out.bytes(&self.sum.to_le_bytes());
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Counter, Rejection> {
        let mut magic = [0; 4];
        input.fill(&mut magic)?;
        if &magic != b"CNT1" {
            return Err("not a snapshot of the counter".into());
        }
        let mut sum = [0; 8];
        input.fill(&mut sum)?;
        input.end()?;
        Ok(Counter { sum: i64::from_le_bytes(sum) })
    }
}

raft_fsm_sdk::export!(Counter);

fn parse(command: &[u8]) -> Option<i64> {
    let digits = command.strip_prefix(b"-").unwrap_or(command);
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(command).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_fsm_sdk::testing::{RestoreProperty, Runner};

    #[test]
    fn numbers_add_up() {
        let mut node = Runner::<Counter>::new();
        assert_eq!(node.apply_text("5").as_deref(), Ok("5"));
        assert_eq!(node.apply_text("-3").as_deref(), Ok("2"));
        assert_eq!(node.query_text("").as_deref(), Ok("2"));
    }

    #[test]
    fn what_is_no_number_is_rejected() {
        let mut node = Runner::<Counter>::new();
        for command in ["", "-", "five", "+5", "1 2", "1234567890123456789"] {
            assert_eq!(node.apply_text(command), Err(NOT_A_NUMBER.to_string()), "{command:?}");
        }
    }

    #[test]
    fn the_sum_survives_an_upgrade_and_a_foreign_snapshot_is_refused() {
        let mut node = Runner::<Counter>::new();
        node.apply_text("999999999999999999").unwrap();
        let mut upgraded = Runner::<Counter>::restored(&node.snapshot()).unwrap();
        assert_eq!(upgraded.query_text("").as_deref(), Ok("999999999999999999"));
        assert!(upgraded.restore(b"CNT1short").is_err());
        assert!(upgraded.restore(b"CNT2\0\0\0\0\0\0\0\0").is_err());
        assert_eq!(upgraded.query_text("").as_deref(), Ok("999999999999999999"));
    }

    #[test]
    fn a_restored_counter_behaves_as_the_original() {
        let property = RestoreProperty::<Counter>::new().query("");
        property.holds_for_random(50, |random| random.below(1_000).to_string());
    }
}
