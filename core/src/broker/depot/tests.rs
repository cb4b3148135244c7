use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::broker::config::BrokerConfig;
use crate::broker::hub::Hub;
use crate::broker::log::record::{Journal, Record};
use crate::broker::queue::LeaseDraft;
use crate::broker::store;
use crate::secret::Secret;
use crate::wire::mns::QueueAttributes;

fn hub(folder: Option<&Path>) -> Arc<Hub> {
    let mut config = BrokerConfig::new(Secret::new("test"));
    config.data = folder.map(Path::to_owned);
    let stored = store::open(&config).unwrap();
    Hub::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), stored)
}

fn queue(hub: &Hub, name: &str) -> Arc<Shelf> {
    match hub.depot.make(name, About::Queue(QueueAttributes::default())).unwrap() {
        (Made::New(shelf), _) => shelf,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_two_with_one_name_the_later_holds() {
    let folder = std::env::temp_dir().join(format!("ceiba-depot-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let first = hub(Some(&folder));
    let older = queue(&first, "q");
    let draft = LeaseDraft { body: b"x", note: "", delay_ms: 0, priority: 8, retention_ms: 0 };
    older.store(&[draft]).await.unwrap();
    let newer = first.log().new_topic();
    let label = Label::new(About::Queue(QueueAttributes::default())).to_json();
    let kept = Record::Kept { topic: newer, sort: Sort::Queue, next_sequence: 0, name: "q", label: &label };
    let (_, ticket) = first.log().append(|journal| journal.append(&kept));
    first.log().committed(ticket).await.unwrap();
    first.clear();
    first.log().close().unwrap();
    for _ in 0..2 {
        let next = hub(Some(&folder));
        let all: Vec<u32> = next.depot.all().iter().map(|shelf| shelf.number).collect();
        assert_eq!(all, [newer]);
        assert_eq!(next.depot.find(Sort::Queue, "q").unwrap().number, newer);
        assert_eq!(next.room().used(), 0);
        next.clear();
        next.log().close().unwrap();
    }
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn changes_at_once_lose_nothing() {
    let hub = hub(None);
    let shelf = queue(&hub, "q");
    let more = |about: &About| match about {
        About::Queue(attributes) => {
            let visibility_timeout = Some(attributes.visibility_timeout.unwrap_or(0) + 1);
            Ok(About::Queue(QueueAttributes { visibility_timeout, ..attributes.clone() }))
        }
        other => Err(other.sort()),
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| assert!(shelf.relabel(more).is_ok())));
        }
    });
    let About::Queue(attributes) = &shelf.label().about else { panic!() };
    assert_eq!(attributes.visibility_timeout, Some(2000));
}

#[tokio::test]
async fn what_stands_beside_a_body_counts_too() {
    let hub = hub(None);
    let shelf = queue(&hub, "q");
    let note = "n".repeat(40_000);
    let draft = LeaseDraft { body: b"x", note: &note, delay_ms: 0, priority: 8, retention_ms: 0 };
    let before = hub.log().status().live_bytes;
    shelf.store(&[draft, draft]).await.unwrap();
    assert!(hub.room().used() > 80_000);
    assert!(hub.log().status().live_bytes - before > 80_000);
    for taken in shelf.take(2, 1000, None) {
        assert_eq!(taken.stored.key.as_deref(), Some(&*note));
        let _ = shelf.delete(&[(taken.received.sequence, taken.received.serial)]);
    }
    assert_eq!((hub.room().used(), hub.log().status().live_bytes), (0, before));
}
