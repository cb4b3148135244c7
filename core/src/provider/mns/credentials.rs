//! Whose name requests are sent in: keys that stay, or that are read anew because they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::PROVIDER;
use crate::client::BoxFuture;
use crate::config::{from_value, json};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::mns::Account;

/// How long what was read is used before it is read again.
const FRESH: Duration = Duration::from_secs(5);
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

    async fn read(&self) -> Result<Keys> {
        match self {
            Source::Environment => {
                let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let needed = |name: &str| {
                    let text = format!("the environment variable `{name}` is not set to a text");
                    variable(name).map(Secret::new).ok_or_else(|| Error::new(Kind::Authentication, text))
                };
                let keys = Keys {
                    key_id: needed("ALIBABA_CLOUD_ACCESS_KEY_ID")?,
                    key_secret: needed("ALIBABA_CLOUD_ACCESS_KEY_SECRET")?,
                    security_token: variable("ALIBABA_CLOUD_SECURITY_TOKEN").map(Secret::new),
                };
                keys.check(" of the environment")
            }
            Source::File(path) => {
                let read = path.clone();
                let read = tokio::task::spawn_blocking(move || file(&read)).await;
                read.map_err(|_| Error::new(Kind::Internal, "the keys could not be read"))?
            }
        }
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

/// Keys that are read again and again, so that whoever writes them may change them.
pub(super) struct Reread {
    source: Source,
    kept: Mutex<Option<(Instant, Arc<Keys>)>>,
    stale: std::sync::atomic::AtomicBool,
}

impl Reread {
    pub(super) fn new(source: Source) -> Reread {
        Reread { source, kept: Mutex::default(), stale: std::sync::atomic::AtomicBool::new(false) }
    }
}

impl Credentials for Reread {
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>> {
        use std::sync::atomic::Ordering;
        Box::pin(async {
            let mut kept = self.kept.lock().await;
            let now = Instant::now();
            let stale = self.stale.swap(false, Ordering::AcqRel);
            if let Some((read, keys)) = &*kept
                && !stale
                && now.saturating_duration_since(*read) < FRESH
            {
                return Ok(keys.clone());
            }
            match self.source.read().await {
                Ok(keys) => {
                    let same = kept.as_ref().map(|(_, kept)| kept).filter(|kept| ***kept == keys).cloned();
                    let keys = same.unwrap_or_else(|| Arc::new(keys));
                    *kept = Some((now, keys.clone()));
                    Ok(keys)
                }
                // Somebody may be writing it just now.
                Err(error) => match &mut *kept {
                    Some((read, keys)) => {
                        tracing::warn!(provider = PROVIDER, %error, "keys could not be read again: the old ones go on");
                        *read = now;
                        Ok(keys.clone())
                    }
                    None => Err(error.by(PROVIDER)),
                },
            }
        })
    }

    fn refused(&self, _: &Keys) {
        self.stale.store(true, std::sync::atomic::Ordering::Release);
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
        let source = Reread::new(Source::File(path.clone()));
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
