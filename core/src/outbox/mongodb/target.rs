//! Where the store is: `mongodb://[USER:PASSWORD@]HOST[:PORT][,…]/[DATABASE][?OPTION=VALUE&…]`, with the options of MongoDB and
//! one of ours, `collection`.

use mongodb::options::{ConnectionString, Tls};
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const DATABASE: &str = "ceiba";
const COLLECTION: &str = "ceiba_outbox";

/// Bytes of a collection's name: those of the others, which are beside it, are longer.
const NAME: usize = 100;

/// See the module. It prints no user and no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Secret,
    database: String,
    collection: String,
}

impl Target {
    /// Reads the address, which is not quoted in errors.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::outbox) fn parse(text: &str) -> Result<Target> {
        let wrong = |what: &str| {
            let form = "write mongodb://USER:PASSWORD@HOST/DATABASE?collection=NAME";
            Error::new(Kind::InvalidConfig, format!("`url`: {what}: {form}"))
        };
        if text.starts_with("mongodb+srv:") {
            // What looks names up in this way has as many crates as the rest of the driver.
            return Err(wrong(
                "mongodb+srv is not looked up here: name the hosts, tls=true and the replicaSet",
            ));
        }
        let (base, query) = match text.split_once('?') {
            Some((base, query)) => (base, query),
            None => (text, ""),
        };
        let mut collection = None;
        let mut others = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("collection", name)) if collection.is_none() => {
                    let name = percent_decode_str(name).decode_utf8();
                    collection = Some(name.map_err(|_| wrong("its `collection` is no text"))?.into_owned());
                }
                Some(("collection", _)) => return Err(wrong("it names two collections")),
                _ => others.push(option),
            }
        }
        let collection = collection.unwrap_or_else(|| COLLECTION.to_owned());
        let fits = !collection.is_empty() && collection.len() <= NAME;
        if !fits || collection.starts_with("system.") || collection.contains(['$', '\0']) {
            return Err(wrong("its `collection` cannot be the name of one"));
        }
        let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        // What the driver says of it may quote a part of the password.
        let read = ConnectionString::parse(&url).map_err(|_| wrong("it is no address of a MongoDB"))?;
        if let Some(Tls::Enabled(tls)) = &read.tls
            && tls.allow_invalid_certificates == Some(true)
        {
            return Err(wrong("certificates are always verified: name a `tlsCAFile`"));
        }
        let database = read.default_database.unwrap_or_else(|| DATABASE.to_owned());
        Ok(Target { url: Secret::new(url), database, collection })
    }

    pub(super) fn url(&self) -> &str {
        self.url.expose()
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn collection(&self) -> &str {
        &self.collection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_never_printed() {
        let target =
            Target::parse("mongodb://ann:p%40ss@h1:1,h2:2/shop?w=1&collection=out%62ox&tls=true").unwrap();
        assert_eq!(target.url(), "mongodb://ann:p%40ss@h1:1,h2:2/shop?w=1&tls=true");
        assert_eq!((target.database(), target.collection()), ("shop", "outbox"));
        let printed = format!("{target:?}");
        assert!(!printed.contains("ann") && !printed.contains("p%40ss"), "{printed}");
        let target = Target::parse("mongodb://localhost").unwrap();
        assert_eq!((target.database(), target.collection()), ("ceiba", "ceiba_outbox"));
        assert_eq!(target.url(), "mongodb://localhost");
    }

    #[test]
    fn a_wrong_address_is_not_quoted() {
        for (url, named) in [
            ("mongodb://", "no address"),
            ("mongodb+srv://ann:hunter2@h/db", "mongodb+srv"),
            ("mongodb://ann:hunter2/x@h/db", "no address"),
            ("mongodb://ann:hunter2@h/db?collection=", "collection"),
            ("mongodb://ann:hunter2@h/db?collection=system.users", "collection"),
            ("mongodb://ann:hunter2@h/db?collection=a$b", "collection"),
            ("mongodb://ann:hunter2@h/db?collection=a&collection=b", "two"),
            ("mongodb://ann:hunter2@h/db?tls=true&tlsInsecure=true", "verified"),
            ("mongodb://ann:hunter2@h/db?tls=true&tlsAllowInvalidCertificates=true", "verified"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.text().contains(named), "{url}: {error}");
            assert!(!error.text().contains("hunter2"), "{error}");
        }
    }
}
