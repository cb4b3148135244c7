//! What a store keeps: rows, and what is asked of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;

/// Milliseconds since 1970.
pub type Millis = i64;

/// The due time of what waits for something else than the clock.
pub const NEVER: Millis = i64::MAX;

/// A row's number: later rows have larger ones, and none is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u64);

impl std::fmt::Display for RowId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What has become of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its next attempt.
    Pending = 0,
    /// Somebody is sending it, until the lease ends.
    Leased = 1,
    /// It was sent, and is kept for a while.
    Done = 2,
    /// It was given up.
    Dead = 3,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [State; 4] = [State::Pending, State::Leased, State::Done, State::Dead];

    /// The name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Leased => "leased",
            State::Done => "done",
            State::Dead => "dead",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state with this number.
    pub fn numbered(number: i64) -> Option<State> {
        State::ALL.into_iter().find(|state| *state as i64 == number)
    }
}

/// A message as bytes; see [`super::stored`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its fields as JSON; none for a body alone.
    pub head: Option<String>,
    /// The body, and behind it those of attachments.
    pub body: Bytes,
    /// The number that all its attempts have in common.
    pub number: u64,
    /// Its delay in milliseconds, counted from when it was accepted.
    pub delay: Millis,
}

impl StoredMessage {
    /// Bytes in all.
    pub fn size(&self) -> u64 {
        (self.body.len() + self.head.as_ref().map_or(0, String::len)) as u64
    }

    /// Bytes of the body itself, without the attachments behind it.
    pub fn own(&self) -> usize {
        super::stored::own_length(self)
    }
}

/// How a row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// To be claimed from `due` on.
    Pending {
        /// When.
        due: Millis,
    },
    /// The same for one that comes from elsewhere: where it is known, what is known stays as it is.
    Restored {
        /// When.
        due: Millis,
    },
    /// Claimed by who inserts it.
    Leased {
        /// When the lease ends.
        until: Millis,
    },
    /// As it was where it came from.
    Ended {
        /// Done or dead.
        state: State,
    },
}

/// A row to insert.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The client that sends it.
    pub producer: Arc<str>,
    /// What is sent.
    pub message: StoredMessage,
    /// Where to, for those who read the list.
    pub topic: Option<String>,
    /// Rows of a producer with the same key are sent one after the other.
    pub order_key: Option<String>,
    /// Of rows of a producer with the same one only the first is kept.
    pub dedup: Option<String>,
    /// When the message was accepted.
    pub accepted: Millis,
    /// Now.
    pub now: Millis,
    /// Attempts that failed.
    pub attempts: u32,
    /// Why the last one did, as JSON.
    pub error: Option<String>,
    /// How it begins.
    pub start: Start,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The row: the one that was there where the dedup key was known.
    pub id: RowId,
    /// The token of the lease, for [`Start::Leased`]; no earlier row had it.
    pub token: u64,
    /// Whether it is a new row.
    pub fresh: bool,
}

/// Asks for rows to send.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose.
    pub producer: Arc<str>,
    /// Now: rows are claimed that are due, and those whose lease has ended.
    pub now: Millis,
    /// When the new leases end.
    pub until: Millis,
    /// Rows at most.
    pub rows: usize,
    /// Bytes at most, beyond the first row.
    pub bytes: u64,
    /// Whether somebody is to be told of rows that the store itself gives up.
    pub tell: bool,
}

/// A row that was claimed.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The row.
    pub id: RowId,
    /// The token that ends the lease.
    pub token: u64,
    /// What to send.
    pub message: StoredMessage,
    /// Attempts that failed.
    pub attempts: u32,
    /// When the message was accepted.
    pub accepted: Millis,
    /// Why it cannot be read: later it may, where the error is retryable.
    pub unread: Option<Error>,
}

/// What a claim returned.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// In the order in which they are to be sent.
    pub rows: Vec<Claimed>,
    /// More are due.
    pub more: bool,
    /// When the next is due, or the next lease ends; none where nothing waits for the clock.
    pub next: Option<Millis>,
    /// When the last of the rows was due, where it was pending: no row is left that was due before then.
    pub reached: Option<Millis>,
}

