//! A script with its arguments, packed once where they do not change, and what the answers mean.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, RetryMethod, Script, ServerErrorKind, Value};

use crate::error::{Error, Kind};

/// A script and the name it goes by on a server that knows it.
#[derive(Debug, Clone)]
pub(super) struct Code {
    text: &'static str,
    hash: String,
}

impl Code {
    pub(super) fn new(text: &'static str) -> Code {
        Code { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// The script over one key.
    pub(super) fn over(&self, key: &str, arguments: &[&str]) -> Request {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(1).arg(key);
        for argument in arguments {
            command.arg(*argument);
        }
        Request { command, script: Some(self.text) }
    }
}

/// What is asked of Redis.
#[derive(Debug, Clone)]
pub(super) struct Request {
    command: Cmd,
    script: Option<&'static str>,
}

impl Request {
    /// A command without a script.
    pub(super) fn command(parts: &[&str]) -> Request {
        let mut command = Cmd::new();
        for part in parts {
            command.arg(*part);
        }
        Request { command, script: None }
    }

    /// The same with one more argument.
    pub(super) fn with(&self, argument: &str) -> Request {
        let mut more = self.clone();
        more.command.arg(argument);
        more
    }

    /// Sends it and waits for the answer. Its first poll puts it into the connection's queue where that has room.
    pub(super) async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        let answer = connection.send_packed_command(&self.command).await.and_then(Value::extract_error);
        match (answer, self.script) {
            (Err(error), Some(script)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(script);
                connection.send_packed_command(&load).await.and_then(Value::extract_error)?;
                connection.send_packed_command(&self.command).await.and_then(Value::extract_error)
            }
            (answer, _) => answer,
        }
    }
}

/// Whether the connection is of no use any more.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

/// Whether the server says that it can do it later: it reads its data, or looks for its master.
pub(super) fn may_pass(error: &RedisError) -> bool {
    matches!(error.retry_method(), RetryMethod::WaitAndRetry)
}

/// An error of Redis as ours. A server's own text can quote what it was sent: only its code is told.
pub(super) fn failure(error: &RedisError) -> Error {
    let code = error.code().unwrap_or_default();
    if error.kind() == ErrorKind::AuthenticationFailed || ["NOAUTH", "WRONGPASS"].contains(&code) {
        return Error::new(
            Kind::Authentication,
            "the Redis of the rate limit refuses the user or the password",
        );
    }
    if code == "NOPERM" {
        let text = "the Redis of the rate limit does not allow its user the commands of a limit";
        return Error::new(Kind::Permission, text);
    }
    if error.is_io_error() {
        let text = format!("the Redis of the rate limit cannot be reached: {error}");
        return Error::new(Kind::Unavailable, text);
    }
    let what = if code.is_empty() { error.category() } else { code };
    Error::new(Kind::Unavailable, format!("the Redis of the rate limit refuses: {what}"))
}

/// An answer that no script of ours gives.
pub(super) fn strange() -> Error {
    Error::new(Kind::Protocol, "the Redis of the rate limit answers with something else than a number")
}
