//! Whose name requests are sent in: keys that stay, or that are read anew because they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::PROVIDER;
use crate::client::BoxFuture;
use crate::config::{from_value, json};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::mns::Account;

/// How long what was read is used before it is read again.
const FRESH: Duration = Duration::from_secs(5);
/// How long a file that was read before is waited for, before what it held goes on.
const MOMENT: Duration = Duration::from_secs(1);
/// No file of keys is longer.
const LONGEST: u64 = 64 << 10;

/// The keys of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Id of the access key.
    pub key_id: Secret,
    /// Its secret.
    pub key_secret: Secret,
    /// The token of temporary credentials.
    pub security_token: Option<Secret>,
}

impl Keys {
    pub(super) fn account(&self) -> Account<'_> {
        Account {
            key_id: self.key_id.expose(),
            key_secret: self.key_secret.expose(),
            security_token: self.security_token.as_ref().map(Secret::expose),
        }
    }

    /// What no text may show.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let token = self.security_token.as_ref().map(Secret::expose);
        [Some(self.key_secret.expose()), token].into_iter().flatten().filter(|text| !text.is_empty())
    }

    pub(super) fn check(self, of: &str) -> Result<Keys> {
        // Each of them stands in a header.
        let odd = |text: &Secret| {
            text.expose().is_empty() || text.expose().bytes().any(|byte| !(b' '..=b'~').contains(&byte))
        };
        let wrong = |key: &str| {
            let text = format!("`{key}`{of} is empty or has characters that no key has");
            Err(Error::new(Kind::InvalidConfig, text))
        };
        if odd(&self.key_id) || self.key_id.expose().contains([':', ' ']) {
            return wrong("access_key_id");
        }
        if odd(&self.key_secret) {
            return wrong("access_key_secret");
        }
        if self.security_token.as_ref().is_some_and(odd) {
            return wrong("security_token");
        }
        Ok(self)
    }
}

/// Where keys come from. Called for every request: what takes long is kept.
pub trait Credentials: Send + Sync + 'static {
    /// The keys of now.
    ///
    /// # Errors
    /// Why there are none; the request is not sent.
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>>;

    /// The service refused these: what was kept is not to be used again. If [`Credentials::keys`] gives others then, the
    /// request is sent once more.
    fn refused(&self, keys: &Keys) {
        let _ = keys;
    }
}

/// Keys that stay.
pub(super) struct Fixed(Arc<Keys>);

impl Fixed {
    pub(super) fn new(keys: Keys) -> Fixed {
        Fixed(Arc::new(keys))
    }
}

impl Credentials for Fixed {
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// What keys are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The variables that the official SDKs read.
    Environment,
    /// A file of JSON with the keys of a section.
    File(PathBuf),
}

/// The content of a file of keys.
#[derive(Deserialize)]
struct Content {
    access_key_id: String,
    access_key_secret: String,
    security_token: Option<String>,
    // Who writes the file may say when it is of no use any more; the service says so too.
    #[serde(rename = "expiration")]
    _expiration: Option<String>,
}

impl Source {
    /// Reads the key `credentials` of a section: `environment`, `file:PATH`, or `{"file": PATH}`.
    pub(super) fn parse(value: &serde_json::Value) -> Result<Source> {
        let of_object = || value.as_object().filter(|all| all.len() == 1)?.get("file")?.as_str();
        match (value.as_str(), of_object()) {
            (Some("environment"), _) => Ok(Source::Environment),
            (Some(text), _) if text.len() > 5 && text.starts_with("file:") => {
                Ok(Source::File(text.trim_start_matches("file:").into()))
            }
            (None, Some(path)) if !path.is_empty() => Ok(Source::File(path.into())),
            _ => {
                let text = "`credentials` is `environment`, `file:PATH` or an object with a `file`";
                Err(Error::new(Kind::InvalidConfig, text))
            }
        }
    }

