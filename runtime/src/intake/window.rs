//! The bytes of the record that is being read.

use std::io::{self, ErrorKind, Read};

/// Bytes that are asked for at once, at least.
const READ_BYTES: usize = 64 << 10;
/// A larger buffer is not kept behind the record that needed it.
const KEPT_BYTES: usize = 4 << 20;

/// A record of a file as far as it was read, and the bytes that were read behind it.
pub(super) struct Window {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Where the record begins in the buffer, and where the bytes end that were read.
    begin: usize,
    end: usize,
    /// The bytes of the file before the record.
    passed: u64,
    has_ended: bool,
}

impl Window {
    /// A file whose first bytes were read before, behind some that are left out.
    pub(super) fn new(first: Vec<u8>, passed: u64, source: Box<dyn Read + Send>) -> Window {
        Window { source, begin: 0, end: first.len(), buffer: first, passed, has_ended: false }
    }

    /// A text that is read as a file.
    pub(super) fn of_text(text: &[u8]) -> Window {
        Window { has_ended: true, ..Window::new(text.to_vec(), 0, Box::new(io::empty())) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }

    /// The bytes of the file before the record.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Reads on. Returns false at the end of the file.
    pub(super) fn read_more(&mut self) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.buffer.len() < self.end + READ_BYTES {
            // A long record is not copied again and again.
            self.buffer.resize((self.end + self.end / 2).max(READ_BYTES * 2), 0);
        }
        let read = loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        self.has_ended = read == 0;
        Ok(read > 0)
    }

    /// The byte at this place of the record; none behind the end of the file.
    pub(super) fn byte(&mut self, at: usize) -> io::Result<Option<u8>> {
        while self.bytes().len() <= at {
            if !self.read_more()? {
                return Ok(None);
            }
        }
        Ok(Some(self.bytes()[at]))
    }

    /// The first bytes of the record and of those behind it, and true if the file ends there.
    pub(super) fn sample(&mut self, bytes_max: usize) -> io::Result<(&[u8], bool)> {
        while self.bytes().len() <= bytes_max && self.read_more()? {}
        let length = self.bytes().len();
        Ok((&self.bytes()[..length.min(bytes_max)], length <= bytes_max))
    }

    /// Ends the record with these bytes: the next one begins behind them.
    pub(super) fn pass(&mut self, length: usize) {
        self.begin += length;
        self.passed += length as u64;
        if self.buffer.len() > KEPT_BYTES && self.end - self.begin < KEPT_BYTES / 4 {
            self.buffer = self.bytes().to_vec();
            (self.begin, self.end) = (0, self.buffer.len());
        }
    }
}
