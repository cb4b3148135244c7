//! Journals for the changes of one topic.

use crate::broker::log::Log;
use crate::broker::log::record::{Journal, Position, Record};

/// Takes the log's lock for each record alone: for changes that write few.
pub(super) struct Single<'a>(pub(super) &'a Log);

impl Journal for Single<'_> {
    fn append(&mut self, record: &Record<'_>) -> Position {
        // Nobody waits for it: it is safe with the next commit.
        self.0.append(|journal| journal.append(record)).0
    }
}

/// Notes where the first record lies.
pub(super) struct First<'a> {
    pub(super) journal: &'a mut dyn Journal,
    pub(super) position: Option<Position>,
}

impl Journal for First<'_> {
    fn append(&mut self, record: &Record<'_>) -> Position {
        let position = self.journal.append(record);
        self.position.get_or_insert(position);
        position
    }
}
