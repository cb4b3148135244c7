//! A body that tells whether its request was begun to be written.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::provider::socket::{Live, Trouble};

/// Whether a connection took the request, to write it.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    // As long as the request is under way there is a connection.
    begun: Arc<OnceLock<Live>>,
    trouble: Arc<Trouble>,
}

impl Begun {
    /// Of a request that ends the trouble with connecting when it is begun.
    pub(super) fn new(trouble: Arc<Trouble>) -> Begun {
        Begun { begun: Arc::default(), trouble }
    }

    fn note(&self) {
        self.begun.get_or_init(|| self.trouble.connected());
    }

    /// False is certain: no byte was written.
    pub(super) fn is(&self) -> bool {
        self.begun.get().is_some()
    }
}

/// A body of known length. A connection asks for it when it writes the head of its request, not before: so what was
/// not asked for was not written.
pub(super) struct Watched {
    body: Bytes,
    begun: Begun,
}

impl Watched {
    pub(super) fn new(body: Bytes, begun: Begun) -> Watched {
        Watched { body, begun }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.begun.note();
        let body = std::mem::take(&mut self.body);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        // Of an empty body nothing else is asked.
        self.begun.note();
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}
