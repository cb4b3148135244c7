//! The keys of a section that concern connections.

use std::path::PathBuf;

use super::site::Site;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The most connections of a producer.
const MAX_CONNECTIONS: u32 = 1024;

/// See the module.
#[derive(Default)]
pub(in crate::provider) struct Options {
    /// PEM file with the only certificates to trust; default those of the system.
    pub(in crate::provider) ca_file: Option<PathBuf>,
    /// Requests on their way at once, each on a connection of its own; default 8.
    pub(in crate::provider) connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    pub(in crate::provider) proxy: Option<Secret>,
}

impl Options {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::provider) fn check(&self) -> Result<()> {
        if !(1..=MAX_CONNECTIONS).contains(&self.connections()) {
            let text = format!("`connections` must be from 1 to {MAX_CONNECTIONS}");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        self.proxy().map(drop)
    }

    pub(in crate::provider) fn connections(&self) -> u32 {
        self.connections.unwrap_or(8)
    }

    pub(super) fn proxy(&self) -> Result<Option<reqwest::Proxy>> {
        match &self.proxy {
            Some(proxy) if proxy.expose() != "environment" => {
                Site::parse("proxy", proxy.expose())?;
                // Its text can quote the address.
                let wrong = |_| Error::new(Kind::InvalidConfig, "`proxy` is not the address of a proxy");
                Ok(Some(reqwest::Proxy::all(proxy.expose()).map_err(wrong)?))
            }
            _ => Ok(None),
        }
    }
}
