use std::time::Duration;

use super::*;
use crate::client::Context;
use crate::client::{BoxFuture, Capability, Producer};
use crate::error::Outcome;

fn limits(calls: u64, bytes: u64) -> Limits {
    Limits { calls, bytes, ..Limits::default() }
}

fn queue(intake: &Intake, capacity: usize) -> Arc<CompletionQueue> {
    let queue = Arc::new(CompletionQueue::new(capacity).unwrap());
    intake.set_queue(queue.clone());
    queue
}

fn polled(queue: &CompletionQueue) -> Vec<Completion> {
    let mut taken = Vec::new();
    queue.poll(usize::MAX, &mut taken);
    taken
}

#[tokio::test]
async fn submits_arrive_in_order_with_their_bodies_and_end_once() {
    let intake = Intake::new("test", limits(100, 1 << 20));
    let queue = queue(&intake, 100);
    for n in 0..10u64 {
        intake.submit(n, format!("body {n}").as_bytes(), Duration::from_secs(n)).unwrap();
    }
    let mut taken = Taken::default();
    intake.take(&mut taken).await;
    let mut ended = Ended::default();
    for (n, call) in taken.calls.drain(..).enumerate() {
        assert_eq!(call.message.body(), format!("body {n}").as_bytes());
        assert_eq!(call.message.delay(), Duration::from_secs(n as u64));
        ended.push(call, Ok(Receipt::sent("test")));
    }
    assert_eq!(intake.under_way(), 10);
    ended.tell();
    assert_eq!(intake.under_way(), 0);
    let tokens: Vec<u64> = polled(&queue).iter().map(|done| done.token).collect();
    assert_eq!(tokens, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn calls_bytes_and_completions_are_each_bounded() {
    let intake = Intake::new("test", limits(2, 100));
    let first = queue(&intake, 10);
    intake.submit(1, &[0; 60], Duration::ZERO).unwrap();
    assert_eq!(intake.submit(2, &[0; 60], Duration::ZERO).unwrap_err().kind(), Kind::QueueFull);
    intake.submit(2, &[0; 10], Duration::ZERO).unwrap();
    assert_eq!(intake.submit(3, &[0; 1], Duration::ZERO).unwrap_err().kind(), Kind::QueueFull);
    assert_eq!(first.len(), 2, "a refused submit keeps no slot");

    let intake = Intake::new("test", limits(100, 100));
    let _small = queue(&intake, 1);
    let bodies = [b"a".as_slice(), b"b", b"c"];
    assert_eq!(intake.submit_many(7, bodies.into_iter(), Duration::ZERO).unwrap(), 1);
    assert_eq!(
        intake.submit_many(8, bodies.into_iter(), Duration::ZERO).unwrap_err().kind(),
        Kind::QueueFull
    );
}

#[tokio::test]
async fn a_submit_without_a_queue_is_refused() {
    let intake = Intake::new("test", Limits::default());
    assert_eq!(intake.submit(1, b"x", Duration::ZERO).unwrap_err().kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn a_body_over_the_whole_bound_passes_alone() {
    let intake = Intake::new("test", limits(10, 10));
    let _queue = queue(&intake, 10);
    intake.submit(1, &[0; 1000], Duration::ZERO).unwrap();
    assert_eq!(intake.submit(2, &[0; 1], Duration::ZERO).unwrap_err().kind(), Kind::QueueFull);
}

#[tokio::test]
async fn a_cancel_ends_what_waits_and_is_passed_on_for_what_was_taken() {
    let intake = Intake::new("test", limits(10, 1000));
    let queue = queue(&intake, 10);
    intake.submit(1, b"a", Duration::ZERO).unwrap();
    intake.submit(2, b"b", Duration::ZERO).unwrap();
    intake.cancel(Ticket::Token(1));
    let ended = polled(&queue);
    assert_eq!(ended.len(), 1);
    let error = ended[0].result.as_ref().unwrap_err();
    assert_eq!((ended[0].token, error.kind(), error.outcome()), (1, Kind::Cancelled, Outcome::NotSent));
    let mut taken = Taken::default();
    intake.take(&mut taken).await;
    assert_eq!(taken.calls.len(), 1);
    intake.cancel(Ticket::Token(2));
    intake.cancel(Ticket::Token(2));
    intake.take(&mut taken).await;
    assert_eq!(taken.cancels, vec![Ticket::Token(2)]);
    taken.calls.remove(0).end(Ok(Receipt::sent("test")));
    intake.cancel(Ticket::Token(2));
    assert_eq!(polled(&queue).len(), 1);
}

struct CallsBack(Arc<Intake>);

impl AsRef<[u8]> for CallsBack {
    fn as_ref(&self) -> &[u8] {
        b"lent"
    }
}

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.0.submit(2, b"from the release", Duration::ZERO).unwrap();
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_by_a_cancel_may_call_back() {
    let intake = Intake::new("test", limits(10, 1000));
    let queue = queue(&intake, 10);
    let body = bytes::Bytes::from_owner(CallsBack(intake.clone()));
    intake.submit_message(1, Message::new(body), None).unwrap();
    intake.cancel(Ticket::Token(1));
    assert_eq!(polled(&queue)[0].token, 1);
    assert_eq!(intake.under_way(), 1);
}

#[tokio::test]
async fn a_call_that_its_task_drops_ends_as_internal() {
    let intake = Intake::new("test", limits(10, 1000));
    let queue = queue(&intake, 10);
    intake.submit(1, b"a", Duration::ZERO).unwrap();
    let mut taken = Taken::default();
    intake.take(&mut taken).await;
    drop(taken);
    let ended = polled(&queue);
    assert_eq!(ended[0].result.as_ref().unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn a_task_that_panics_leaves_nobody_waiting() {
    let intake = Intake::new("test", limits(10, 1000));
    let task = {
        let intake = intake.clone();
        tokio::spawn(async move {
            let _guard = intake.task_guard();
            let mut taken = Taken::default();
            intake.take(&mut taken).await;
            panic!("a fault of the task");
        })
    };
    let ctx = Context::unbounded();
    let error = intake.send(&ctx, Message::new("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    task.await.unwrap_err();
    assert_eq!(intake.send(&ctx, Message::new("b")).await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_send_waits_for_room_until_its_deadline() {
    let intake = Intake::new("test", limits(1, 1000));
    let _queue = queue(&intake, 10);
    intake.submit(1, b"a", Duration::ZERO).unwrap();
    let error = intake.send(&Context::within(Duration::from_secs(1)), Message::new("b")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::QueueFull);
    let sent = {
        let intake = intake.clone();
        tokio::spawn(async move { intake.send(&Context::unbounded(), Message::new("c")).await })
    };
    tokio::task::yield_now().await;
    let mut taken = Taken::default();
    for expected in [b"a".as_slice(), b"c"] {
        intake.take(&mut taken).await;
        let call = taken.calls.remove(0);
        assert_eq!(call.message.body(), expected);
        call.end(Ok(Receipt::sent("test")));
    }
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flush_waits_for_earlier_calls_alone() {
    let intake = Intake::new("test", limits(10, 1000));
    let _queue = queue(&intake, 10);
    intake.submit(1, b"earlier", Duration::ZERO).unwrap();
    let mut taken = Taken::default();
    intake.take(&mut taken).await;
    let earlier = taken.calls.remove(0);
    let flush = {
        let intake = intake.clone();
        tokio::spawn(async move { intake.drained(&Context::unbounded()).await })
    };
    tokio::task::yield_now().await;
    intake.submit(2, b"later", Duration::ZERO).unwrap();
    intake.take(&mut taken).await;
    taken.calls.remove(0).end(Ok(Receipt::sent("test")));
    tokio::task::yield_now().await;
    assert!(!flush.is_finished(), "the end of a later call does not stand in for an earlier one");
    intake.submit(3, b"under way", Duration::ZERO).unwrap();
    earlier.end(Ok(Receipt::sent("test")));
    flush.await.unwrap().unwrap();
}

#[tokio::test]
async fn many_threads_lose_nothing() {
    let intake = Intake::new("test", limits(1 << 20, 1 << 30));
    let queue = queue(&intake, 1 << 20);
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let intake = intake.clone();
            std::thread::spawn(move || {
                for n in 0..5_000u64 {
                    intake.submit(thread << 32 | n, &n.to_le_bytes(), Duration::ZERO).unwrap();
                }
            })
        })
        .collect();
    let mut taken = Taken::default();
    let mut next = [0u64; 4];
    let mut count = 0;
    while count < 20_000 {
        intake.take(&mut taken).await;
        let mut ended = Ended::default();
        for call in taken.calls.drain(..) {
            let Ticket::Token(token) = call.ticket() else { panic!("a submit has a token") };
            let (thread, n) = ((token >> 32) as usize, token & 0xffff_ffff);
            assert_eq!(n, next[thread], "order holds per thread");
            assert_eq!(call.message.body(), n.to_le_bytes().as_slice());
            next[thread] += 1;
            count += 1;
            ended.push(call, Ok(Receipt::sent("test")));
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(polled(&queue).len(), 20_000);
    assert_eq!(intake.under_way(), 0);
}

struct Slow;

impl Producer for Slow {
    fn provider(&self) -> &'static str {
        "slow"
    }
    fn capability(&self) -> Capability {
        Capability::default()
    }
    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            if message.body() == b"hangs".as_slice() {
                return Err(ctx.ended().await);
            }
            Ok(Receipt::sent("slow"))
        })
    }
    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn the_pump_ends_each_call_by_result_cancel_or_deadline() {
    let intake = Intake::new("slow", limits(10, 1000));
    let queue = queue(&intake, 10);
    let task = tokio::spawn(pump(intake.clone(), Arc::new(Slow), Default::default()));
    intake.submit(1, b"quick", Duration::ZERO).unwrap();
    intake.submit(2, b"hangs", Duration::ZERO).unwrap();
    intake.submit(3, b"hangs", Duration::ZERO).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    intake.cancel(Ticket::Token(2));
    intake.close();
    task.await.unwrap();
    let mut kinds: Vec<_> = polled(&queue)
        .into_iter()
        .map(|done| (done.token, done.result.err().map(|error| error.kind())))
        .collect();
    kinds.sort_by_key(|(token, _)| *token);
    assert_eq!(kinds, vec![(1, None), (2, Some(Kind::Cancelled)), (3, Some(Kind::Timeout))]);
}

#[test]
fn a_refused_submit_takes_no_memory() {
    let intake = Intake::new("test", limits(1, 1 << 20));
    let _queue = queue(&intake, 10);
    intake.submit(1, b"x", Duration::ZERO).unwrap();
    let capacity = || intake.pending.0.lock().batch.arena.capacity();
    let before = capacity();
    let body = vec![0; 100_000];
    assert_eq!(intake.submit(2, &body, Duration::ZERO).unwrap_err().kind(), Kind::QueueFull);
    assert_eq!(capacity(), before);
    intake.close();
    assert_eq!(intake.submit(3, &body, Duration::ZERO).unwrap_err().kind(), Kind::Closed);
    assert_eq!(capacity(), before);
    assert_eq!(intake.under_way(), 1);
}

// A lent body, whose host is called when it is dropped.
struct Lent<F: FnMut()>(F);

impl<F: FnMut()> AsRef<[u8]> for Lent<F> {
    fn as_ref(&self) -> &[u8] {
        b"lent"
    }
}

impl<F: FnMut()> Drop for Lent<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

// Cancels a call that waits, the only one that there is room for, and returns how what its release did ended.
fn released_by_a_cancel(then: fn(Arc<Intake>) -> Result<()>) -> Result<()> {
    let intake = Intake::new("test", limits(1, 1 << 20));
    let queue = queue(&intake, 10);
    let (tell, told) = std::sync::mpsc::channel();
    let own = intake.clone();
    let body = Bytes::from_owner(Lent(move || tell.send(then(own.clone())).unwrap()));
    intake.submit_message(7, Message::new(body), None).unwrap();
    intake.cancel(Ticket::Token(7));
    let done = polled(&queue);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].result.as_ref().unwrap_err().kind(), Kind::Cancelled);
    told.try_recv().unwrap()
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn a_release_may_wait_for_the_end_of_its_own_call() {
    let flush = |intake: Arc<Intake>| {
        blocking(async { intake.drained(&Context::within(Duration::from_secs(5))).await })
    };
    released_by_a_cancel(flush).unwrap();
}

#[test]
fn a_release_may_send_into_the_room_of_its_own_call() {
    let send = |intake: Arc<Intake>| {
        let context = Context::within(Duration::from_secs(5));
        let task = async {
            let mut taken = Taken::default();
            while taken.calls.is_empty() {
                intake.take(&mut taken).await;
            }
            taken.calls.drain(..).for_each(|call| call.end(Ok(Receipt::sent("test"))));
        };
        blocking(async {
            let send = intake.send(&context, Message::new("next"));
            tokio::pin!(send);
            tokio::select! {
                ended = &mut send => ended.map(drop),
                () = task => send.await.map(drop),
            }
        })
    };
    released_by_a_cancel(send).unwrap();
}
