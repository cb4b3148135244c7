//! Limiters by key: those of one process that name the same key share one state.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Limiter;
use super::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::runtime::PerGeneration;

type Known = HashMap<String, (Settings, Weak<Limiter>)>;

// A forked child has limiters of its own: the parent's lock may be held by a thread that the child does not have.
static KNOWN: PerGeneration<Mutex<Known>> = PerGeneration::new();

/// The limiter with this key, made when there is none.
///
/// # Errors
/// `invalid_config` when the key is in use with other settings; those of `make`.
pub(super) fn shared(
    key: &str,
    settings: &Settings,
    make: impl FnOnce() -> Result<Limiter>,
) -> Result<Arc<Limiter>> {
    let mut known = KNOWN.get_or_try_init(|| Ok(Mutex::default()))?.lock();
    known.retain(|_, (_, limiter)| limiter.strong_count() > 0);
    if let Some((settled, limiter)) = known.get(key)
        && let Some(limiter) = limiter.upgrade()
    {
        if settled != settings {
            let text = format!(
                "`key`: the rate limit `{key}` is open with other settings; all that share a key have the same"
            );
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        return Ok(limiter);
    }
    let limiter = Arc::new(make()?);
    known.insert(key.to_owned(), (settings.clone(), Arc::downgrade(&limiter)));
    Ok(limiter)
}
