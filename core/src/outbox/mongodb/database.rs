//! The database: its collections, their indexes, and how long it is waited for.

use std::future::Future;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, IndexOptions, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};
use tokio_util::task::TaskTracker;

use super::fault::{Fault, damaged, error_of};
use super::form::{number, text};
use super::table::{CONFIRMED, Table};
use super::target::Target;
use crate::client::{BoxFuture, Context};
use crate::clock::Clock;
use crate::error::{Error, Kind, Outcome, Result};
use crate::random::Random;

/// The number of the documents' form.
const FORM: i64 = 1;
/// How long a server is looked for, unless the address says.
const SELECTION: Duration = Duration::from_secs(3);
/// How long a connection may take to be made, unless the address says.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the opening may take in all.
const OPENED: Duration = Duration::from_secs(20);
/// Commands of one call that are under way at once.
pub(super) const AT_ONCE: usize = 8;
/// The longest that any call takes, of whoever names no deadline.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct Database {
    /// The rows.
    pub(super) rows: Table,
    /// The parts of what is too large for a row.
    pub(super) bodies: Table,
    /// Whose turn it is in each line of rows with one order key.
    pub(super) lines: Table,
    /// What claims took and nobody has, until it is given back.
    pub(super) given_back: TaskTracker,
    clock: Clock,
    random: Random,
}

impl Database {
    /// Connects, makes what is missing, and returns what identifies the store.
    pub(super) async fn open(target: &Target) -> Result<(Database, String)> {
        bounded(&Context::within(OPENED), false, Database::opened(target)).await
    }

    async fn opened(target: &Target) -> Result<(Database, String)> {
        let options = ClientOptions::parse(target.url()).await;
        let mut options = options.map_err(|error| match &*error.kind {
            // Its text may quote the address.
            ErrorKind::InvalidArgument { .. } => Error::new(
                Kind::InvalidConfig,
                "`url`: the driver of MongoDB does not take its options as they are",
            ),
            _ => error_of(&error),
        })?;
        options.app_name.get_or_insert_with(|| "ceiba".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION);
        options.connect_timeout.get_or_insert(CONNECT);
        let client = Client::with_options(options).map_err(|error| error_of(&error))?;
        let database = client.database(target.database());
        // Whatever the address says: what is told to be stored is with the majority and on its disks.
        let confirmed =
            WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(CONFIRMED).build();
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let options =
            CollectionOptions::builder().write_concern(confirmed).selection_criteria(primary).build();
        let named = |end: &str| {
            let name = format!("{}{end}", target.collection());
            database.collection_with_options::<Document>(&name, options.clone())
        };
        let opened = Database {
            rows: Table::new(named(""), &database),
            bodies: Table::new(named(".bodies"), &database),
            lines: Table::new(named(".lines"), &database),
            given_back: TaskTracker::new(),
            clock: Clock::from_system(),
            random: Random::from_system(),
        };
        // Whoever waits for it waits for what is under way.
        opened.given_back.close();
        let identity = opened.identified(&named(".about")).await?;
        opened.indexed().await?;
        Ok((opened, identity))
    }

    async fn identified(&self, about: &Collection<Document>) -> Result<String> {
        let wanted = || about.find_one(doc! {"_id": "outbox"});
        let mut found = wanted().await.map_err(|error| error_of(&error))?;
        if found.is_none() {
            let fresh = format!("{:032x}", self.random.nonce());
            let made = about.insert_one(doc! {"_id": "outbox", "form": FORM, "identity": fresh}).await;
            match made {
                Err(error) if Fault::of(&error) != Fault::Duplicate => return Err(error_of(&error)),
                // Several processes may open it at once.
                _ => found = wanted().await.map_err(|error| error_of(&error))?,
            }
        }
        let found = found.ok_or_else(|| damaged("it has no identity"))?;
        let form = number(&found, "form")?;
        if form != FORM {
            let text = format!("the outbox in MongoDB has the form {form}, and this build knows {FORM}");
            return Err(Error::new(Kind::Storage, text));
        }
        text(&found, "identity")
    }

    async fn indexed(&self) -> Result<()> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned());
        let index =
            |keys: Document, options: IndexOptions| IndexModel::builder().keys(keys).options(options).build();
        let due = doc! {"producer": 1, "state": 1, "due": 1, "_id": 1};
        let wanted = [
            (&self.rows, index(due, named("due").build())),
            (&self.rows, index(doc! {"only": 1}, named("only").unique(true).build())),
            (&self.rows, index(doc! {"line": 1, "state": 1, "_id": 1}, named("line").build())),
            (&self.rows, index(doc! {"blobs": 1}, named("blobs").sparse(true).build())),
            (&self.bodies, index(doc! {"_id": 1, "made": 1}, named("made").build())),
            (&self.lines, index(doc! {"producer": 1, "until": 1}, named("until").build())),
        ];
        for (table, index) in wanted {
            table.of.create_index(index).await.map_err(|error| error_of(&error))?;
        }
        Ok(())
    }

    /// A number that no claim had.
    pub(super) fn token(&self) -> i64 {
        (self.random.number() >> 1) as i64
    }

    /// A name that no body had.
    pub(super) fn name(&self) -> String {
        format!("{:032x}", self.random.nonce())
    }

    /// Milliseconds since 1970 by this machine's clock.
    pub(super) fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_time().as_millis()).unwrap_or(i64::MAX)
    }

    /// Microseconds, likewise.
    pub(super) fn micros(&self) -> i64 {
        i64::try_from(self.clock.unix_time().as_micros()).unwrap_or(i64::MAX)
    }
}

/// The results of work of which some is done at once, in its order.
pub(super) async fn several<T>(work: Vec<BoxFuture<'_, Result<T>>>) -> Result<Vec<T>> {
    stream::iter(work).buffered(AT_ONCE).try_collect().await
}

/// Runs work until it ends or the context does.
pub(super) async fn bounded<T>(
    ctx: &Context,
    writes: bool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let ended = match ctx.clone().at_most(LONGEST).run(work).await {
        Ok(result) => return result,
        Err(ended) => ended,
    };
    let told = if ended.kind() == Kind::Timeout {
        Error::new(Kind::Timeout, format!("{}: the deadline passed", Fault::Late)).caused_by(Fault::Late)
    } else {
        ended
    };
    Err(if writes { told.outcome_is(Outcome::Unknown) } else { told })
}
