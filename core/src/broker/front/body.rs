//! Bodies of requests while they are read: in a bounded time, and where nobody logs in, of a bounded size together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Frame, SizeHint};

use super::form::{Form, TooLarge};

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of bodies that may be on their way at once.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) const fn new(most: usize) -> Budget {
        Budget { most, used: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&after| after <= self.most);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok()
    }
}

/// Why a form was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Large,
    Slow,
    /// The bodies of all senders together are too large for now.
    Crowded,
}

/// Reads a form whose body has at most so many bytes, and that takes of the budget while it is read.
pub(super) async fn read(
    request: Request,
    limit: usize,
    budget: Option<&Arc<Budget>>,
) -> Result<Form, Unread> {
    let over = Arc::new(AtomicBool::new(false));
    let request = match budget {
        None => request,
        Some(budget) => request
            .map(|inner| Body::new(Metered { inner, taken: Taken::of(budget), over: Arc::clone(&over) })),
    };
    let form = tokio::time::timeout(BODY_TIMEOUT, Form::read(request, limit)).await;
    // A form that broke off may look like a whole one.
    if over.load(Ordering::Acquire) {
        return Err(Unread::Crowded);
    }
    form.map_err(|_| Unread::Slow)?.map_err(|TooLarge| Unread::Large)
}

/// Reads a body of at most so many bytes, which takes of the budget until what is told beside it is dropped.
pub(super) async fn read_bytes(
    body: Body,
    limit: usize,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Arc<Taken>), Unread> {
    let (over, taken) = (Arc::new(AtomicBool::new(false)), Taken::of(budget));
    let metered = Metered { inner: body, taken: Arc::clone(&taken), over: Arc::clone(&over) };
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(Body::new(metered), limit)).await;
    if over.load(Ordering::Acquire) {
        return Err(Unread::Crowded);
    }
    let bytes = read.map_err(|_| Unread::Slow)?.map_err(|_| Unread::Large)?;
    Ok((bytes, taken))
}

/// What was taken of a budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Taken {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Taken {
    fn of(budget: &Arc<Budget>) -> Arc<Taken> {
        Arc::new(Taken { budget: Arc::clone(budget), bytes: AtomicUsize::new(0) })
    }

    fn more(&self, bytes: usize) -> bool {
        let fits = self.budget.take(bytes);
        if fits {
            self.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        fits
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

/// A body that counts what was read of it.
struct Metered {
    inner: Body,
    taken: Arc<Taken>,
    over: Arc<AtomicBool>,
}

impl hyper::body::Body for Metered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if !self.taken.more(bytes) {
            self.over.store(true, Ordering::Release);
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::other("too many bodies at once")))));
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    const URL: &str = "application/x-www-form-urlencoded";
    const PARTS: &str = "multipart/form-data; boundary=b";

    fn request(kind: &str, body: Body) -> Request {
        Request::builder().header(header::CONTENT_TYPE, kind).body(body).unwrap()
    }

    /// The first bytes of a form, and then nothing.
    fn stuck() -> Body {
        let first = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"a=12345678"))]);
        Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let since = tokio::time::Instant::now();
        assert_eq!(read(request(URL, stuck()), 1000, None).await.unwrap_err(), Unread::Slow);
        assert_eq!(since.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn bodies_on_their_way_are_bounded_together() {
        let budget = Arc::new(Budget::new(100));
        let parts = format!(
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--b\r\n\
             Content-Disposition: form-data; name=\"c\"\r\n\r\n{}\r\n--b--\r\n",
            "x".repeat(100)
        );
        for (kind, body) in [(URL, format!("a={}", "x".repeat(99))), (PARTS, parts)] {
            let read = read(request(kind, Body::from(body)), 1000, Some(&budget)).await;
            assert_eq!(read.unwrap_err(), Unread::Crowded);
        }
        let mut reading = Box::pin(read(request(URL, stuck()), 1000, Some(&budget)));
        assert!(futures_util::poll!(&mut reading).is_pending());
        let form = || request(URL, Body::from(format!("a={}", "x".repeat(90))));
        assert_eq!(read(form(), 1000, Some(&budget)).await.unwrap_err(), Unread::Crowded);
        drop(reading);
        // What was read counts for as long as it is used.
        let (bytes, kept) = read_bytes(Body::from("x".repeat(90)), 1000, &budget).await.unwrap();
        assert_eq!((bytes.len(), budget.used.load(Ordering::Relaxed)), (90, 90));
        let more = read_bytes(Body::from("x".repeat(11)), 1000, &budget).await;
        assert_eq!(more.unwrap_err(), Unread::Crowded);
        assert_eq!(read_bytes(Body::from("12345"), 4, &budget).await.unwrap_err(), Unread::Large);
        drop(kept);
        assert_eq!(read(form(), 1000, Some(&budget)).await.unwrap().get("a").len(), 90);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