    /// What gives the keys of a section. Those of the environment are read here and now, on the thread of whoever opens a
    /// client: a process changes its environment itself, and no other thread may look at it meanwhile.
    pub(super) fn credentials(self) -> Arc<dyn Credentials> {
        match self {
            Source::Environment => Arc::new(Environment::read(|name| std::env::var(name).ok())),
            Source::File(path) => Arc::new(Reread::new(path)),
        }
    }
}

/// Keys of the environment, or why there are none.
struct Environment(Result<Arc<Keys>>);

impl Environment {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Environment {
        let filled = |name: &str| variable(name).filter(|value| !value.is_empty()).map(Secret::new);
        let needed = |name: &str| {
            let text = format!("the environment variable `{name}` is not set to a text");
            filled(name).ok_or_else(|| Error::new(Kind::Authentication, text).by(PROVIDER))
        };
        let read = || {
            let keys = Keys {
                key_id: needed("ALIBABA_CLOUD_ACCESS_KEY_ID")?,
                key_secret: needed("ALIBABA_CLOUD_ACCESS_KEY_SECRET")?,
                security_token: filled("ALIBABA_CLOUD_SECURITY_TOKEN"),
            };
            keys.check(" of the environment").map(Arc::new)
        };
        Environment(read())
    }
}

impl Credentials for Environment {
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>> {
        Box::pin(async { self.0.clone() })
    }
}

fn file(path: &Path) -> Result<Keys> {
    use std::io::Read;
    let shown = path.display();
    let mut text = String::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    let unread = |cause| {
        let text = format!("the file of keys `{shown}` cannot be read");
        Error::new(Kind::Authentication, text).caused_by(cause)
    };
    read.map_err(unread)?;
    if text.len() as u64 > LONGEST {
        let text = format!("the file of keys `{shown}` is longer than {LONGEST} bytes");
        return Err(Error::new(Kind::Authentication, text));
    }
    let wrong = |error: Error| {
        let text = format!("the file of keys `{shown}`: {}", error.message());
        Error::new(Kind::Authentication, text)
    };
    let content: Content = json(&text).and_then(from_value).map_err(wrong)?;
    let keys = Keys {
        key_id: Secret::new(content.access_key_id),
        key_secret: Secret::new(content.access_key_secret),
        security_token: content.security_token.filter(|token| !token.is_empty()).map(Secret::new),
    };
    keys.check("").map_err(wrong)
}

type Reading = Shared<BoxFuture<'static, Result<Arc<Keys>>>>;

/// Keys of a file that is read again and again, so that whoever writes it may change them. It is read once for all that
/// ask meanwhile, who wait without a lock.
struct Reread {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: Option<(Instant, Arc<Keys>)>,
    // The service refused those that are kept, or being read.
    stale: bool,
    // It refused those that are kept: until the file is read they are of no use.
    refused: bool,
    reading: Option<Reading>,
    // Of the reading: what an older one finds is not kept.
    number: u64,
}

impl Reread {
    fn new(path: PathBuf) -> Reread {
        Reread { path, state: Arc::default() }
    }

    /// What is kept, where it is fresh; else a reading of the file, begun here or under way, and what goes on where that
    /// takes long.
    fn fresh(&self) -> Result<Arc<Keys>, (Reading, Option<Arc<Keys>>)> {
        let mut state = self.state.lock();
        let stale = std::mem::take(&mut state.stale);
        state.refused |= stale;
        let old = state.kept.as_ref().map(|(_, keys)| keys.clone()).filter(|_| !state.refused);
        match (&state.kept, &state.reading) {
            (Some((read, keys)), _) if !state.refused && read.elapsed() < FRESH => return Ok(keys.clone()),
            (_, Some(reading)) if !stale => return Err((reading.clone(), old)),
            _ => {}
        }
        state.number += 1;
        // By itself: whoever asked for it may be gone when it ends, and what is read is as old as it is.
        let reading = tokio::spawn(read(self.path.clone(), Arc::downgrade(&self.state), state.number));
        let failed = |_| Err(Error::new(Kind::Internal, "the keys could not be read").by(PROVIDER));
        let reading = reading.map(move |read| read.unwrap_or_else(failed)).boxed().shared();
        state.reading = Some(reading.clone());
        Err((reading, old))
    }
}

