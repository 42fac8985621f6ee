//! `wasi:http` for guests: how much of it. What a request may reach decides the one who sends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

use super::capabilities::caught;
use super::guest::GuestState;
use super::log::RowLog;

/// Headers of one resource: a guest may have hundreds of these.
const FIELDS_BYTES_MAX: usize = 16 << 10;
/// Of a request's body the host holds two such pieces.
const CHUNK_BYTES_MAX: usize = 16 << 10;

/// The body of a request or a response.
pub type HttpBody = UnsyncBoxBody<Bytes, HttpFailure>;

/// Sends the requests of one app.
#[async_trait]
pub trait Http: Send + Sync {
    /// Checks and sends a request, and returns the response once its headers are there. Redirects are not followed. Dropping the response's body ends the connection.
    ///
    /// # Errors
    /// [`HttpFailure`], as the response's body has it, too.
    async fn send(&self, request: Request<HttpBody>, times: HttpTimes) -> Result<Response<HttpBody>, HttpFailure>;
}

/// How long the guest wants to wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpTimes {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

/// Outgoing HTTP of one app.
#[derive(Clone)]
pub struct HttpCapability {
    pub client: Arc<dyn Http>,
    /// Requests of one call of the guest.
    pub requests_max: u32,
    /// Requests of one instance whose response is still held.
    pub at_once_max: u32,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct HttpFailure {
    pub kind: HttpFailureKind,
    /// A sentence for the log of the row.
    pub reason: String,
}

/// The kinds that `wasi:http` tells apart, as far as they come up here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFailureKind {
    /// It is not granted.
    Denied,
    /// The host's address is not granted.
    AddressProhibited,
    NameNotFound,
    Refused,
    ConnectTimeout,
    ResponseTimeout,
    Terminated,
    TlsCertificate,
    Tls,
    TooManyAtOnce,
    RequestTooLarge,
    ResponseTooLarge,
    ResponseHeadersTooLarge,
    /// The request cannot be sent as it is.
    BadRequest,
    Protocol,
    Host,
}

impl HttpFailure {
    pub fn new(kind: HttpFailureKind, reason: impl Into<String>) -> HttpFailure {
        HttpFailure { kind, reason: reason.into() }
    }

    fn into_error(self) -> Error {
        match self.kind {
            HttpFailureKind::Denied => Error::HttpRequestDenied,
            HttpFailureKind::AddressProhibited => Error::DestinationIpProhibited,
            HttpFailureKind::NameNotFound => Error::DnsError { rcode: Some("the name cannot be resolved".to_owned()), info_code: None },
            HttpFailureKind::Refused => Error::ConnectionRefused,
            HttpFailureKind::ConnectTimeout => Error::ConnectionTimeout,
            HttpFailureKind::ResponseTimeout => Error::HttpResponseTimeout,
            HttpFailureKind::Terminated => Error::ConnectionTerminated,
            HttpFailureKind::TlsCertificate => Error::TlsCertificateError,
            HttpFailureKind::Tls => Error::TlsProtocolError,
            HttpFailureKind::TooManyAtOnce => Error::ConnectionLimitReached,
            HttpFailureKind::RequestTooLarge => Error::HttpRequestBodySize(None),
            HttpFailureKind::ResponseTooLarge => Error::HttpResponseBodySize(None),
            HttpFailureKind::ResponseHeadersTooLarge => Error::HttpResponseHeaderSectionSize(None),
            HttpFailureKind::BadRequest => Error::HttpRequestUriInvalid,
            HttpFailureKind::Protocol => Error::HttpProtocolError,
            HttpFailureKind::Host => Error::InternalError(Some(self.reason)),
        }
    }
}

