//! MNS queues of a broker that is killed, and of one whose disk is full.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceiba_core::wire::mns::{
    Account, MAX_BATCH, Operation, Outgoing, QueueAttributes, Received, Refusal, Request, Sent, Visibility,
    decode_each_received, headers,
};
use ceiba_tests::program::BrokerProcess;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::broker::{Folder, Setting, number, runtime, turn};
use crate::crash::{SEGMENT, first_seed};
use crate::mounts::{Mount, skipped};

const ACCOUNT: Account<'_> = Account { key_id: "id", key_secret: "secret", security_token: None };
const SOON: Duration = Duration::from_secs(15);
/// How long a received message is hidden from others, in seconds.
const HIDDEN: u32 = 3;
/// A message that its broker answered nothing about may be there or not: so many at most for each strike.
const LANES: usize = 6;

/// The front of a broker that is started again and again at the same address.
struct Front {
    setting: Setting,
    address: SocketAddr,
}

/// What came of a request.
#[derive(Debug)]
enum Told {
    /// The body of an answer of success.
    Done(Bytes),
    /// The code of a refusal.
    Refused(String),
    /// The connection ended, or there was none.
    Lost,
}

impl Front {
    fn start(data: &Path) -> (Front, BrokerProcess) {
        let arguments = ["--mns", "127.0.0.1:0", "--mns-key", "id:secret", SEGMENT];
        let mut setting = Setting::new(data, &arguments);
        let broker = setting.start().unwrap();
        let address = broker.mns_address();
        // From now on at this one.
        setting.arguments[1] = address.to_string();
        (Front { setting, address }, broker)
    }

    async fn ask(&self, operation: &Operation<'_>) -> Told {
        let request = operation.encode();
        match tokio::time::timeout(Duration::from_secs(40), exchange(self.address, &request)).await {
            Ok(Some((200..300, body))) => Told::Done(body),
            Ok(Some((_, body))) => Told::Refused(Refusal::decode(&body).unwrap().code),
            Ok(None) => Told::Lost,
            Err(_) => panic!("no answer to {request:?}"),
        }
    }

    async fn done(&self, operation: &Operation<'_>) -> Bytes {
        match self.ask(operation).await {
            Told::Done(body) => body,
            other => panic!("{operation:?}: {other:?}"),
        }
    }

    async fn send(&self, body: &str, delay: u32) -> Result<Sent, Told> {
        let delay_seconds = (delay > 0).then_some(delay);
        let message = Outgoing { body: body.into(), delay_seconds, ..Outgoing::default() };
        match self.ask(&Operation::Send { queue: "q".into(), message }).await {
            Told::Done(answer) => Ok(Sent::decode(&answer).unwrap()),
            other => Err(other),
        }
    }

    /// What can be received within so many seconds; none also where the connection was lost.
    async fn receive(&self, wait: u32) -> Vec<Received<'static>> {
        let asked = Operation::ReceiveBatch { queue: "q".into(), number: MAX_BATCH as u32, wait: Some(wait) };
        match self.ask(&asked).await {
            Told::Done(answer) => decode_each_received(&answer)
                .unwrap()
                .into_iter()
                .map(|received| owned(&received.unwrap()))
                .collect(),
            Told::Refused(code) => {
                assert_eq!(code, "MessageNotExist");
                Vec::new()
            }
            Told::Lost => Vec::new(),
        }
    }

    async fn delete(&self, handle: &str) -> Told {
        self.ask(&Operation::Delete { queue: "q".into(), handle: handle.into() }).await
    }

    async fn hide(&self, handle: &str, timeout: u32) -> Result<String, Told> {
        let change = Operation::ChangeVisibility { queue: "q".into(), handle: handle.into(), timeout };
        match self.ask(&change).await {
            Told::Done(answer) => Ok(Visibility::decode(&answer).unwrap().receipt_handle),
            other => Err(other),
        }
    }

    async fn queue(&self, hidden: u32) {
        let attributes = QueueAttributes { visibility_timeout: Some(hidden), ..QueueAttributes::default() };
        self.done(&Operation::CreateQueue { queue: "q".into(), attributes }).await;
    }
}