async fn read(path: PathBuf, state: Weak<Mutex<State>>, number: u64) -> Result<Arc<Keys>> {
    let read = tokio::task::spawn_blocking(move || file(&path)).await;
    let read = read.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the keys could not be read")));
    let Some(state) = state.upgrade() else { return read.map(Arc::new) };
    let mut state = state.lock();
    if state.number != number {
        return read.map(Arc::new).map_err(|error| error.by(PROVIDER));
    }
    state.reading = None;
    state.refused = false;
    let keys = match (read, &state.kept) {
        (Ok(keys), Some((_, kept))) if **kept == keys => kept.clone(),
        (Ok(keys), _) => Arc::new(keys),
        // Somebody may be writing it just now.
        (Err(error), Some((_, kept))) => {
            tracing::warn!(provider = PROVIDER, %error, "keys could not be read again: the old ones go on");
            kept.clone()
        }
        (Err(error), None) => return Err(error.by(PROVIDER)),
    };
    state.kept = Some((Instant::now(), keys.clone()));
    Ok(keys)
}

impl Credentials for Reread {
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>> {
        Box::pin(async {
            match self.fresh() {
                Ok(keys) => Ok(keys),
                Err((reading, None)) => reading.await,
                Err((reading, Some(old))) => tokio::time::timeout(MOMENT, reading).await.unwrap_or(Ok(old)),
            }
        })
    }

