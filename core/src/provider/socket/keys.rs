//! The keys of a section that all clients with connections have.

use std::time::Duration;

use crate::config::{Role, Span};
use crate::error::{Error, Kind, Result};

/// How often connections are checked, and tried again.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Pace {
    pub(in crate::provider) check_time: Duration,
    pub(in crate::provider) reconnect_base: Duration,
    pub(in crate::provider) reconnect_max: Duration,
}

impl Pace {
    /// Checks the keys `check_time`, `reconnect_base` and `reconnect_max`, with their defaults.
    pub(in crate::provider) fn read(
        check_time: Option<Span>,
        reconnect_base: Option<Span>,
        reconnect_max: Option<Span>,
    ) -> Result<Pace> {
        let wrong = |text: &str| Err(Error::new(Kind::InvalidConfig, text));
        let pace = Pace {
            check_time: check_time.map_or(Duration::from_secs(10), |span| span.0),
            reconnect_base: reconnect_base.map_or(Duration::from_millis(100), |span| span.0),
            reconnect_max: reconnect_max.map_or(Duration::from_secs(5), |span| span.0),
        };
        // Shorter ones would be a busy loop.
        let shortest = Duration::from_millis(10);
        if pace.check_time < shortest || pace.reconnect_base < shortest {
            return wrong("`check_time` and `reconnect_base` must be at least 10ms");
        }
        if pace.reconnect_max < pace.reconnect_base {
            return wrong("`reconnect_max` must not be shorter than `reconnect_base`");
        }
        Ok(pace)
    }
}

/// How much a consumer reads ahead.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Prefetch {
    pub(in crate::provider) count: usize,
    pub(in crate::provider) bytes: usize,
}

impl Prefetch {
    /// Checks the keys `prefetch` and `prefetch_bytes`, with their defaults.
    pub(in crate::provider) fn read(count: Option<u64>, bytes: Option<u64>) -> Result<Prefetch> {
        let prefetch = Prefetch {
            count: whole("prefetch", count, 1000)?,
            bytes: whole("prefetch_bytes", bytes, 64 << 20)?,
        };
        if prefetch.count == 0 || prefetch.bytes == 0 {
            let text = "`prefetch` and `prefetch_bytes` must be at least 1";
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        Ok(prefetch)
    }
}

fn whole(name: &str, value: Option<u64>, default: usize) -> Result<usize> {
    value.map_or(Ok(default), |value| {
        usize::try_from(value).map_err(|_| Error::new(Kind::InvalidConfig, format!("`{name}` is too large")))
    })
}

/// Refuses keys that are set and belong to the other role.
pub(in crate::provider) fn refuse_foreign(
    role: Role,
    of_producers: &[(&str, bool)],
    of_consumers: &[(&str, bool)],
) -> Result<()> {
    let (own, other, foreign) = match role {
        Role::Producer => ("producer", "consumers", of_consumers),
        Role::Consumer => ("consumer", "producers", of_producers),
    };
    match foreign.iter().find(|(_, set)| *set) {
        Some((name, _)) => {
            let text = format!("`{name}` is a key of {other}: this is a {own}");
            Err(Error::new(Kind::InvalidConfig, text))
        }
        None => Ok(()),
    }
}

/// The id that a server knows a client by, where the config names none.
pub(in crate::provider) fn default_client_id(id: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "host".to_owned());
    // The wire cannot carry a `/`.
    format!("{id}-{host}-{}-{:08x}", std::process::id(), crate::random::fresh() as u32).replace('/', "_")
}
