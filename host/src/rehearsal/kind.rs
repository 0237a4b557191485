//! What two modules may differ in.

/// A kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One of the modules traps where the other does not, or otherwise.
    Trap,
    /// Both answer, and not the same.
    Reply,
    /// One rejects what the other does not, or for another reason.
    Rejected,
    /// Both answer, and emit other events.
    Event,
    /// A query has another answer.
    Query,
    /// The new module's `check` finds its own state wrong.
    State,
    /// The new module does not take the state over, or not in the same way each time.
    Migration,
    /// Commands use much more fuel.
    Fuel,
    /// The guest needs much more memory.
    Memory,
}

impl Kind {
    /// Every kind, in the order in which they are told.
    pub const ALL: [Kind; 9] = [
        Kind::Trap,
        Kind::Reply,
        Kind::Rejected,
        Kind::Event,
        Kind::Query,
        Kind::State,
        Kind::Migration,
        Kind::Fuel,
        Kind::Memory,
    ];

    /// Its name in reports, JSON and allowances.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Trap => "trap",
            Kind::Reply => "reply",
            Kind::Rejected => "rejected",
            Kind::Event => "event",
            Kind::Query => "query",
            Kind::State => "state",
            Kind::Migration => "migration",
            Kind::Fuel => "fuel",
            Kind::Memory => "memory",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is about commands, which have classes.
    pub fn is_of_commands(self) -> bool {
        matches!(self, Kind::Trap | Kind::Reply | Kind::Rejected | Kind::Event)
    }

    /// Whether it is about how much, so that what is allowed is a ratio.
    pub fn is_measured(self) -> bool {
        matches!(self, Kind::Fuel | Kind::Memory)
    }
}
