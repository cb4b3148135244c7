//! The deliveries themselves, and when each is to be renewed. Nothing here waits, and no call looks at all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::CodeAndHandle;
use crate::message::Delivery;

/// The time that is taken off what the service says, as its times have whole seconds, and a little more: so long a word of
/// the host may still come in time, with the handle that is known here alone.
const LATE: Duration = Duration::from_millis(1500);

#[derive(Debug)]
struct Entry {
    handle: Arc<str>,
    // Until the host receives it.
    delivery: Option<Delivery>,
    // When it came, and from then on when the host received it.
    since: Instant,
    renew_at: Instant,
    due: Instant,
    renewing: bool,
    // Words about it that wait or are being said: its time is not renewed any more.
    said: u32,
    listed: Listed,
}

/// Where an entry waits for its time. One that is being renewed or spoken of is nowhere: it tells when that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Nowhere,
    /// To be looked at then.
    Agenda(Instant),
    /// To be renewed, with those that are due first before it.
    Ripe(Instant),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Arc<str>, Entry>,
    agenda: BTreeSet<(Instant, Arc<str>)>,
    ripe: BTreeSet<(Instant, Arc<str>)>,
    pub(super) lapsed: u64,
}

/// What the host gets of a delivery that waits for it.
pub(super) enum Handed {
    Delivery(Delivery),
    /// Whether it is still this consumer's is known once its renewal has ended.
    Later,
    /// It is another's already.
    Gone,
}

/// What a word about a delivery is said with.
pub(super) enum Spoken {
    Handle(Arc<str>),
    /// Another handle is on its way.
    Later,
    /// It is not in the table: its code is its handle.
    Unknown,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, delivery: Delivery, hidden: Duration, now: Instant) {
        let code = delivery.code.clone();
        self.remove(&code);
        let entry = Entry {
            handle: code.clone(),
            delivery: Some(delivery),
            since: now,
            renew_at: now + hidden / 2,
            due: now + hidden,
            renewing: false,
            said: 0,
            listed: Listed::Nowhere,
        };
        self.entries.insert(code.clone(), entry);
        self.list(&code);
    }

    fn unlist(&mut self, code: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(code) else { return };
        match std::mem::replace(&mut entry.listed, Listed::Nowhere) {
            Listed::Nowhere => {}
            Listed::Agenda(at) => drop(self.agenda.remove(&(at, code.clone()))),
            Listed::Ripe(at) => drop(self.ripe.remove(&(at, code.clone()))),
        }
    }

    fn list(&mut self, code: &Arc<str>) {
        self.unlist(code);
        if let Some(entry) = self.entries.get_mut(code)
            && !entry.renewing
            && entry.said == 0
        {
            entry.listed = Listed::Agenda(entry.renew_at);
            self.agenda.insert((entry.renew_at, code.clone()));
        }
    }

    fn remove(&mut self, code: &Arc<str>) -> bool {
        self.unlist(code);
        self.entries.remove(code).is_some()
    }

    fn lapse(&mut self, code: &Arc<str>) {
        self.lapsed += u64::from(self.remove(code));
    }

    /// Hands a delivery to the host, who has it from now on.
    pub(super) fn hand_over(&mut self, code: &Arc<str>, now: Instant) -> Handed {
        let Some(entry) = self.entries.get_mut(code) else { return Handed::Gone };
        match (entry.due > now, entry.renewing) {
            (false, true) => Handed::Later,
            (false, false) => {
                self.lapse(code);
                Handed::Gone
            }
            (true, _) => {
                entry.since = now;
                let delivery = entry.delivery.take();
                self.list(code);
                delivery.map_or(Handed::Gone, Handed::Delivery)
            }
        }
    }

    /// A word about it waits.
    pub(super) fn say(&mut self, code: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(code) {
            entry.said += 1;
        }
        self.unlist(code);
    }

    pub(super) fn spoken(&self, code: &str) -> Spoken {
        match self.entries.get(code) {
            None => Spoken::Unknown,
            Some(entry) if entry.renewing => Spoken::Later,
            Some(entry) => Spoken::Handle(entry.handle.clone()),
        }
    }

    /// A word about it was said, after which it is over or not.
    pub(super) fn was_said(&mut self, code: &Arc<str>, over: bool) {
        if over {
            self.remove(code);
            return;
        }
        if let Some(entry) = self.entries.get_mut(code) {
            entry.said = entry.said.saturating_sub(1);
        }
        self.list(code);
    }

    /// Up to `most` that are to be renewed now, those first whose time is over first, marked as being renewed; and when to
    /// ask again, where not one of those that are ripe is left out.
    pub(super) fn renewals(
        &mut self,
        extend_for: Duration,
        most: usize,
        now: Instant,
    ) -> (Vec<CodeAndHandle>, Option<Instant>) {
        while let Some((at, _)) = self.agenda.first()
            && *at <= now
            && let Some((_, code)) = self.agenda.pop_first()
        {
            self.look_at(code, extend_for, now);
        }
        let mut found = Vec::new();
        while found.len() < most
            && let Some((_, code)) = self.ripe.pop_first()
        {
            let Some(entry) = self.entries.get_mut(&code) else { continue };
            entry.listed = Listed::Nowhere;
            if entry.due > now {
                entry.renewing = true;
                found.push((code, entry.handle.clone()));
            } else {
                self.look_at(code, extend_for, now);
            }
        }
        (found, self.agenda.first().map(|(at, _)| *at))
    }

    // Puts one that is listed nowhere where it belongs.
    fn look_at(&mut self, code: Arc<str>, extend_for: Duration, now: Instant) {
        let Some(entry) = self.entries.get_mut(&code) else { return };
        // What the host has it may still speak of.
        let end = if entry.delivery.is_some() { entry.due } else { entry.due + LATE };
        if end <= now {
            entry.listed = Listed::Nowhere;
            self.lapse(&code);
        } else if entry.due > now && now.saturating_duration_since(entry.since) < extend_for {
            entry.listed = Listed::Ripe(entry.due);
            self.ripe.insert((entry.due, code));
        } else {
            entry.listed = Listed::Agenda(end);
            self.agenda.insert((end, code));
        }
    }

    /// How a renewal ended; `over` where the service knows the delivery no more.
    pub(super) fn was_renewed(
        &mut self,
        code: &Arc<str>,
        renewed: Option<(Arc<str>, Duration)>,
        over: bool,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(code) else { return };
        entry.renewing = false;
        if over {
            return self.lapse(code);
        }
        match renewed {
            Some((handle, hidden)) => {
                entry.handle = handle;
                entry.renew_at = now + hidden / 2;
                entry.due = now + hidden;
            }
            // Once more before it is too late, and not in a loop.
            None => {
                let left = entry.due.saturating_duration_since(now) / 3;
                entry.renew_at = now + left.max(Duration::from_millis(20));
            }
        }
        self.list(code);
    }

    /// Takes out all that nothing is being done about: their handles. What is left tells when that has ended.
    pub(super) fn let_go(&mut self) -> Vec<Arc<str>> {
        let idle = |entry: &mut Entry| !entry.renewing && entry.said == 0;
        let gone: Vec<(Arc<str>, Entry)> = self.entries.extract_if(|_, entry| idle(entry)).collect();
        self.agenda.clear();
        self.ripe.clear();
        gone.into_iter().map(|(_, entry)| entry.handle).collect()
    }
}
