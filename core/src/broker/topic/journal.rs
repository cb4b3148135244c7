//! A journal that takes the log's lock for each record alone: for changes that write few.

use crate::broker::log::Log;
use crate::broker::log::record::{Journal, Position, Record};

/// See the module.
pub(super) struct Single<'a>(pub(super) &'a Log);

impl Journal for Single<'_> {
    fn append(&mut self, record: &Record<'_>) -> Position {
        // Nobody waits for it: it is safe with the next commit.
        self.0.append(|journal| journal.append(record)).0
    }
}
