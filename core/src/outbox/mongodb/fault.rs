//! What MongoDB and its driver say went wrong, as our errors.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document};
use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};

use super::form::number;
use crate::error::{Error, Kind, Outcome, Result};

/// Why a store in MongoDB failed; the source of a `storage` error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or has no primary.
    Away,
    /// It refused the credentials.
    Login,
    /// The credentials do not allow this.
    Denied,
    /// It did not answer in time.
    Late,
    /// It wrote, but a majority did not confirm that in time.
    Unconfirmed,
    /// Its disk is full.
    Full,
    /// There is one with this key already.
    Duplicate,
    /// What is in it is no row of an outbox.
    Damaged,
    /// Something else.
    Other,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::Away => "the MongoDB of the outbox cannot be reached",
            Fault::Login => "the MongoDB of the outbox refused the credentials",
            Fault::Denied => "the MongoDB of the outbox does not allow this to the user",
            Fault::Late => "the MongoDB of the outbox did not answer in time",
            Fault::Unconfirmed => "a majority of the outbox's MongoDB did not confirm a write in time",
            Fault::Full => "the disk of the outbox's MongoDB is full",
            Fault::Duplicate => "the MongoDB of the outbox has one with this key already",
            Fault::Damaged => "what is in the outbox's MongoDB is damaged",
            Fault::Other => "the outbox's MongoDB failed",
        })
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// Of a code of the server's.
    pub(super) fn of_code(code: i32) -> Fault {
        match code {
            11000 | 11001 => Fault::Duplicate,
            18 => Fault::Login,
            13 => Fault::Denied,
            50 | 202 | 262 => Fault::Late,
            64 | 79 | 100 => Fault::Unconfirmed,
            14031 => Fault::Full,
            6 | 7 | 89 | 91 | 133 | 189 | 10107 | 11600 | 11602 | 13435 | 13436 => Fault::Away,
            _ => Fault::Other,
        }
    }

    /// Of an error of the driver.
    pub(super) fn of(error: &DriverError) -> Fault {
        match &*error.kind {
            ErrorKind::ServerSelection { .. }
            | ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. } => Fault::Away,
            ErrorKind::Authentication { .. } => Fault::Login,
            ErrorKind::Command(command) => Fault::of_code(command.code),
            ErrorKind::Write(WriteFailure::WriteError(failed)) => Fault::of_code(failed.code),
            ErrorKind::Write(WriteFailure::WriteConcernError(_)) => Fault::Unconfirmed,
            ErrorKind::InsertMany(failed) if failed.write_concern_error.is_some() => Fault::Unconfirmed,
            ErrorKind::InsertMany(failed) => match failed.write_errors.as_ref().and_then(|all| all.first()) {
                Some(first) => Fault::of_code(first.code),
                None => Fault::Unconfirmed,
            },
            ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => Fault::Damaged,
            _ => Fault::Other,
        }
    }

    /// The error, of kind `storage`.
    pub(super) fn error(self, detail: Option<&str>) -> Error {
        let text = match detail {
            Some(detail) => format!("{self}: {detail}"),
            None => self.to_string(),
        };
        let again = matches!(self, Fault::Away | Fault::Late | Fault::Unconfirmed | Fault::Full);
        Error::new(Kind::Storage, text).retryable_is(again).caused_by(self)
    }
}

/// The error of a failed read.
pub(super) fn error_of(error: &DriverError) -> Error {
    let fault = Fault::of(error);
    match &*error.kind {
        // What the server says of a write names the values of its keys, which are the host's.
        ErrorKind::Write(WriteFailure::WriteError(failed)) => {
            fault.error(Some(&format!("write error {}", failed.code)))
        }
        ErrorKind::InsertMany(failed) if failed.write_concern_error.is_none() => {
            let code = failed.write_errors.iter().flatten().map(|one| one.code).next();
            fault.error(code.map(|code| format!("write error {code}")).as_deref())
        }
        ErrorKind::Command(command) if matches!(fault, Fault::Duplicate) => {
            fault.error(Some(&command.code_name))
        }
        ErrorKind::InsertMany(_) => fault.error(None),
        _ => fault.error(Some(&error.to_string())),
    }
}

/// The error of a failed write: it may have been made, unless the server said no or was never asked.
pub(super) fn write_error(error: &DriverError) -> Error {
    let asked = match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::InvalidResponse { .. }
        | ErrorKind::Internal { .. } => true,
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        // Of several documents some may be changed.
        ErrorKind::Write(WriteFailure::WriteError(failed)) => {
            !matches!(Fault::of_code(failed.code), Fault::Denied | Fault::Duplicate)
        }
        ErrorKind::InsertMany(failed) => failed.write_concern_error.is_some(),
        ErrorKind::Command(command) => {
            matches!(Fault::of_code(command.code), Fault::Away | Fault::Late | Fault::Unconfirmed)
        }
        _ => false,
    };
    let told = error_of(error);
    if asked { told.outcome_is(Outcome::Unknown) } else { told }
}

/// A document was refused, and certainly not written.
pub(super) fn refused(code: i32) -> Error {
    Fault::of_code(code).error(Some(&format!("write error {code}")))
}

/// A statement was refused that is about several documents: some may be changed, unless the code says no.
pub(super) fn refused_of_several(code: i32) -> Error {
    match Fault::of_code(code) {
        Fault::Denied | Fault::Duplicate => refused(code),
        _ => refused(code).outcome_is(Outcome::Unknown),
    }
}

/// Which statements of a command were refused, with the code of each: the driver looks only at answers that it knows.
pub(super) fn refusals_of(answer: &Document) -> Result<BTreeMap<usize, i32>> {
    match answer.get("writeConcernError") {
        None | Some(Bson::Null) => {}
        Some(_) => return Err(Fault::Unconfirmed.error(None).outcome_is(Outcome::Unknown)),
    }
    let mut refused = BTreeMap::new();
    for error in answer.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default() {
        let read = |name| error.as_document().and_then(|error| number(error, name).ok());
        let code = read("code").and_then(|code| i32::try_from(code).ok()).unwrap_or_default();
        let place = read("index").and_then(|place| usize::try_from(place).ok());
        refused.insert(place.ok_or_else(|| damaged("a write error").outcome_is(Outcome::Unknown))?, code);
    }
    Ok(refused)
}

/// No answer came in the longest time that one is waited for.
pub(super) fn silent(writes: bool) -> Error {
    let error = Fault::Late.error(None);
    if writes { error.outcome_is(Outcome::Unknown) } else { error }
}

/// What was read is no row of ours.
pub(super) fn damaged(what: &str) -> Error {
    Fault::Damaged.error(Some(what))
}
