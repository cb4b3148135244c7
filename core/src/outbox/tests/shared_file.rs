//! Two clients over one store.

use std::collections::HashMap;

use super::*;

/// Counts who sends what, and when two send the same at once.
struct Counting {
    seen: Mutex<HashMap<Vec<u8>, (usize, usize)>>,
}

impl Producer for Counting {
    fn provider(&self) -> &'static str {
        "counting"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let body = message.body().to_vec();
            {
                let mut seen = self.seen.lock();
                let of = seen.entry(body.clone()).or_default();
                of.0 += 1;
                of.1 += 1;
                assert_eq!(of.1, 1, "two send it at once");
            }
            tokio::task::yield_now().await;
            self.seen.lock().get_mut(&body).unwrap().1 -= 1;
            Ok(Receipt::sent("counting"))
        })
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Value {
        json!({})
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_share_ten_thousand_rows() {
    const ROWS: usize = 10_000;
    let folder = Folder::new();
    let one = another(&folder.file()).await;
    for part in 0..ROWS / 1000 {
        let rows = (0..1000).map(|number| row(&format!("{}", part * 1000 + number))).collect();
        one.insert(&soon(), rows).await.unwrap();
    }
    let counting = Arc::new(Counting { seen: Mutex::default() });
    let mut outboxes = Vec::new();
    for store in [one, another(&folder.file()).await] {
        let section = json!({"type": "outbox", "url": "sqlite:unused", "poll": "10ms"});
        let deadline = Duration::from_secs(30);
        let setup = Setup {
            id: "orders".into(),
            deadline,
            clock: Clock::from_system(),
            random: Random::seeded(1),
            notifier: None,
        };
        let section = Section::parse(section.as_object().unwrap().clone(), deadline).unwrap();
        outboxes.push(section.wrap_over(setup, counting.clone(), store).unwrap());
    }
    until("all", || counting.seen.lock().len() == ROWS).await;
    let sent = |outbox: &Arc<Outbox>| outbox.status()["strategies"][0]["sent"].as_u64().unwrap();
    until("the counts", || outboxes.iter().map(sent).sum::<u64>() == ROWS as u64).await;
    assert!(counting.seen.lock().values().all(|(times, _)| *times == 1), "one was sent twice");
    let shares: Vec<u64> = outboxes.iter().map(sent).collect();
    assert!(shares.iter().all(|share| *share > 0), "one did all: {shares:?}");
    for outbox in outboxes {
        outbox.close(&soon()).await.unwrap();
    }
}
