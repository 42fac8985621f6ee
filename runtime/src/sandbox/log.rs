//! What a guest writes: its log, stdout and stderr, kept per row and bounded.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::mask::Masks;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much of the last error or of stderr is kept to explain a trap: room for a traceback.
const LAST_WORDS_BYTES: usize = 4_000;
/// What a guest may hand over in one write.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The log of one row. Cheap to share: the guest's streams and the host's functions write to the same one.
#[derive(Clone)]
pub(super) struct RowLog(Arc<Mutex<Buffer>>);

struct Buffer {
    text: String,
    limit_bytes: usize,
    cut_bytes: u64,
    last_words: String,
    /// Secrets are hidden when it is read: they may come in pieces.
    masks: Masks,
}

impl RowLog {
    pub(super) fn new(limit_bytes: u32, masks: Masks) -> RowLog {
        let limit_bytes = limit_bytes as usize;
        RowLog(Arc::new(Mutex::new(Buffer { text: String::new(), limit_bytes, cut_bytes: 0, last_words: String::new(), masks })))
    }

    /// Writes an entry with its level; at level error it may be the guest's last.
    pub(super) fn entry(&self, level: &str, text: &str) {
        let mut buffer = self.lock();
        if level == "error" {
            buffer.last_words.clear();
            push_tail(&mut buffer.last_words, text);
        }
        buffer.push(level);
        buffer.push(": ");
        buffer.push(text);
        buffer.push("\n");
    }

    fn stream(&self, text: &str, is_stderr: bool) {
        let mut buffer = self.lock();
        if is_stderr {
            push_tail(&mut buffer.last_words, text);
        }
        buffer.push(text);
    }

    /// What was written since the last call, if anything.
    pub(super) fn take(&self) -> Option<String> {
        let mut buffer = self.lock();
        buffer.last_words.clear();
        if buffer.text.is_empty() && buffer.cut_bytes == 0 {
            return None;
        }
        let text = std::mem::take(&mut buffer.text);
        let mut text = buffer.masks.hide_cut(text);
        let cut_bytes = std::mem::take(&mut buffer.cut_bytes);
        if cut_bytes > 0 {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("[cut: {cut_bytes} more bytes; the limit is {} bytes per row]\n", buffer.limit_bytes));
        }
        Some(text)
    }

    /// The last error, or the end of stderr: a panic's text is there.
    pub(super) fn last_words(&self) -> Option<String> {
        let buffer = self.lock();
        let words = buffer.masks.hide_cut(buffer.last_words.trim().to_owned());
        (!words.is_empty()).then_some(words)
    }

    /// As one of the guest's own streams.
    pub(super) fn as_stream(&self, is_stderr: bool) -> GuestStream {
        GuestStream { log: self.clone(), is_stderr }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    fn push(&mut self, text: &str) {
        // Once something was cut nothing more is kept, so that the mark stands where the text ends.
        let free = if self.cut_bytes > 0 { 0 } else { self.limit_bytes.saturating_sub(self.text.len()) };
        let kept = text.floor_char_boundary(free);
        self.text.push_str(&text[..kept]);
        self.cut_bytes += (text.len() - kept) as u64;
    }
}

/// Appends and keeps the end.
fn push_tail(tail: &mut String, text: &str) {
    tail.push_str(&text[text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS_BYTES))..]);
    tail.drain(..tail.ceil_char_boundary(tail.len().saturating_sub(LAST_WORDS_BYTES)));
}

/// A guest's stdout or stderr. It takes everything and never blocks; what is over the limit is counted and dropped.
pub(super) struct GuestStream {
    log: RowLog,
    is_stderr: bool,
}

impl GuestStream {
    fn put(&self, bytes: &[u8]) {
        self.log.stream(&String::from_utf8_lossy(bytes), self.is_stderr);
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.log.as_stream(self.is_stderr))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.log.as_stream(self.is_stderr))
    }
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_cut_with_a_mark() {
        let log = RowLog::new(10, Masks::default());
        log.entry("info", "äöüäöü");
        log.entry("info", "more");
        let text = log.take().unwrap();
        assert_eq!(text, "info: äö\n[cut: 20 more bytes; the limit is 10 bytes per row]\n");
        assert_eq!(log.take(), None);
    }

    #[test]
    fn a_secret_is_hidden_though_it_comes_in_pieces_or_is_cut() {
        let log = RowLog::new(100, Masks::new(["hunter2-hunter2"]));
        for piece in ["it is hun", "ter2", "-hun", "ter2, really\n"] {
            log.stream(piece, true);
        }
        assert_eq!(log.last_words().unwrap(), "it is ***, really");
        assert_eq!(log.take().unwrap(), "it is ***, really\n");
        let log = RowLog::new(20, Masks::new(["hunter2-hunter2"]));
        log.stream("0123456789 hunter2-hunter2", true);
        assert_eq!(log.take().unwrap(), "0123456789 ***\n[cut: 6 more bytes; the limit is 20 bytes per row]\n");
    }

    #[test]
    fn the_last_words_are_the_last_error_or_the_end_of_stderr() {
        let log = RowLog::new(100, Masks::default());
        log.entry("error", "first");
        log.entry("error", "second");
        assert_eq!(log.last_words().unwrap(), "second");
        log.take();
        log.stream(&"x".repeat(5_000), true);
        log.stream("the end", true);
        let words = log.last_words().unwrap();
        assert_eq!(words.len(), LAST_WORDS_BYTES);
        assert!(words.ends_with("xthe end"));
    }
}
