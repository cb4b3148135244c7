//! Where Redis is: `redis[s]://[USER][:PASSWORD]@HOST[:PORT][/DATABASE]`.

use percent_encoding::percent_decode_str;
use redis::RedisConnectionInfo;
use url::{Host, Url};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const PORT: u16 = 6379;

/// See the module. It prints no user and no password.
#[derive(Debug, Clone)]
pub(in super::super) struct Target {
    tls: bool,
    host: String,
    port: u16,
    user: Option<Secret>,
    password: Option<Secret>,
    database: i64,
}

impl Target {
    /// Reads the URL.
    ///
    /// # Errors
    /// `invalid_config` for the key `url`, without its text.
    pub(in super::super) fn parse(url: &Secret) -> Result<Target> {
        let wrong = |what: &str| {
            let text = format!("`url` {what}: it is redis[s]://[USER][:PASSWORD]@HOST[:PORT][/DATABASE]");
            Error::new(Kind::InvalidConfig, text)
        };
        let url = Url::parse(url.expose()).map_err(|_| wrong("is no URL"))?;
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("has another scheme than redis and rediss")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a query or a fragment"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err(wrong("names no host")),
        };
        let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok((!text.is_empty()).then(|| Secret::new(text))),
            Err(_) => Err(wrong("has a user or a password that is not UTF-8")),
        };
        let path = url.path().trim_start_matches('/');
        let database = if path.is_empty() { Ok(0) } else { path.parse::<u16>() };
        let database = database.map_err(|_| wrong("has a database that is no number from 0 to 65535"))?;
        Ok(Target {
            tls,
            host,
            port: url.port().unwrap_or(PORT),
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?,
            database: i64::from(database),
        })
    }

    pub(in super::super) fn tls(&self) -> bool {
        self.tls
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, for events and the status.
    pub(super) fn shown(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// What is told once connected.
    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            info = info.set_username(user.expose());
        }
        if let Some(password) = &self.password {
            info = info.set_password(password.expose());
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_never_printed() {
        let target = Target::parse(&Secret::new("rediss://ann:p%40ss@[::1]:7000/3")).unwrap();
        assert!(target.tls());
        assert_eq!((target.shown().as_str(), target.database), ("[::1]:7000", 3));
        assert_eq!(target.login().password(), Some("p@ss"));
        assert_eq!(target.login().username(), Some("ann"));
        let text = format!("{target:?}");
        assert!(!text.contains("p@ss") && !text.contains("ann"), "{text}");
        assert_eq!(Target::parse(&Secret::new("redis://localhost")).unwrap().shown(), "localhost:6379");
    }

    #[test]
    fn a_wrong_url_is_not_quoted() {
        for url in [
            "hunter2",
            "http://:hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@h/x",
            "redis://:hunter2@h/99999",
            "redis://:hunter2@h/0?a=1",
            "redis://:hunter2@h:0x/0",
            "redis://:hunter2%ff@h",
        ] {
            let error = Target::parse(&Secret::new(url)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.message().contains("`url`") && !error.text().contains("hunter2"), "{error}");
        }
    }
}
