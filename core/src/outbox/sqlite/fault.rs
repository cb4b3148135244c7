//! What SQLite says went wrong, as our errors.

use rusqlite::ErrorCode;

use crate::error::{Error, Kind, Outcome};

/// Why a store in a file failed; the source of a `storage` error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another process has it locked.
    Busy,
    /// The disk is full.
    Full,
    /// What is in the file is no sound database.
    Damaged,
    /// The disk answers with errors.
    Disk,
    /// It may not be written, or not opened.
    Denied,
    /// It is another program's database.
    Foreign,
    /// A later version of this library made it.
    Newer,
    /// Something else.
    Other,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::Busy => "another process has the outbox's file locked",
            Fault::Full => "the disk of the outbox is full",
            Fault::Damaged => "the outbox's file is damaged",
            Fault::Disk => "the disk of the outbox fails",
            Fault::Denied => "the outbox's file cannot be opened or written",
            Fault::Foreign => "the file is a database, and no outbox: name another file",
            Fault::Newer => {
                "the outbox's file was made by a later version, and this one does not know its form"
            }
            Fault::Other => "the outbox's store failed",
        })
    }
}

impl std::error::Error for Fault {}

impl Fault {
    pub(super) fn of(error: &rusqlite::Error) -> Fault {
        let Some(code) = error.sqlite_error_code() else {
            // A value that is not what was written.
            return match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..) => Fault::Damaged,
                _ => Fault::Other,
            };
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Fault::Busy,
            ErrorCode::DiskFull => Fault::Full,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Fault::Damaged,
            ErrorCode::SystemIoFailure => Fault::Disk,
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Fault::Denied,
            _ => Fault::Other,
        }
    }

    /// The error, of kind `storage`.
    pub(super) fn error(self, detail: Option<&rusqlite::Error>) -> Error {
        let text = match detail {
            Some(detail) => format!("{self}: {detail}"),
            None => self.to_string(),
        };
        Error::new(Kind::Storage, text)
            .retryable_is(matches!(self, Fault::Busy | Fault::Full))
            .caused_by(self)
    }
}

/// The error of a failed statement.
pub(super) fn error_of(error: &rusqlite::Error) -> Error {
    Fault::of(error).error(Some(error))
}

/// The error of a failed commit: what was written may be there after all, unless the log had no room for it.
pub(super) fn unknown(error: &rusqlite::Error) -> Error {
    let outcome = match Fault::of(error) {
        Fault::Full | Fault::Busy => Outcome::NotSent,
        _ => Outcome::Unknown,
    };
    error_of(error).outcome_is(outcome)
}
