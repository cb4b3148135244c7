//! Queues whose deliveries are leases, topics and subscriptions, by name: each sort has names of its own, apart
//! from the broker's topics too. All are shelves; the messages of a topic lie on those of its subscriptions.

mod label;
mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

pub(super) use label::{About, Label};
pub(super) use shelf::{Delivery, Shelf, Store, store_on_all};

use super::log::Ticket;
use super::log::record::{MessageRecord, Position, Sort};
use super::queue::LeaseQueue;
use super::topic::Shared;
use crate::error::{Error, Kind, Result};

/// A shelf as a start finds it in the log.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sort: Sort,
    pub(super) name: Arc<str>,
    pub(super) label: String,
    pub(super) queue: LeaseQueue,
}

/// How the making of a shelf ended.
#[derive(Debug)]
pub(super) enum Made {
    New(Arc<Shelf>),
    /// It is there, with the same attributes.
    Same,
    /// It is there with others.
    Other,
    /// It is a subscription, and its topic is not there.
    NoTopic,
}

#[derive(Debug, Default)]
struct Shelves {
    by_name: BTreeMap<(Sort, Arc<str>), Arc<Shelf>>,
    by_number: HashMap<u32, Arc<Shelf>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Depot {
    shelves: RwLock<Shelves>,
    shared: Arc<Shared>,
    most: usize,
    /// Cancelled when the broker goes.
    aborted: CancellationToken,
}

impl Depot {
    /// With what a start found. Called on the runtime that the shelves are to run on.
    pub(super) fn new(
        shared: &Arc<Shared>,
        mut kept: Vec<(u32, Kept)>,
        most: usize,
        aborted: CancellationToken,
    ) -> Depot {
        let depot = Depot { shelves: RwLock::default(), shared: Arc::clone(shared), most, aborted };
        let mut shelves = depot.shelves.write();
        kept.sort_unstable_by_key(|(number, _)| *number);
        for (number, kept) in kept {
            let label = Label::read(kept.sort, &kept.label);
            let before = shelves.by_name.get(&(kept.sort, Arc::clone(&kept.name))).map(Arc::clone);
            if let Some(before) = before {
                // The later one holds: it was made when the other was gone already.
                tracing::error!(name = %kept.name, sort = ?kept.sort, "two of one name: the older one goes");
                shelves.by_number.remove(&before.number);
                let _ = before.remove();
            }
            depot.add(&mut shelves, number, kept.name, label, kept.queue);
        }
        drop(shelves);
        depot
    }

    fn add(
        &self,
        shelves: &mut Shelves,
        number: u32,
        name: Arc<str>,
        label: Label,
        queue: LeaseQueue,
    ) -> Arc<Shelf> {
        let key = (label.about.sort(), Arc::clone(&name));
        let gone = self.aborted.child_token();
        let shelf = Arc::new(Shelf::new(number, name, label, queue, Arc::clone(&self.shared), gone));
        shelves.by_name.insert(key, Arc::clone(&shelf));
        shelves.by_number.insert(number, Arc::clone(&shelf));
        let (weak, gone): (Weak<Shelf>, _) = (Arc::downgrade(&shelf), shelf.gone.clone());
        tokio::spawn(shelf::run(weak, gone));
        shelf
    }

    /// The shelf of this name.
    pub(super) fn find(&self, sort: Sort, name: &str) -> Option<Arc<Shelf>> {
        self.shelves.read().by_name.get(&(sort, Arc::from(name))).map(Arc::clone)
    }

    /// The shelf with this number.
    pub(super) fn by_number(&self, number: u32) -> Option<Arc<Shelf>> {
        self.shelves.read().by_number.get(&number).map(Arc::clone)
    }

    /// Makes a shelf, unless there is one of this name. It is safe with the ticket.
    ///
    /// # Errors
    /// `limited` when there are as many as there may be.
    pub(super) fn make(&self, name: &str, about: About) -> Result<(Made, Ticket)> {
        let name: Arc<str> = Arc::from(name);
        let mut shelves = self.shelves.write();
        if let Some(there) = shelves.by_name.get(&(about.sort(), Arc::clone(&name))) {
            let same = there.label().about == about;
            // Whoever made it may still wait for the disk.
            return Ok((if same { Made::Same } else { Made::Other }, self.shared.log.ticket()));
        }
        let topic = name.split_once('/').map_or("", |(topic, _)| topic);
        if about.sort() == Sort::Subscription
            && !shelves.by_name.contains_key(&(Sort::Topic, Arc::from(topic)))
        {
            return Ok((Made::NoTopic, self.shared.log.ticket()));
        }
        if shelves.by_name.len() >= self.most {
            return Err(Error::new(Kind::Limited, "too many queues, topics and subscriptions"));
        }
        let number = self.shared.log.new_topic();
        let shelf = self.add(&mut shelves, number, name, Label::new(about), LeaseQueue::new(number));
        let ticket = shelf.describe_now();
        Ok((Made::New(shelf), ticket))
    }

