//! What goes beyond a bound, as it is told from the room that has the bound to the person.

/// A bound, and what would have gone beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The bound's name: that of a setting, a limit of the guest's, or a constant.
    pub limit: &'static str,
    /// What was asked for, or would have been reached.
    pub value: u64,
    /// The most that is allowed.
    pub max: u64,
}