/// Ends a lease.
#[derive(Debug, Clone)]
pub struct End {
    /// The row.
    pub id: RowId,
    /// The token of the claim.
    pub token: u64,
    /// Now.
    pub now: Millis,
    /// How it ended.
    pub how: How,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum How {
    /// It was sent.
    Sent {
        /// Whether the row is kept as done.
        keep: bool,
    },
    /// It failed and is tried again.
    Again {
        /// When.
        due: Millis,
        /// Whether it counts as an attempt.
        counted: bool,
        /// Why, as JSON.
        error: String,
        /// What is left to send, where that is less.
        rest: Option<StoredMessage>,
    },
    /// It failed and is given up.
    Dead {
        /// Whether it counts as an attempt.
        counted: bool,
        /// Why, as JSON.
        error: String,
        /// What is left to send, where that is less.
        rest: Option<StoredMessage>,
        /// Whether somebody is to be told.
        tell: bool,
    },
    /// It was not tried.
    Released,
}

/// A row without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowInfo {
    /// The row.
    pub id: RowId,
    /// Whose.
    pub producer: String,
    /// What has become of it.
    pub state: State,
    /// Attempts that failed.
    pub attempts: u32,
    /// When it is tried next, or its lease ends; none where it waits for another row of its key, and for ended ones.
    pub due: Option<Millis>,
    /// Why the last attempt failed, as JSON.
    pub error: Option<String>,
    /// Where to.
    pub topic: Option<String>,
    /// The key whose order is kept.
    pub order_key: Option<String>,
    /// Its dedup key.
    pub dedup: Option<String>,
    /// Bytes of the body, without attachments.
    pub size: u64,
    /// When the message was accepted.
    pub accepted: Millis,
    /// When the row was made.
    pub created: Millis,
    /// When it changed last.
    pub updated: Millis,
    /// The first bytes of the body.
    pub short: Bytes,
}

/// How many bytes of a body a list shows.
pub const SHORT: usize = 512;

/// Asks for a page of rows, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of this client alone.
    pub producer: Option<String>,
    /// In this state alone.
    pub state: Option<State>,
    /// After this row.
    pub after: Option<RowId>,
    /// Rows at most.
    pub limit: usize,
}

/// Which rows are to be sent again.
#[derive(Debug, Clone)]
pub enum Which {
    /// These: dead ones begin anew, pending ones are due at once.
    Ids {
        /// Of this client alone.
        producer: Option<String>,
        /// Their numbers.
        ids: Vec<RowId>,
    },
    /// All that are pending, by page.
    Page {
        /// Of this client alone.
        producer: Option<String>,
        /// The dead ones too.
        dead: bool,
        /// After this row.
        after: RowId,
        /// Rows at most.
        limit: usize,
    },
}

/// What became of [`Which`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revived {
    /// How many rows are due by it.
    pub count: u64,
    /// The last row of a page; none where there are no more.
    pub last: Option<RowId>,
}

/// What became of a row that was to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is gone.
    Gone,
    /// There was none.
    Unknown,
    /// Somebody is sending it.
    Leased,
}

/// Asks for ended rows to be deleted.
#[derive(Debug, Clone)]
pub struct Purge {
    /// Whose.
    pub producer: String,
    /// Done or dead.
    pub state: State,
    /// Those that changed last before this.
    pub before: Millis,
    /// Of dead ones those alone of which nobody is to be told any more.
    pub told: bool,
    /// Rows at most.
    pub limit: usize,
}

/// Rows that were given up and of which nobody was told.
#[derive(Debug, Clone, Default)]
pub struct Untold {
    /// Each with the token that ends the telling.
    pub rows: Vec<(RowId, u64)>,
    /// The first of them.
    pub shown: Vec<RowInfo>,
}

/// How many rows a client has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whose.
    pub producer: String,
    /// By state, in the order of [`State::ALL`].
    pub rows: [u64; 4],
    /// When the next one is due.
    pub next: Option<Millis>,
    /// When the oldest message was accepted that is still to be sent.
    pub oldest: Option<Millis>,
}

impl Stats {
    /// How many are in this state.
    pub fn of(&self, state: State) -> u64 {
        self.rows.get(state as usize).copied().unwrap_or_default()
    }
}
