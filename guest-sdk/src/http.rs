//! Outgoing HTTP, as `wasi:http`. An operator grants it, host by host: `rowmill apps grant APP --http 'GET,POST https://api.example.com'`.
//!
//! Redirects are answers like others: who wants to follow one makes another request, which is checked again. In a native build requests are answered by
//! [`testing::answer_http`](crate::testing::answer_http).

use std::fmt;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// `https://host/path?query`.
    pub url: String,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Empty for none.
    pub body: Vec<u8>,
}

/// A response, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names in lower case, and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no response. `kind` is the name of the case in `wasi:http`, such as `HttpRequestDenied`; the log of the row says more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What to decide by.
    pub kind: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no response: {}", self.kind)
    }
}

impl std::error::Error for Error {}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A request with one.
    #[must_use]
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST".to_owned(), body: body.into(), ..Self::get(url) }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends it and waits for the whole response.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send(self) -> Result<Response, Error> {
        #[cfg(not(target_arch = "wasm32"))]
        return crate::testing::granted::answer(self);
        #[cfg(target_arch = "wasm32")]
        return wasm::send(&self);
    }
}

impl Response {
    /// The first value of a header, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use super::{Error, Request, Response};
    use crate::bindings::granted_part::wasi::http::outgoing_handler::handle;
    use crate::bindings::granted_part::wasi::http::types::{self, ErrorCode, Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme};
    use crate::bindings::granted_part::wasi::io::streams::StreamError;

    /// What the host takes of a body at once.
    const PIECE_BYTES: usize = 4096;
    /// What is asked of a response at once.
    const READ_BYTES: u64 = 16 << 10;

    fn error(kind: &str) -> Error {
        Error { kind: kind.to_owned() }
    }

    fn of_code(code: &ErrorCode) -> Error {
        Error { kind: format!("{code:?}").trim_start_matches("ErrorCode::").to_owned() }
    }

    pub fn send(request: &Request) -> Result<Response, Error> {
        let bad = |()| error("HttpRequestUriInvalid");
        let (scheme, rest) = request.url.split_once("://").ok_or(()).map_err(bad)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        let mut headers = request.headers.clone();
        if !request.body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
        }
        let headers = Fields::from_list(&headers).map_err(|_| error("HttpRequestHeaderSize"))?;
        let outgoing = OutgoingRequest::new(headers);
        outgoing.set_method(&method(&request.method)).map_err(|()| error("HttpRequestMethodInvalid"))?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => Scheme::Other(other.to_owned()),
        };
        outgoing.set_scheme(Some(&scheme)).map_err(bad)?;
        outgoing.set_authority(Some(authority)).map_err(bad)?;
        outgoing.set_path_with_query(Some(if path.is_empty() { "/" } else { &path })).map_err(bad)?;
        let body = outgoing.body().map_err(bad)?;
        // The host reads the body while it sends it.
        let response = handle(outgoing, None).map_err(|code| of_code(&code))?;
        let written = write(body, &request.body);
        let response = loop {
            if let Some(ready) = response.get() {
                break ready.map_err(|()| error("ConnectionTerminated"))?.map_err(|code| of_code(&code))?;
            }
            response.subscribe().block();
        };
        // A refused request is not read to its end; why, the response says.
        written?;
        let headers = response.headers().entries();
        let status = response.status();
        let body = read(&response.consume().map_err(|()| error("HttpResponseIncomplete"))?)?;
        Ok(Response { status, headers, body })
    }

    fn method(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "CONNECT" => Method::Connect,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "PATCH" => Method::Patch,
            other => Method::Other(other.to_owned()),
        }
    }

    fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
        let stream = body.write().map_err(|()| error("InternalError"))?;
        for piece in bytes.chunks(PIECE_BYTES) {
            stream.blocking_write_and_flush(piece).map_err(|failed| of_stream(&failed))?;
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(|code| of_code(&code))
    }

    fn read(body: &IncomingBody) -> Result<Vec<u8>, Error> {
        let stream = body.stream().map_err(|()| error("HttpResponseIncomplete"))?;
        let mut bytes = Vec::new();
        loop {
            match stream.blocking_read(READ_BYTES) {
                Ok(piece) => bytes.extend(piece),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(failed) => return Err(of_stream(&failed)),
            }
        }
    }

    fn of_stream(failed: &StreamError) -> Error {
        match failed {
            StreamError::Closed => error("ConnectionTerminated"),
            StreamError::LastOperationFailed(cause) => {
                types::http_error_code(cause).map_or_else(|| error("ConnectionTerminated"), |code| of_code(&code))
            }
        }
    }
}
