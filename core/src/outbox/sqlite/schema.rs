//! The file: how it is opened, and its tables.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::fault::{Fault, error_of};
use super::worker::PATIENCE;
use crate::error::{Error, Kind, Result};

/// The oldest SQLite whose write-ahead log is known to be sound.
const OLDEST: i32 = 3_051_003;

/// The number of the tables' form, which is the file's `user_version`.
const FORM: i64 = 1;

/// The file's `application_id`: `ceib`.
const OURS: i64 = 0x6365_6962;

/// What is left of the write-ahead log once it is written into the file, in bytes.
const LOG: i64 = 64 << 20;

/// Bodies longer than this stand in a table of their own, so that a change of state does not write them again.
pub(super) const INLINE: usize = 4096;

// `due` is, by state: when it is tried next, when the lease ends, nothing, and when somebody is to be told. `size` is all
// bytes of the message, `own` those of the body itself; `short` is how a body begins that stands apart.
const TABLES: &str = "
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  producer TEXT NOT NULL,
  state INTEGER NOT NULL,
  due INTEGER NOT NULL,
  token INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  delay INTEGER NOT NULL,
  number INTEGER NOT NULL,
  size INTEGER NOT NULL,
  own INTEGER NOT NULL,
  topic TEXT,
  order_key TEXT,
  dedup TEXT,
  error TEXT,
  short BLOB,
  head TEXT,
  body BLOB
) STRICT;
CREATE INDEX outbox_due ON outbox (producer, state, due);
CREATE INDEX outbox_state ON outbox (producer, state);
CREATE INDEX outbox_dead ON outbox (producer, due, updated) WHERE state = 3;
CREATE UNIQUE INDEX outbox_dedup ON outbox (producer, dedup) WHERE dedup IS NOT NULL;
CREATE INDEX outbox_order ON outbox (producer, order_key, due) WHERE order_key IS NOT NULL AND state <= 1;
CREATE TABLE outbox_body (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE outbox_identity (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL) STRICT;
";

/// Opens the file for writing, made if need be and wanted, and returns what identifies it.
pub(super) fn open(path: &Path, fresh: &str, create: bool) -> Result<(Connection, String)> {
    let version = rusqlite::version_number();
    if version < OLDEST {
        let text = format!("SQLite {} is too old for an outbox: 3.51.3 or newer", rusqlite::version());
        return Err(Error::new(Kind::Storage, text));
    }
    if create {
        make(path)?;
    } else if matches!(path.try_exists(), Ok(false)) {
        return Err(Error::new(Kind::NotFound, format!("there is no outbox at {}", path.display())));
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    settle(&connection, fresh).map(|identity| (connection, identity))
}

/// Opens it for reading what is committed.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(|error| error_of(&error))?;
    Ok(connection)
}

// Who else is on this machine must not read what is in it.
fn make(path: &Path) -> Result<()> {
    let denied = |what: &str, error: std::io::Error| {
        let fault = match error.kind() {
            std::io::ErrorKind::StorageFull => Fault::Full,
            _ => Fault::Denied,
        };
        fault.error(None).at(&format!("{what}: {error}"))
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| denied("its folder cannot be made", error))?;
    // A name is there after a power cut once the folder that has it is on disk.
    let synced = |folder: &Path| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let done = File::open(folder).and_then(|folder| folder.sync_all());
        done.map_err(|error| denied("its folder cannot be synced", error))
    };
    for made in missing.into_iter().filter_map(Path::parent) {
        synced(made)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => synced(folder)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let open = std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 != 0);
            if open {
                tracing::warn!(file = %path.display(), "others than its owner may read the file of an outbox");
            }
        }
        Err(error) => return Err(denied("it cannot be made", error)),
    }
    Ok(())
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let made = || {
        let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_handler(Some(patient))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    made().map_err(|error| error_of(&error))
}

// SQLite's own waits grow to many times what a commit of another process takes.
fn patient(tries: i32) -> bool {
    const STEP: std::time::Duration = std::time::Duration::from_micros(500);
    std::thread::sleep(STEP);
    u128::from(tries.unsigned_abs()) * STEP.as_micros() < PATIENCE.as_micros()
}

fn settle(connection: &Connection, fresh: &str) -> Result<String> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match tables(connection, fresh) {
            Ok(Ok(identity)) => return Ok(identity),
            Ok(Err(error)) => return Err(error),
            // Several processes may make the tables at once.
            Err(error) if Fault::of(&error) == Fault::Busy && std::time::Instant::now() < until => {}
            Err(error) => return Err(error_of(&error)),
        }
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        std::thread::sleep(PATIENCE);
    }
}

fn number(connection: &Connection, query: &str) -> rusqlite::Result<i64> {
    connection.query_row(query, [], |row| row.get(0))
}

// Nothing is changed before it is known to be ours, or empty.
fn refused(connection: &Connection) -> rusqlite::Result<Option<Fault>> {
    let version = number(connection, "PRAGMA user_version")?;
    Ok(match number(connection, "PRAGMA application_id")? {
        OURS if version > FORM => Some(Fault::Newer),
        OURS if version == FORM => None,
        0 if version == 0 && number(connection, "SELECT count(*) FROM sqlite_schema")? == 0 => None,
        _ => Some(Fault::Foreign),
    })
}

fn tables(connection: &Connection, fresh: &str) -> rusqlite::Result<Result<String>> {
    // One look at all of it: another process may be making the tables.
    connection.execute_batch("BEGIN")?;
    let refusal = refused(connection)?;
    connection.execute_batch("COMMIT")?;
    if let Some(fault) = refusal {
        return Ok(Err(fault.error(None)));
    }
    // This one has no effect but on an empty file, and none after the next.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let text = "the file of the outbox cannot have a write-ahead log here";
        return Ok(Err(Error::new(Kind::Storage, text)));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cell_size_check = ON;")?;
    number(connection, &format!("PRAGMA journal_size_limit = {LOG}"))?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    // Another process may have been faster.
    if let Some(fault) = refused(connection)? {
        return Ok(Err(fault.error(None)));
    }
    if number(connection, "PRAGMA application_id")? != OURS {
        connection.execute_batch(TABLES)?;
        connection.execute("INSERT INTO outbox_identity (one, identity) VALUES (1, ?1)", [fresh])?;
        connection
            .execute_batch(&format!("PRAGMA application_id = {OURS}; PRAGMA user_version = {FORM};"))?;
    }
    let identity = connection.query_row("SELECT identity FROM outbox_identity", [], |row| row.get(0))?;
    connection.execute_batch("COMMIT")?;
    Ok(Ok(identity))
}
