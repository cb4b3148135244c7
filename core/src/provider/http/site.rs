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

    /// Refuses an address that says more than a server: what follows would be left out.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::provider) fn bare(self, key: &str) -> Result<Site> {
        if self.url.path() != "/" || self.url.query().is_some() {
            let text = format!("`{key}` names a server only: nothing may follow its port");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        Ok(self)
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
        // A value of only dots would lead to another path.
        let path = text.split(['?', '#']).next().unwrap_or_default();
        if path
            .split(['/', '\\'])
            .any(|part| matches!(&*part.to_ascii_lowercase().replace("%2e", "."), "." | ".."))
        {
            return Err(wrong("leads to another path with this message"));
        }
        let made = Site::parse("url", text).map_err(|_| wrong("is not valid with this message"))?;
        if made.label != self.label || made.authorization != self.authorization {
            return Err(wrong("leads elsewhere with this message"));
        }
        Ok(made.url)
    }
}

/// What may be a secret of an address that is a template: whatever stands outside of its places for values and is long
/// enough.
pub(in crate::provider) fn secrets_around(template: &str) -> Vec<Secret> {
    let rest = template.split_once("://").map_or(template, |(_, rest)| rest);
    let mut fixed = String::new();
    let mut rest = rest.split_once(['/', '?']).map_or("", |(_, rest)| rest);
    while let Some(begin) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        fixed.push_str(rest.get(..begin).unwrap_or_default());
        fixed.push('&');
        let inside = rest.get(begin..).unwrap_or_default();
        let end = inside.find("}}").into_iter().chain(inside.find("%}")).min();
        rest = end.and_then(|end| inside.get(end + 2..)).unwrap_or_default();
    }
    fixed.push_str(rest);
    let words = fixed.split(['/', '?', '&', '=', '#', ';', '+']).filter(|word| word.len() >= 8);
    let decoded = |word: &str| percent_decode_str(word).decode_utf8_lossy().into_owned();
    words.flat_map(|word| [Secret::new(word), Secret::new(decoded(word))]).collect()
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
    fn what_stands_around_the_values_may_be_secret() {
        let text = "http://u:p@host.example.com/first-part/{{ a|default('inside-a-place') }}?k=se%2Fcond-part&t={{ b }}&s=third-part#x";
        let secrets = secrets_around(text);
        let secrets: Vec<&str> = secrets.iter().map(Secret::expose).collect();
        for word in ["first-part", "se%2Fcond-part", "se/cond-part", "third-part"] {
            assert!(secrets.contains(&word), "{word}: {secrets:?}");
        }
        assert!(
            !secrets.iter().any(|word| word.contains("host.example") || word.contains("inside")),
            "{secrets:?}"
        );
        assert!(secrets_around("http://host.example.com").is_empty());
    }

    #[test]
    fn a_value_of_dots_moves_no_request() {
        let site = Site::parse("url", "http://a.example/send/").unwrap();
        for moved in
            ["/send/../admin", "/send/./x", "/send/..", "/send/%2e%2E/x", "/send/.%2e?x", "/send/..#x"]
        {
            let error = site.joined(&format!("http://a.example{moved}")).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{moved}");
        }
        for fine in ["/send/a..b", "/send/...", "/send/x?y=/../z", "/send/%252e%252e"] {
            site.joined(&format!("http://a.example{fine}")).unwrap();
        }
    }

    #[test]
    fn a_server_alone_is_bare() {
        let bare = |text: &str| Site::parse("endpoint", text).unwrap().bare("endpoint");
        assert!(bare("http://a.example").is_ok() && bare("http://a.example/").is_ok());
        for more in ["http://a.example/x", "http://a.example/?x=1"] {
            let error = bare(more).err().unwrap_or_else(|| panic!("{more} was taken"));
            assert!(error.kind() == Kind::InvalidConfig && error.message().contains("`endpoint`"), "{error}");
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