    fn refused(&self, _: &Keys) {
        self.state.lock().stale = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sources() {
        assert_eq!(Source::parse(&json!("environment")).unwrap(), Source::Environment);
        for value in [json!("file:/a"), json!({"file": "/a"})] {
            assert_eq!(Source::parse(&value).unwrap(), Source::File("/a".into()));
        }
        for wrong in
            [json!("file:"), json!("hunter2"), json!({"file": "/a", "x": 1}), json!({"file": ""}), json!(1)]
        {
            let error = Source::parse(&wrong).unwrap_err();
            assert!(
                error.message().contains("`credentials`") && !error.message().contains("hunter2"),
                "{error}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_and_what_is_half_written_changes_nothing() {
        let path = std::env::temp_dir().join(format!("ceiba-mns-keys-{:x}", rand::random::<u64>()));
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let source = Reread::new(path.clone());
        let error = source.keys().await.unwrap_err();
        assert_eq!((error.kind(), error.provider()), (Kind::Authentication, Some(PROVIDER)));
        write(r#"{"access_key_id": "a", "access_key_secret": "hunter2"#);
        let error = source.keys().await.unwrap_err();
        assert!(
            error.text().contains("cannot be read") || error.text().contains("the file of keys"),
            "{error}"
        );
        assert!(!error.text().contains("hunter2"), "{error:?}");
        write(
            r#"{"access_key_id": "a", "access_key_secret": "b", "security_token": "c", "expiration": "x"}"#,
        );
        let first = source.keys().await.unwrap();
        assert_eq!((first.key_id.expose(), first.account().security_token), ("a", Some("c")));
        write(r#"{"access_key_id": "d", "access_key_secret": "e"}"#);
        assert_eq!(source.keys().await.unwrap(), first, "it is read again after a while");
        tokio::time::advance(FRESH).await;
        assert_eq!(source.keys().await.unwrap().key_id.expose(), "d");
        write("{");
        tokio::time::advance(FRESH).await;
        assert_eq!(source.keys().await.unwrap().key_id.expose(), "d");
        write(r#"{"access_key_id": "f", "access_key_secret": "g"}"#);
        source.refused(&first);
        assert_eq!(source.keys().await.unwrap().key_id.expose(), "f", "refused ones are read again at once");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_environment_is_read_when_a_client_opens_and_on_its_thread() {
        let set = std::cell::RefCell::new(vec![
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "a"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "b"),
            ("ALIBABA_CLOUD_SECURITY_TOKEN", ""),
        ]);
        let variable = |name: &str| {
            let set = set.borrow();
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let source = Environment::read(variable);
        set.borrow_mut().clear();
        tokio::time::advance(FRESH * 2).await;
        let keys = source.keys().await.unwrap();
        source.refused(&keys);
        assert_eq!(source.keys().await.unwrap(), keys);
        assert_eq!((keys.key_id.expose(), keys.security_token.is_none()), ("a", true));
        let error = Environment::read(variable).keys().await.unwrap_err();
        assert_eq!((error.kind(), error.provider()), (Kind::Authentication, Some(PROVIDER)));
        assert!(error.text().contains("ALIBABA_CLOUD_ACCESS_KEY_ID"), "{error}");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_takes_long_is_read_once_for_all_who_ask_and_who_goes_holds_up_nobody() {
        let path = std::env::temp_dir().join(format!("ceiba-mns-pipe-{:x}", rand::random::<u64>()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let source = Reread::new(path.clone());
        // A pipe is opened once somebody writes to it: until then the first who asks waits, and goes.
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, source.keys()).await.is_err());
        let text = r#"{"access_key_id": "a", "access_key_secret": "b"}"#;
        let to = path.clone();
        let writing = tokio::task::spawn_blocking(move || std::fs::write(to, text).unwrap());
        // A second reading would wait for a second writer.
        let both = futures_util::future::join(source.keys(), source.keys());
        let (first, second) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        writing.await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn keys_that_nobody_waited_for_are_as_old_as_their_reading_and_old_ones_go_on_meanwhile() {
        let path = std::env::temp_dir().join(format!("ceiba-mns-pipe-{:x}", rand::random::<u64>()));
        let keys = |id: &str| format!(r#"{{"access_key_id": "{id}", "access_key_secret": "b"}}"#);
        std::fs::write(&path, keys("old")).unwrap();
        let source = Reread::new(path.clone());
        let first = source.keys().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let aged = || source.state.lock().kept.as_mut().unwrap().0 -= FRESH;
        aged();
        // Nobody writes to the pipe: a file that does not answer.
        let kept = tokio::time::timeout(MOMENT * 20, source.keys()).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&kept, &first));
        // Its reading ends though nobody asks any more.
        let to = path.clone();
        tokio::task::spawn_blocking(move || std::fs::write(to, keys("new")).unwrap()).await.unwrap();
        let since = Instant::now();
        while source.state.lock().reading.is_some() {
            assert!(since.elapsed() < Duration::from_secs(20), "it was not noted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(source.keys().await.unwrap().key_id.expose(), "new");
        // What the service refused does not go on.
        source.refused(&first);
        assert!(tokio::time::timeout(MOMENT * 2, source.keys()).await.is_err());
        let to = path.clone();
        let text = r#"{"access_key_id": "last", "access_key_secret": "b"}"#;
        let writing = tokio::task::spawn_blocking(move || std::fs::write(to, text).unwrap());
        assert_eq!(source.keys().await.unwrap().key_id.expose(), "last");
        writing.await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn keys_that_no_header_can_hold_are_refused() {
        let keys = |id: &str, secret: &str| Keys {
            key_id: Secret::new(id),
            key_secret: Secret::new(secret),
            security_token: None,
        };
        assert!(keys("a", "b c").check("").is_ok());
        for (id, secret) in [("", "b"), ("a:", "b"), ("a b", "b"), ("a", ""), ("a\n", "b"), ("a", "ü")] {
            assert_eq!(keys(id, secret).check("").unwrap_err().kind(), Kind::InvalidConfig);
        }
    }
}
