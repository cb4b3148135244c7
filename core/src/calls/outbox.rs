//! The calls on an outbox. `target` is the id of an open producer that has one, or the address of the store
//! (`sqlite:FILE`), which needs no producer; options and answers are JSON, as [`Desk`] says.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::outbox::{Address, Desk, Lent, Outbox, close_idle, lend, read};

/// How long a call may take that names no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be done with the rows, for bindings that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`list`]
    List,
    /// [`show`]
    Show,
    /// [`retry`]
    Retry,
    /// [`retry_all`]
    RetryAll,
    /// [`drop_rows`]
    Drop,
    /// [`export`]
    Export,
    /// [`import`]
    Import,
    /// [`stats`]
    Stats,
    /// [`purge`]
    Purge,
}

impl Operation {
    /// The operation of this name, such as `retry_all`.
    pub fn named(name: &str) -> Option<Operation> {
        Some(match name {
            "list" => Operation::List,
            "show" => Operation::Show,
            "retry" => Operation::Retry,
            "retry_all" => Operation::RetryAll,
            "drop" => Operation::Drop,
            "export" => Operation::Export,
            "import" => Operation::Import,
            "stats" => Operation::Stats,
            "purge" => Operation::Purge,
            _ => return None,
        })
    }
}

/// Carries out one of them.
///
/// # Errors
/// Those of the operation.
pub async fn run(
    operation: Operation,
    target: &str,
    options: Value,
    timeout: Option<Duration>,
) -> Result<Value> {
    match operation {
        Operation::List => list(target, options, timeout).await,
        Operation::Show => show(target, options, timeout).await,
        Operation::Retry => retry(target, options, timeout).await,
        Operation::RetryAll => retry_all(target, options, timeout).await,
        Operation::Drop => drop_rows(target, options, timeout).await,
        Operation::Export => export(target, options, timeout).await,
        Operation::Import => import(target, options, timeout).await,
        Operation::Stats => stats(target, options, timeout).await,
        Operation::Purge => purge(target, options, timeout).await,
    }
}

fn context(timeout: Option<Duration>) -> Context {
    Context::within(timeout.unwrap_or(PATIENCE))
}

fn of_producer(id: &str) -> Result<Arc<Outbox>> {
    let client = super::producer(id)?;
    let none = || Error::new(Kind::Unsupported, format!("the producer `{id}` has no outbox"));
    client.outbox.clone().ok_or_else(none)
}

/// Closes the stores that calls by address left open: they stay open for some seconds after the last call.
///
/// # Errors
/// `timeout`.
pub async fn let_go(timeout: Option<Duration>) -> Result<()> {
    close_idle(&context(timeout)).await
}

/// What a call works with: the desk of a producer, or one that is lent.
enum At {
    Producer(Desk),
    Address(Lent),
}

impl std::ops::Deref for At {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        match self {
            At::Producer(desk) => desk,
            At::Address(lent) => &lent.desk,
        }
    }
}

async fn desk(target: &str, ctx: &Context) -> Result<At> {
    at(target, ctx, false).await
}

async fn at(target: &str, ctx: &Context, create: bool) -> Result<At> {
    match of_producer(target) {
        Err(error) if error.kind() == Kind::UnknownId && Address::is_one(target) => {
            let address = Address::parse(target)
                .map_err(|error| Error::new(Kind::InvalidArgument, error.message().to_owned()))?;
            lend(ctx, &address, create).await.map(At::Address)
        }
        outbox => Ok(At::Producer(outbox?.desk())),
    }
}

/// A page of rows; see [`Desk::list`].
///
/// # Errors
/// `unknown_id`, `unsupported` for a producer without an outbox, `not_found` for an address with nothing there (an import
/// makes the file), `invalid_argument`, `storage`, `timeout`; so all of these.
pub async fn list(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    desk(target, &ctx).await?.list(&ctx, options).await
}

/// One row with its message; see [`Desk::show`]. Options: `id`.
///
/// # Errors
/// As [`list`], and `not_found`.
pub async fn show(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        id: String,
    }
    let options: Options = read(options)?;
    let ctx = context(timeout);
    desk(target, &ctx).await?.show(&ctx, &options.id).await
}

/// Makes rows due at once; see [`Desk::retry`].
///
/// # Errors
/// As [`list`].
pub async fn retry(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    let answer = desk(target, &ctx).await?.retry(&ctx, options).await;
    wake(target);
    answer
}

/// Makes all dead and pending rows due at once; see [`Desk::retry_all`].
///
/// # Errors
/// As [`list`].
pub async fn retry_all(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    let answer = desk(target, &ctx).await?.retry_all(&ctx, options).await;
    wake(target);
    answer
}

/// Deletes rows; see [`Desk::drop_rows`].
///
/// # Errors
/// As [`list`].
pub async fn drop_rows(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    desk(target, &ctx).await?.drop_rows(&ctx, options).await
}

/// A page of rows as text; see [`Desk::export`].
///
/// # Errors
/// As [`list`].
pub async fn export(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    desk(target, &ctx).await?.export(&ctx, options).await
}

/// Inserts rows of an export; see [`Desk::import`].
///
/// # Errors
/// As [`list`].
pub async fn import(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    let answer = at(target, &ctx, true).await?.import(&ctx, options).await;
    wake(target);
    answer
}

/// Counts rows; see [`Desk::stats`].
///
/// # Errors
/// As [`list`].
pub async fn stats(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    desk(target, &ctx).await?.stats(&ctx, options).await
}

/// Deletes ended rows; see [`Desk::purge`].
///
/// # Errors
/// As [`list`].
pub async fn purge(target: &str, options: Value, timeout: Option<Duration>) -> Result<Value> {
    let ctx = context(timeout);
    desk(target, &ctx).await?.purge(&ctx, options).await
}

/// Tries every pending row of an open producer once, now, and waits for it; see [`Outbox::drain`]. Answer: `{"sent": N, "failed": N,
/// "given_up": N}`, with what was sent out of the store meanwhile.
///
/// # Errors
/// As [`list`]; an address alone has nobody who sends, so it is `unsupported`.
pub async fn drain(id: &str, timeout: Option<Duration>) -> Result<Value> {
    let outbox = match of_producer(id) {
        Err(error) if error.kind() == Kind::UnknownId && Address::is_one(id) => {
            let text = "a drain needs an open producer: make the rows of a store due with a retry of all";
            return Err(Error::new(Kind::Unsupported, text));
        }
        outbox => outbox?,
    };
    let [sent, failed, given_up] = outbox.drain(&context(timeout)).await?;
    Ok(json!({"sent": sent, "failed": failed, "given_up": given_up}))
}

// The runner of a client here need not wait until it asks the store.
fn wake(target: &str) {
    if let Ok(outbox) = of_producer(target) {
        outbox.wake();
    }
}