/// Links `wasi:http`. wasmtime's own answer to `http-error-code` knows no errors of bodies, so ours takes its place.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap("http-error-code", |store, (error,): (Resource<wasmtime::Error>,)| {
        let error = store.data().table.get(&error)?;
        let code = error.downcast_ref::<Error>().map(code_of).or_else(|| error.downcast_ref::<ErrorCode>().cloned());
        Ok((code,))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The errors that bodies have: those of [`HttpFailure::into_error`].
fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::HttpResponseBodySize(size) => ErrorCode::HttpResponseBodySize(*size),
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::HttpResponseHeaderSectionSize(size) => ErrorCode::HttpResponseHeaderSectionSize(*size),
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}

/// What one instance has of HTTP.
pub(super) struct GuestHttp {
    pub(super) context: WasiHttpCtx,
    pub(super) hooks: Hooks,
}

pub(super) struct Hooks {
    capability: Option<HttpCapability>,
    at_once: Arc<Semaphore>,
    /// Requests of this call.
    requests: u32,
    log: RowLog,
}

impl GuestHttp {
    pub(super) fn new(capability: Option<HttpCapability>, log: RowLog) -> GuestHttp {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS_BYTES_MAX);
        let at_once = capability.as_ref().map_or(0, |capability| capability.at_once_max as usize);
        let hooks = Hooks { capability, at_once: Arc::new(Semaphore::new(at_once)), requests: 0, log };
        GuestHttp { context, hooks }
    }

    /// The next call of the guest begins.
    pub(super) fn begin_call(&mut self) {
        self.hooks.requests = 0;
    }
}

impl Hooks {
    /// A place for one more request, if there is one.
    fn admit(&mut self) -> Result<(HttpCapability, OwnedSemaphorePermit), HttpFailure> {
        let capability = self.capability.clone().ok_or_else(|| HttpFailure::new(HttpFailureKind::Denied, "no HTTP is granted to this app"))?;
        if self.requests >= capability.requests_max {
            let reason = format!("a row may make {} HTTP requests, and this was one more", capability.requests_max);
            return Err(HttpFailure::new(HttpFailureKind::Denied, reason));
        }
        self.requests += 1;
        let place = Arc::clone(&self.at_once).try_acquire_owned().map_err(|_| {
            let reason = format!("an instance may have {} HTTP requests at once, and this was one more", capability.at_once_max);
            HttpFailure::new(HttpFailureKind::TooManyAtOnce, reason)
        })?;
        Ok((capability, place))
    }
}

/// Whatever becomes of a request, as wasmtime takes it: the response, and what drives its connection, which is nothing here.
type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let admitted = self.admit();
        let log = self.log.clone();
        Box::new(async move {
            let sent = async {
                let (capability, place) = admitted?;
                let times = options.map_or_else(HttpTimes::default, |options| HttpTimes {
                    connect: options.connect_timeout,
                    first_byte: options.first_byte_timeout,
                    between_bytes: options.between_bytes_timeout,
                });
                let request = request.map(|body| body.map_err(|error| of_guest(&error)).boxed_unsync());
                let response = caught(capability.client.send(request, times))
                    .await
                    .unwrap_or_else(|panic| Err(HttpFailure::new(HttpFailureKind::Host, panic)))?;
                let log = log.clone();
                Ok(response.map(|body| HeldBody { body, log, _place: place }.boxed_unsync()))
            };
            let response = sent.await.map_err(|failure: HttpFailure| told(&log, failure))?;
            let nothing: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(std::future::ready(Ok(())));
            Ok((response, nothing))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// The guest gets a kind, its author the sentence.
fn told(log: &RowLog, failure: HttpFailure) -> Error {
    log.entry("http", &failure.reason);
    failure.into_error()
}

fn of_guest(error: &Error) -> HttpFailure {
    HttpFailure::new(HttpFailureKind::BadRequest, format!("the request was not finished: {error}"))
}

/// A response that counts as one of those at once until it is dropped.
struct HeldBody {
    body: HttpBody,
    log: RowLog,
    _place: OwnedSemaphorePermit,
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map_err(|failure| told(&self.log, failure))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
