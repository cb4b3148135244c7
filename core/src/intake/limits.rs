//! What an intake and a room may hold, and what becomes of a send that finds no room.

use std::time::Duration;

use crate::client::Context;

/// What an intake may hold, counted from the push to the end of the call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls under way.
    pub calls: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The deadline of a call that names none.
    pub deadline: Duration,
    /// Whose bound it is.
    pub of: Whose,
}

/// Whose sends are bounded, and what becomes of one that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whose {
    /// A client's: a send waits, and a submit was counted when it was taken.
    #[default]
    Client,
    /// A member's, of which nobody has counted anything: a send waits.
    Member,
    /// The same of a member beside others that a message can go to: a send is refused at once.
    Spared,
}

impl Limits {
    /// Whether a send that finds no room waits for it.
    pub fn waits(&self, ctx: &Context) -> bool {
        self.of != Whose::Spared && !ctx.fails_when_disconnected()
    }

    /// Whether room for a call was counted before.
    pub(super) fn counted(&self, ctx: &Context) -> bool {
        self.of == Whose::Client && ctx.has_room()
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { calls: 65_536, bytes: 256 << 20, deadline: Duration::from_secs(30), of: Whose::Client }
    }
}
