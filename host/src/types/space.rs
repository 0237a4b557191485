//! How much room a disk has left.

/// What a node can do with the space that its disk has left. Less room is more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// Whatever comes.
    #[default]
    Ample = 0,
    /// No new commands: what is left is for what keeps the group together, and for what frees space.
    Low = 1,
    /// Next to nothing is written.
    Critical = 2,
}

impl Space {
    /// In the order of their numbers.
    pub const ALL: [Space; 3] = [Space::Ample, Space::Low, Space::Critical];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Space::Ample => "ample",
            Space::Low => "low",
            Space::Critical => "critical",
        }
    }
}