fn owned(received: &Received<'_>) -> Received<'static> {
    Received {
        message_id: received.message_id.to_string().into(),
        receipt_handle: received.receipt_handle.as_ref().map(|handle| handle.to_string().into()),
        body: received.body.to_string().into(),
        dequeue_count: received.dequeue_count,
        next_visible_time: received.next_visible_time,
        ..Received::default()
    }
}

fn handle(received: &Received<'_>) -> String {
    received.receipt_handle.as_ref().unwrap().to_string()
}

/// One request on a connection of its own: status and body, or none where the connection ended before.
async fn exchange(address: SocketAddr, request: &Request) -> Option<(u16, Bytes)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut text =
        format!("{} {} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n", request.method, request.resource);
    for (name, value) in headers(ACCOUNT, request, request.body.as_bytes(), std::time::SystemTime::now()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{}", request.body.len(), request.body));
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok()?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    let body = Bytes::from(bytes).slice(end + 4..);
    // What broke off is no answer.
    (body.len() == length).then(|| (head.split(' ').nth(1).unwrap().parse().unwrap(), body))
}

#[test]
fn who_has_an_mns_message_has_it_after_a_kill() {
    let _turn = turn();
    runtime().block_on(async {
        let folder = Folder::new("mns-kill");
        let (mut front, broker) = Front::start(&folder.path().join("data"));
        // Whatever is done below is done before that is over.
        front.queue(120).await;
        for body in ["kept", "taken", "hidden", "deleted", "given back"] {
            front.send(body, 0).await.unwrap();
        }
        let late = front.send("late", 600).await.unwrap();
        let later = front.send("later", 6).await.unwrap();
        let mut taken: HashMap<String, Received<'_>> = HashMap::new();
        while taken.len() < 5 {
            taken.extend(front.receive(1).await.into_iter().map(|one| (one.body.to_string(), one)));
        }
        // One of each sort: back in the queue, in somebody's hands, in them for longer, and gone.
        front.hide(&handle(&taken["kept"]), 0).await.unwrap();
        front.hide(&handle(&taken["given back"]), 0).await.unwrap();
        let hidden = front.hide(&handle(&taken["hidden"]), 600).await.unwrap();
        assert!(matches!(front.delete(&handle(&taken["deleted"])).await, Told::Done(_)));
        let taken_at = Instant::now();
        let held = front.hide(&handle(&taken["taken"]), HIDDEN).await.unwrap();
        broker.kill();
        let broker = front.setting.start().unwrap();

        // What came with the handles of before is told as if nothing had happened.
        for (gone, code) in [
            (handle(&taken["hidden"]), "MessageNotExist"),
            (handle(&taken["deleted"]), "MessageNotExist"),
            ("nobody-gave-this".to_owned(), "ReceiptHandleError"),
        ] {
            match front.delete(&gone).await {
                Told::Refused(told) => assert_eq!(told, code),
                other => panic!("{gone}: {other:?}"),
            }
        }
        assert!(matches!(front.delete(&hidden).await, Told::Done(_)), "its handle is still the one");
        assert!(matches!(front.delete(late.receipt_handle.as_ref().unwrap()).await, Told::Done(_)));
        // The others come, each in its time, and none that is gone.
        let mut came: HashMap<String, (Instant, u32)> = HashMap::new();
        let since = Instant::now();
        while came.len() < 4 {
            assert!(since.elapsed() < SOON * 2, "only {came:?}");
            for one in front.receive(1).await {
                let known = came.insert(one.body.to_string(), (Instant::now(), one.dequeue_count));
                assert!(known.is_none(), "{} twice", one.body);
                assert!(matches!(front.delete(&handle(&one)).await, Told::Done(_)));
            }
        }
        let wanted: HashSet<&str> = ["kept", "given back", "taken", "later"].into();
        assert_eq!(came.keys().map(String::as_str).collect::<HashSet<_>>(), wanted);
        assert!(came["taken"].0 - taken_at >= Duration::from_secs(u64::from(HIDDEN)), "before its time");
        assert_eq!(
            (came["kept"].1, came["taken"].1, came["later"].1),
            (2, 2, 1),
            "how often each was received"
        );
        // Neither can be said anything of who had it before.
        for gone in [held, later.receipt_handle.unwrap()] {
            assert!(matches!(front.delete(&gone).await, Told::Refused(code) if code == "MessageNotExist"));
        }
        assert!(front.receive(HIDDEN + 1).await.is_empty());
        broker.kill();
        let broker = front.setting.start().unwrap();
        assert!(front.receive(HIDDEN + 1).await.is_empty(), "what was deleted is back");
        broker.stop();
    });
}

/// What the clients of a run know.
#[derive(Default)]
struct Book {
    /// Sent and answered, and not yet deleted by an answered delete.
    there: HashSet<String>,
    /// Those whose delete was answered.
    deleted: HashSet<String>,
    /// Sent or deleted without an answer: there or not.
    unknown: HashSet<String>,
}

type Shared = std::sync::Arc<std::sync::Mutex<Book>>;

/// Sends, receives, hides and deletes until it is told to stop.
async fn lane(
    front: &Front,
    book: &Shared,
    lane: usize,
    mut random: StdRng,
    stop: &std::sync::atomic::AtomicBool,
) {
    let mut next = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        next += 1;
        let body = format!("{lane}-{next}-{}", random.random_range(0..u32::MAX));
        let delay = if random.random_ratio(1, 8) { 1 } else { 0 };
        match front.send(&body, delay).await {
            Ok(_) => {
                let mut book = book.lock().unwrap();
                // Another lane may have been faster with it than its answer.
                if !book.deleted.contains(&body) && !book.unknown.contains(&body) {
                    book.there.insert(body);
                }
            }
            Err(Told::Lost) => {
                book.lock().unwrap().unknown.insert(body);
                // It is away for a moment.
                sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
        if random.random_ratio(1, 3) {
            continue;
        }
        for one in front.receive(0).await {
            assert!(!book.lock().unwrap().deleted.contains(&*one.body), "{} was deleted", one.body);
            let mut handle = handle(&one);
            if random.random_ratio(1, 4) {
                match front.hide(&handle, random.random_range(0..3)).await {
                    Ok(renewed) => handle = renewed,
                    // Its time was over while the broker was away, or it was given back at once.
                    Err(Told::Refused(code)) => assert_eq!(code, "MessageNotExist"),
                    Err(_) => {}
                }
            }
            if random.random_ratio(1, 3) {
                continue;
            }
            let told = front.delete(&handle).await;
            let mut book = book.lock().unwrap();
            match told {
                Told::Done(_) => {
                    book.unknown.remove(&*one.body);
                    book.there.remove(&*one.body);
                    book.deleted.insert(one.body.into_owned());
                }
                Told::Refused(code) => assert_eq!(code, "MessageNotExist"),
                Told::Lost => {
                    book.there.remove(&*one.body);
                    book.unknown.insert(one.body.into_owned());
                }
            }
        }
    }
}

async fn strikes(cycles: u64, seed: u64) {
    let folder = Folder::new("mns-crash");
    let (mut front, mut broker) = Front::start(&folder.path().join("data"));
    front.queue(HIDDEN).await;
    let mut random = StdRng::seed_from_u64(seed);
    let book = Shared::default();
    for cycle in 0..cycles {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let before = book.lock().unwrap().deleted.len();
        let lanes = (0..LANES).map(|number| {
            let seed = random.random();
            lane(&front, &book, number + LANES * cycle as usize, StdRng::seed_from_u64(seed), &stop)
        });
        let lanes: Vec<_> = lanes.collect();
        let pause = Duration::from_millis(random.random_range(100..600));
        let strike = async {
            sleep(pause).await;
            let since = Instant::now();
            while book.lock().unwrap().deleted.len() < before + 5 {
                assert!(since.elapsed() < SOON, "nothing goes on");
                sleep(Duration::from_millis(2)).await;
            }
            let killed = tokio::task::spawn_blocking(move || broker.kill());
            killed.await.unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        tokio::join!(futures_util::future::join_all(lanes), strike);
        broker =
            front.setting.start().unwrap_or_else(|error| panic!("cycle {cycle} of seed {seed}: {error}"));
    }
    // Everything comes that was accepted and not deleted, and nothing that was deleted.
    let Book { mut there, deleted, mut unknown } = std::mem::take(&mut *book.lock().unwrap());
    let (mut quiet, since) = (0, Instant::now());
    while quiet < 2 {
        assert!(since.elapsed() < SOON * 4, "there is no end: {} left", there.len());
        let came = front.receive(HIDDEN + 1).await;
        quiet = if came.is_empty() { quiet + 1 } else { 0 };
        let deletes = came.iter().map(|one| async { front.delete(&handle(one)).await });
        let ends = futures_util::future::join_all(deletes).await;
        for (one, end) in came.iter().zip(ends) {
            assert!(!deleted.contains(&*one.body), "{} was deleted (seed {seed})", one.body);
            let known = there.remove(&*one.body) || unknown.remove(&*one.body);
            assert!(known, "{} came again after its delete, or was never sent (seed {seed})", one.body);
            assert!(matches!(end, Told::Done(_)), "{end:?} (seed {seed})");
        }
    }
    assert!(there.is_empty(), "{} accepted messages are lost (seed {seed}): {there:?}", there.len());
    assert!(deleted.len() as u64 >= 5 * cycles, "{}", deleted.len());
    let attributes = front.done(&Operation::GetQueue { queue: "q".into() }).await;
    let meta =
        <ceiba_core::wire::mns::QueueMeta as ceiba_core::wire::mns::Named>::decode(&attributes).unwrap();
    assert_eq!((meta.active_messages, meta.inactive_messages, meta.delay_messages), (0, 0, 0));
    broker.stop();
}

#[test]
fn kills_under_load_lose_no_mns_message_that_was_accepted() {
    let _turn = turn();
    let cycles = number("CEIBA_CRASH_CYCLES").unwrap_or(10);
    runtime().block_on(strikes(cycles, first_seed()));
}

async fn full_disk(mount: &Mount) {
    let (mut front, mut broker) = Front::start(&mount.path().join("data"));
    front.queue(HIDDEN).await;
    let body = |number: usize| format!("{number}-{}", "x".repeat(20_000));
    let mut accepted = HashSet::new();
    for number in 0..20 {
        front.send(&body(number), 0).await.unwrap();
        accepted.insert(body(number));
    }
    // What is made ahead is made by now; the rest of the disk is taken.
    sleep(Duration::from_millis(700)).await;
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut refused = None;
    for number in 20..400 {
        match front.send(&body(number), 0).await {
            Ok(_) => assert!(accepted.insert(body(number))),
            Err(why) => {
                refused = Some(why);
                break;
            }
        }
    }
    match refused.expect("the disk is full, and everything is accepted") {
        // The one of the service's codes that says: try again later.
        Told::Refused(code) => assert_eq!(code, "QpsLimitExceeded"),
        other => panic!("{other:?}"),
    }
    assert!(accepted.len() > 20, "{}", accepted.len());
    let queue = Operation::CreateQueue { queue: "other".into(), attributes: QueueAttributes::default() };
    // There may be room for what is that small; then it lasts.
    let made = matches!(front.ask(&queue).await, Told::Done(_));

    // A restart on the full disk keeps what it has, and receives and deletes go on.
    broker.kill();
    broker = front.setting.start().unwrap();
    let asked = Operation::GetQueue { queue: "other".into() };
    assert_eq!(matches!(front.ask(&asked).await, Told::Done(_)), made);
    let since = Instant::now();
    while !accepted.is_empty() {
        assert!(since.elapsed() < SOON * 4, "{} never came", accepted.len());
        for one in front.receive(1).await {
            match front.delete(&handle(&one)).await {
                Told::Done(_) => assert!(accepted.remove(&*one.body), "it came again after its delete"),
                // It took longer than it was hidden.
                Told::Refused(code) => assert_eq!(code, "MessageNotExist"),
                Told::Lost => panic!("the connection ended"),
            }
        }
    }
    std::fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    while let Err(why) = front.send(&body(600), 0).await {
        assert!(since.elapsed() < SOON, "still {why:?}");
        sleep(Duration::from_millis(50)).await;
    }
    // What was deleted in the time of the full disk stays so.
    broker.kill();
    broker = front.setting.start().unwrap();
    let came = front.receive(5).await;
    assert_eq!(came.iter().map(|one| one.body.to_string()).collect::<Vec<_>>(), [body(600)]);
    assert!(matches!(front.delete(&handle(&came[0])).await, Told::Done(_)));
    broker.stop();
}

#[test]
fn a_full_disk_refuses_mns_messages_and_nothing_else() {
    let _turn = turn();
    match Mount::memory("mns-full", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk(&mount)),
        Err(why) => skipped("a full disk through MNS", &why),
    }
}
