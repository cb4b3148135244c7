use super::*;
use crate::config::ClientConfig;

struct Fn<F>(F);

impl<F: std::ops::Fn(HostCall) + Send + Sync + 'static> Host for Fn<F> {
    fn send(&self, call: HostCall) {
        (self.0)(call);
    }
}

fn open(threads: usize, host: impl std::ops::Fn(HostCall) + Send + Sync + 'static) -> Arc<dyn Producer> {
    open_with(threads, Arc::new(Fn(host)))
}

fn open_with(threads: usize, host: Arc<dyn Host>) -> Arc<dyn Producer> {
    let hosts = Hosts::default();
    hosts.register("mine", host).unwrap();
    let text = format!(r#"{{"provider": {{"type": "callback", "name": "mine", "threads": {threads}}}}}"#);
    let config = ClientConfig::parse(&text).unwrap();
    let (_, section) = config.provider_section().unwrap();
    open_producer(&Setup::from_config("id", &config), section, &hosts).unwrap()
}

fn message() -> Arc<Message> {
    Arc::new(Message::new("text"))
}

fn within(millis: u64) -> Context {
    Context::within(Duration::from_millis(millis))
}

#[tokio::test]
async fn it_answers_at_once_or_later() {
    let producer = open(2, |call| {
        let id = call.message().fields().map(|_| "later").unwrap_or("now");
        if id == "later" {
            std::thread::spawn(move || call.finish(Ok(receipt(Some("later".into())))));
        } else {
            call.finish(Ok(receipt(Some("now".into()))));
        }
    });
    assert_eq!(producer.send(&within(9000), message()).await.unwrap().message_id.as_deref(), Some("now"));
    let later = Arc::new(Message::new("text").with(|fields| fields.tag = Some("t".into())));
    assert_eq!(producer.send(&within(9000), later).await.unwrap().message_id.as_deref(), Some("later"));
}

#[tokio::test]
async fn a_panic_is_an_error_of_that_attempt() {
    let producer = open(1, |_call| std::panic::resume_unwind(Box::new("in the host")));
    for _ in 0..3 {
        let error = producer.send(&within(9000), message()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Internal, Outcome::Unknown));
    }
    // The answer comes before the thread has ended.
    for _ in 0..500 {
        if producer.status()["running"] == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("its thread is not free again");
}

#[tokio::test]
async fn one_that_never_returns_is_bounded_and_named_at_the_close() {
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let producer = open(1, move |call| {
        let _ = held.lock().recv();
        call.finish(Ok(receipt(None)));
    });
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
    let error = producer.close(&within(50)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.message().contains("`mine`"), "{error}");
    drop(let_go);
}

struct Line(std::sync::mpsc::Sender<HostCall>);

impl Host for Line {
    fn send(&self, call: HostCall) {
        assert!(call.message().body() != "panic", "in the host");
        let _ = self.0.send(call);
    }

    fn hands_over(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_call_that_is_handed_over_has_its_place_until_it_is_answered() {
    let (sender, line) = std::sync::mpsc::channel();
    let producer = open_with(1, Arc::new(Line(sender)));
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
    let late = line.try_recv().unwrap();
    assert!(late.is_abandoned());
    assert_eq!(producer.status()["running"], 1);
    late.finish(Ok(receipt(None)));
    let answer = std::thread::spawn(move || {
        let mut call = line.recv().unwrap();
        call.free_place();
        (line, call)
    });
    producer.send(&within(50), message()).await.unwrap_err();
    let (_line, call) = answer.join().unwrap();
    assert_eq!(producer.status()["running"], 0, "it gave up its place and is not answered");
    drop(call);
    let panic = Arc::new(Message::new("panic"));
    let error = producer.send(&within(9000), panic).await.unwrap_err();
    assert_eq!((error.kind(), producer.status()["running"].as_u64()), (Kind::Internal, Some(0)));
    producer.close(&within(50)).await.unwrap();
}

#[test]
fn names_are_taken_once_and_found_by_their_nearest() {
    let hosts = Hosts::default();
    let host = || Arc::new(Fn(|call: HostCall| call.finish(Ok(receipt(None)))));
    hosts.register("orders", host()).unwrap();
    assert_eq!(hosts.register("orders", host()).unwrap_err().kind(), Kind::AlreadyOpen);
    assert_eq!(hosts.register("", host()).unwrap_err().kind(), Kind::InvalidArgument);
    assert!(hosts.get("order").err().unwrap().message().contains("`orders`"));
    hosts.unregister("orders").unwrap();
    assert_eq!(hosts.unregister("orders").err().unwrap().kind(), Kind::UnknownId);
}

#[tokio::test]
async fn a_host_may_make_blocking_calls_while_it_sends() {
    let producer = open(2, |call| {
        // What every blocking call asks first.
        let refused = tokio::runtime::Handle::try_current().is_ok();
        call.finish(if refused {
            Err(Error::new(Kind::WouldDeadlock, "refused"))
        } else {
            Ok(receipt(None))
        });
    });
    producer.send(&within(9000), message()).await.unwrap();
}

#[test]
fn a_stuck_host_takes_no_thread_of_the_runtime() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    runtime.block_on(async {
        let producer = open(1, move |call| {
            let _ = held.lock().recv();
            drop(call);
        });
        producer.send(&within(50), message()).await.unwrap_err();
        let look_up = tokio::task::spawn_blocking(|| ());
        tokio::time::timeout(Duration::from_secs(9), look_up).await.unwrap().unwrap();
        drop(let_go);
        producer.close(&within(9000)).await.unwrap();
    });
}

fn made(threads: Threads, host: impl std::ops::Fn(HostCall) + Send + Sync + 'static) -> CallbackProducer {
    CallbackProducer {
        config: Config { name: "mine".into(), threads: 1 },
        host: Mutex::new(Some(Arc::new(Fn(host)))),
        room: Room::new(&Limits::default()),
        limits: Limits::default(),
        sends: Arc::default(),
        places: Arc::new(Semaphore::new(1)),
        threads,
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        late: AtomicU64::new(0),
    }
}

#[tokio::test]
async fn a_call_that_waited_for_its_thread_in_vain_never_reaches_the_host() {
    let threads = Threads::new(1);
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    threads.run(move || while held.recv().is_ok() {}).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let producer = made(threads, move |call| {
        counted.fetch_add(1, Ordering::SeqCst);
        call.finish(Ok(receipt(None)));
    });
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    drop(let_go);
    producer.send(&within(9000), message()).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_is_answered_later_has_its_place_until_then() {
    let (sender, line) = std::sync::mpsc::channel();
    let producer = open(1, move |call| drop(sender.send(call)));
    producer.send(&within(50), message()).await.unwrap_err();
    let error = producer.send(&within(50), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
    assert_eq!(producer.close(&within(50)).await.unwrap_err().kind(), Kind::Timeout);
    drop(line);
}

struct Told(std::sync::mpsc::Sender<HostCall>, Mutex<Vec<u64>>);

impl Host for Told {
    fn send(&self, call: HostCall) {
        if call.message().body() == "now" {
            call.finish(Ok(receipt(None)));
        } else {
            let _ = self.0.send(call);
        }
    }

    fn abandoned(&self, call: Abandoned) {
        self.1.lock().push(call.number());
    }
}

#[tokio::test]
async fn the_host_is_told_of_each_call_that_nobody_waits_for() {
    let (sender, line) = std::sync::mpsc::channel();
    let host = Arc::new(Told(sender, Mutex::default()));
    let producer = open_with(4, host.clone());
    producer.send(&within(9000), Arc::new(Message::new("now"))).await.unwrap();
    producer.send(&within(50), message()).await.unwrap_err();
    // Dropped by whoever waited.
    let (ctx, second) = (within(9000), message());
    let dropped = tokio::time::timeout(Duration::from_millis(50), producer.send(&ctx, second));
    dropped.await.unwrap_err();
    let numbers: Vec<u64> = line.try_iter().map(|call| call.number()).collect();
    assert_eq!((numbers.len(), &numbers), (2, &*host.1.lock()));
}

#[tokio::test]
async fn what_a_close_left_with_the_host_can_be_waited_for() {
    let (sender, line) = std::sync::mpsc::channel();
    let hosts = Hosts::default();
    hosts.register("mine", Arc::new(Line(sender))).unwrap();
    let config = ClientConfig::parse(r#"{"provider": {"type": "callback", "name": "mine"}}"#).unwrap();
    let (_, section) = config.provider_section().unwrap();
    let producer = open_producer(&Setup::from_config("id", &config), section, &hosts).unwrap();
    producer.send(&within(50), message()).await.unwrap_err();
    producer.close(&within(50)).await.unwrap_err();
    let mut rest = hosts.left_behind("id").unwrap();
    assert!(hosts.left_behind("id").is_none() && hosts.left_behind("other").is_none());
    tokio::time::timeout(Duration::from_millis(50), &mut rest).await.unwrap_err();
    drop(line);
    tokio::time::timeout(Duration::from_secs(9), rest).await.unwrap();
}
