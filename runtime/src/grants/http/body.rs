//! Bodies that end when they are too large, or take too long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::failure::failure;
use crate::sandbox::{HttpFailure, HttpFailureKind as Kind};

/// A body of so many bytes at most.
pub(super) struct Capped<B> {
    body: B,
    left: u64,
    too_large: Option<HttpFailure>,
}

impl<B> Capped<B> {
    pub fn new(body: B, max: u64, too_large: HttpFailure) -> Capped<B> {
        Capped { body, left: max, too_large: Some(too_large) }
    }
}

impl<B: Body<Data = Bytes, Error = HttpFailure> + Unpin> Body for Capped<B> {
    type Data = Bytes;
    type Error = HttpFailure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        if self.too_large.is_none() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Poll::Ready(frame)
            }
            None => Poll::Ready(self.too_large.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What drives a connection; it ends with this.
pub(super) struct Driven(JoinHandle<()>);

impl Driven {
    pub fn new(task: JoinHandle<()>) -> Driven {
        Driven(task)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a response, as long as there is time.
pub(super) struct ResponseBody<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
    /// The most between two pieces, and when it is over.
    between: Option<(Duration, Pin<Box<Sleep>>)>,
    timed_out: bool,
    _driven: Driven,
}

impl<B> ResponseBody<B> {
    pub fn new(body: B, deadline: Instant, between: Option<Duration>, driven: Driven) -> ResponseBody<B> {
        let pause = |time: Duration| Some((time, Box::pin(sleep_until(Instant::now().checked_add(time)?))));
        ResponseBody { body, deadline: Box::pin(sleep_until(deadline)), between: between.and_then(pause), timed_out: false, _driven: driven }
    }
}

impl<B: Body<Data = Bytes, Error = HttpFailure> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = HttpFailure;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        let this = self.get_mut();
        if this.timed_out {
            return Poll::Ready(None);
        }
        let over = this.deadline.as_mut().poll(context).is_ready();
        let frame = if over { Poll::Pending } else { Pin::new(&mut this.body).poll_frame(context) };
        if frame.is_ready() {
            if let Some((time, pause)) = &mut this.between
                && let Some(at) = Instant::now().checked_add(*time)
            {
                pause.as_mut().reset(at);
            }
            return frame;
        }
        if over || this.between.as_mut().is_some_and(|(_, pause)| pause.as_mut().poll(context).is_ready()) {
            this.timed_out = true;
            return Poll::Ready(Some(Err(failure(Kind::ResponseTimeout, "the body of an HTTP response did not come to its end in time"))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
