//! Where requests go.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderValue;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::sign::base64;

/// The longest address.
const MAX_URL: usize = 64 << 10;

/// An address of a config. Only its scheme, host and port are shown: what follows can be a secret.
#[derive(Clone)]
pub(in crate::provider) struct Site {
    /// The address, without user and password.
    pub(in crate::provider) url: Url,
    /// Scheme, host and port: for people.
    pub(in crate::provider) label: Arc<str>,
    /// The header `host`.
    pub(in crate::provider) host: String,
    /// The login that stood in the address.
    pub(in crate::provider) authorization: Option<HeaderValue>,
    login: Vec<Secret>,
}

impl Site {
    /// Reads the address under `key`. Errors quote nothing of it.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::provider) fn parse(key: &str, text: &str) -> Result<Site> {
        let wrong = |what: String| Error::new(Kind::InvalidConfig, format!("`{key}` {what}"));
        if text.len() > MAX_URL {
            return Err(wrong(format!("is longer than {MAX_URL} bytes")));
        }
        let mut url = Url::parse(text).map_err(|error| wrong(format!("is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must start with http:// or https://".into()));
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(wrong("names no host".into()));
        };
        // The port is left out where it is the scheme's own.
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let label = format!("{}://{host}", url.scheme());
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let (mut authorization, mut parts) = (None, Vec::new());
        if !url.username().is_empty() || url.password().is_some() {
            let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
            parts = [&user, &password].map(|part| Secret::new(String::from_utf8_lossy(part))).to_vec();
            let login = [user, password].join(&b':');
            let mut value = HeaderValue::try_from(format!("Basic {}", base64(&login)))
                .map_err(|_| wrong("holds a login that cannot be sent".into()))?;
            value.set_sensitive(true);
            authorization = Some(value);
            let cannot = |()| wrong("holds a login that cannot be taken out of it".into());
            url.set_username("").map_err(cannot)?;
            url.set_password(None).map_err(cannot)?;
        }
        url.set_fragment(None);
        Ok(Site { url, label: label.into(), host, authorization, login: parts })
    }

    /// What of the address may be a secret: its login, and whatever is long enough in its path and its query.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let path = self.url.path().split('/');
        let path = path.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        let query = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let long = path.chain(query).filter(|part| part.len() >= 8).map(Secret::new);
        long.chain(self.login.iter().cloned()).collect()
    }

    /// An address that a message made, which must lead to the same host.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub(in crate::provider) fn joined(&self, text: &str) -> Result<Url> {
        let wrong =
            |what: &str| Error::new(Kind::InvalidArgument, format!("the address of the request {what}"));
        let made = Site::parse("url", text).map_err(|_| wrong("is not valid with this message"))?;
        if made.label != self.label || made.authorization != self.authorization {
            return Err(wrong("leads elsewhere with this message"));
        }
        Ok(made.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let site = Site::parse("url", "https://us%40er:p%20w@example.com/a/SECRET?token=SECRET#f").unwrap();
        assert_eq!(&*site.label, "https://example.com");
        assert_eq!(site.host, "example.com");
        assert_eq!(site.url.as_str(), "https://example.com/a/SECRET?token=SECRET");
        let login = site.authorization.unwrap();
        assert!(login.is_sensitive());
        assert_eq!(login, format!("Basic {}", base64(b"us@er:p w")));
        assert_eq!(Site::parse("url", "http://[::1]:80/").unwrap().host, "[::1]");
        assert_eq!(Site::parse("url", "http://[::1]:8080/").unwrap().host, "[::1]:8080");
    }

    #[test]
    fn errors_quote_nothing() {
        for wrong in ["", "hunter2", "ftp://hunter2@a/", "http://:hunter2@/", "http://a:hunter2/", "http://"]
        {
            let error = Site::parse("url", wrong).err().unwrap_or_else(|| panic!("{wrong} was taken"));
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.message().contains("`url`") && !error.text().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_message_leads_to_no_other_host() {
        let site = Site::parse("url", "http://a.example/send").unwrap();
        assert_eq!(site.joined("http://a.example/send?x=1").unwrap().query(), Some("x=1"));
        for elsewhere in
            ["http://b.example/", "https://a.example/", "http://a.example:81/", "http://x@a.example/", ""]
        {
            assert_eq!(site.joined(elsewhere).unwrap_err().kind(), Kind::InvalidArgument, "{elsewhere}");
        }
    }
}
