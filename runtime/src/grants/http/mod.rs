//! Outgoing HTTP/1.1 for one app: what it may reach, how it gets there, and how much comes back.

mod address;
mod body;
mod connect;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

pub use self::connect::{Resolve, SystemResolver};

use self::body::{Capped, Driven, ResponseBody};
use self::connect::{Stream, connect};
use self::failure::{failed, failure};
use crate::model::{HttpGrant, canonical_host, show_time, split_port};
use crate::sandbox::{Http, HttpBody, HttpFailure, HttpFailureKind as Kind, HttpTimes};

/// Headers of a response, at most.
const HEADERS_MAX: usize = 100;
/// Bytes of the headers of a response, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;

/// Sends the requests of one app, each over a connection of its own.
pub(super) struct HttpClient {
    grant: HttpGrant,
    resolver: Arc<dyn Resolve>,
}

/// Where a request goes.
struct Target {
    secure: bool,
    /// In its one spelling.
    host: String,
    port: u16,
}

impl HttpClient {
    pub fn new(grant: HttpGrant, resolver: Arc<dyn Resolve>) -> HttpClient {
        HttpClient { grant, resolver }
    }

    /// Where the request goes, if it may go there.
    fn target(&self, request: &Request<HttpBody>) -> Result<Target, HttpFailure> {
        let uri = request.uri();
        let bad = |reason: &str| failure(Kind::BadRequest, format!("a request cannot be sent: {reason}"));
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("it goes over http or https")),
        };
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(bad("a user and a password stand in a header, not before the host"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| bad("its host and port cannot be told"))?;
        let port = match port {
            None if secure => 443,
            None => 80,
            Some(port) => port.parse().map_err(|_| bad("its port is no port"))?,
        };
        let host = canonical_host(host);
        let named = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if host.parse::<std::net::IpAddr>().is_err() && (host.is_empty() || !host.chars().all(named)) {
            return Err(bad("its host is no name and no address"));
        }
        let method = request.method().as_str();
        if !self.grant.allow.iter().any(|rule| rule.allows(secure, &host, port, method)) {
            let scheme = if secure { "https" } else { "http" };
            let shown = if host.contains(':') { format!("[{host}]") } else { host };
            let reason =
                format!("{method} {scheme}://{shown}:{port} is not granted (rowmill apps grant APP --http '{method} {scheme}://{shown}:{port}')");
            return Err(failure(Kind::Denied, reason));
        }
        Ok(Target { secure, host, port })
    }

    async fn respond(&self, request: Request<HttpBody>, times: HttpTimes, deadline: Instant) -> Result<Response<HttpBody>, HttpFailure> {
        let target = self.target(&request)?;
        let max = self.grant.request_bytes_max;
        if content_length(request.headers()).is_some_and(|bytes| bytes > max) {
            return Err(too_large(Kind::RequestTooLarge, "request", max));
        }
        let connected_by = Instant::now().checked_add(times.connect.unwrap_or(self.grant.timeout)).unwrap_or(deadline).min(deadline);
        let connecting = connect(&target, &self.grant, &*self.resolver);
        let stream = timeout_at(connected_by, connecting)
            .await
            .map_err(|_| failure(Kind::ConnectTimeout, format!("{}:{} could not be connected in time", target.host, target.port)))??;
        let request = request.map(|body| Capped::new(body, max, too_large(Kind::RequestTooLarge, "request", max)).boxed_unsync());
        let answered_by = times.first_byte.and_then(|time| Instant::now().checked_add(time)).unwrap_or(deadline).min(deadline);
        let (response, driven) = timeout_at(answered_by, exchange(stream, request, &target))
            .await
            .map_err(|_| failure(Kind::ResponseTimeout, format!("{}:{} did not answer in time", target.host, target.port)))??;
        let max = self.grant.response_bytes_max;
        if has_body(&response) && content_length(response.headers()).is_some_and(|bytes| bytes > max) {
            return Err(too_large(Kind::ResponseTooLarge, "response", max));
        }
        let too_large = too_large(Kind::ResponseTooLarge, "response", max);
        Ok(response.map(|incoming| {
            let incoming = incoming.map_err(|error| failed("its response", &error));
            ResponseBody::new(Capped::new(incoming, max, too_large), deadline, times.between_bytes, driven).boxed_unsync()
        }))
    }
}

/// Whether there is something to come: of the answer to HEAD only the length is told.
fn has_body(response: &Response<hyper::body::Incoming>) -> bool {
    !hyper::body::Body::is_end_stream(response.body())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(kind: Kind, what: &str, max: u64) -> HttpFailure {
    failure(kind, format!("the body of an HTTP {what} may have {max} bytes, and this one has more"))
}

/// Sends a request over a connection and waits for the headers of the response. The connection lives as long as what drives it.
async fn exchange(
    stream: Box<dyn Stream>,
    mut request: Request<HttpBody>,
    target: &Target,
) -> Result<(Response<hyper::body::Incoming>, Driven), HttpFailure> {
    let place = format!("{}:{}", target.host, target.port);
    let begun = http1::Builder::new().max_headers(HEADERS_MAX).max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection): (SendRequest<HttpBody>, _) = begun.map_err(|error| failed(&place, &error))?;
    let driven = Driven::new(tokio::spawn(async move {
        // What becomes of it, the response tells.
        let _ = connection.await;
    }));
    // The whole address is for proxies.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| failure(Kind::BadRequest, "a request cannot be sent: its path is none"))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&place, &error))?;
    Ok((response, driven))
}

#[async_trait]
impl Http for HttpClient {
    async fn send(&self, request: Request<HttpBody>, times: HttpTimes) -> Result<Response<HttpBody>, HttpFailure> {
        let timeout: Duration = self.grant.timeout;
        let deadline = Instant::now() + timeout;
        timeout_at(deadline, self.respond(request, times, deadline))
            .await
            .unwrap_or_else(|_| Err(failure(Kind::ResponseTimeout, format!("a request may take {}, and this one took longer", show_time(timeout)))))
    }
}