    /// Removes a shelf with all that is on it, and of a topic its subscriptions; none where there is no such. It is
    /// safe with the ticket.
    pub(super) fn remove(&self, sort: Sort, name: &str) -> Option<Ticket> {
        let mut shelves = self.shelves.write();
        let shelf = shelves.by_name.remove(&(sort, Arc::from(name)))?;
        shelves.by_number.remove(&shelf.number);
        let mut gone = vec![shelf];
        if sort == Sort::Topic {
            for of_topic in below(&shelves, &format!("{name}/")) {
                shelves.by_name.remove(&(Sort::Subscription, Arc::clone(&of_topic.name)));
                shelves.by_number.remove(&of_topic.number);
                gone.push(of_topic);
            }
        }
        // Under the lock: one that is made of the same name is later in the log, too.
        gone.iter().map(|shelf| shelf.remove()).max()
    }

    /// The subscriptions of a topic.
    pub(super) fn subscriptions(&self, topic: &str) -> Vec<Arc<Shelf>> {
        below(&self.shelves.read(), &format!("{topic}/"))
    }

    /// All of a sort.
    pub(super) fn all_of(&self, sort: Sort) -> Vec<Arc<Shelf>> {
        let shelves = self.shelves.read();
        let from = shelves.by_name.range((sort, Arc::from(""))..);
        from.take_while(|((of, _), _)| *of == sort).map(|(_, shelf)| Arc::clone(shelf)).collect()
    }

    /// At most so many of a sort, in order, whose names begin with `prefix` and come after `after`; and whether
    /// there are more.
    pub(super) fn page(
        &self,
        sort: Sort,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> (Vec<Arc<Shelf>>, bool) {
        let shelves = self.shelves.read();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((sort, Arc::from(after))),
            _ => Bound::Included((sort, Arc::from(prefix))),
        };
        let mut found: Vec<Arc<Shelf>> = shelves
            .by_name
            .range((start, Bound::Unbounded))
            .take_while(|((of, name), _)| *of == sort && name.starts_with(prefix))
            .take(most.saturating_add(1))
            .map(|(_, shelf)| Arc::clone(shelf))
            .collect();
        let more = found.len() > most;
        found.truncate(most);
        (found, more)
    }

    /// Every shelf.
    pub(super) fn all(&self) -> Vec<Arc<Shelf>> {
        self.shelves.read().by_number.values().map(Arc::clone).collect()
    }

    /// Writes anew that a shelf exists, unless it was written after this position.
    pub(super) fn describe(&self, number: u32, position: Position) {
        if let Some(shelf) = self.by_number(number) {
            shelf.describe(position);
        }
    }

    /// Writes those messages of a shelf anew that are on it; says whether the number is one of ours.
    pub(super) fn renew(&self, number: u32, records: &[(Position, MessageRecord<'_>)]) -> bool {
        let shelf = self.by_number(number);
        if let Some(shelf) = &shelf {
            shelf.renew(records);
        }
        shelf.is_some()
    }

    /// Drops all shelves; what is on them stays in the log.
    pub(super) fn clear(&self) {
        let mut shelves = self.shelves.write();
        shelves.by_number.clear();
        for shelf in std::mem::take(&mut shelves.by_name).into_values() {
            shelf.gone.cancel();
        }
    }
}

fn below(shelves: &Shelves, prefix: &str) -> Vec<Arc<Shelf>> {
    let from = shelves.by_name.range((Sort::Subscription, Arc::from(prefix))..);
    let of_topic = |((sort, name), _): &(&(Sort, Arc<str>), &Arc<Shelf>)| {
        *sort == Sort::Subscription && name.starts_with(prefix)
    };
    from.take_while(of_topic).map(|(_, shelf)| Arc::clone(shelf)).collect()
}

#[cfg(test)]
mod tests;
