//! At most so many sends under way at once.

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::refusal;
use super::turnstile::{InLine, Turnstile};
use crate::client::Context;
use crate::error::Result;

/// The slots of one process.
#[derive(Debug)]
pub(super) struct Slots {
    most: u64,
    state: Mutex<State>,
    pub(super) line: Turnstile,
    // For the head of the line, which alone waits for it.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    granted: u64,
    limited: u64,
}

/// One slot, given back when this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    silent: bool,
}

impl Slots {
    pub(super) fn new(most: u64) -> Slots {
        Slots { most, state: Mutex::default(), line: Turnstile::default(), freed: Notify::new() }
    }

    /// Takes a slot when one is free and nobody waits.
    ///
    /// # Errors
    /// `limited`.
    pub(super) fn take(&self) -> Result<Slot<'_>> {
        let mut state = self.state.lock();
        if self.line.waiting() > 0 || state.used >= self.most {
            return Err(refusal::limited(None));
        }
        state.used += 1;
        state.granted += 1;
        Ok(Slot { slots: self, silent: false })
    }

    /// The same for the head of the line, which leaves it with that when it is given.
    pub(super) fn take_at_head(&self, place: Option<&mut InLine<'_>>) -> Option<Slot<'_>> {
        let mut state = self.state.lock();
        if state.used >= self.most {
            return None;
        }
        state.used += 1;
        state.granted += 1;
        if let Some(place) = place {
            place.leave();
        }
        Some(Slot { slots: self, silent: false })
    }

    /// Waits in the line for a slot.
    ///
    /// # Errors
    /// `limited` at the deadline; `cancelled`.
    pub(super) async fn wait(&self, ctx: &Context) -> Result<Slot<'_>> {
        let mut place = self.line.join().ok_or_else(refusal::line_full)?;
        let _turn = ctx.run(place.turn()).await.map_err(refusal::ended)?;
        loop {
            if let Some(slot) = self.take_at_head(Some(&mut place)) {
                return Ok(slot);
            }
            ctx.run(self.freed.notified()).await.map_err(refusal::ended)?;
        }
    }

    /// Counts a send that was refused in the end.
    pub(super) fn refused(&self) {
        self.state.lock().limited += 1;
    }

    /// How many are taken.
    #[cfg(feature = "redis")]
    pub(super) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// `granted`, `limited`, `waiting` and `used`.
    pub(super) fn state(&self) -> Value {
        let state = self.state.lock();
        json!({
            "granted": state.granted, "limited": state.limited, "waiting": self.line.waiting(),
            "used": state.used,
        })
    }
}

impl Slot<'_> {
    /// Gives it back without telling the head of the line, which is who gives it back.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) fn put_back(mut self) {
        self.silent = true;
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.state.lock().used -= 1;
        if !self.silent && self.slots.line.waiting() > 0 {
            self.slots.freed.notify_one();
        }
    }
}
