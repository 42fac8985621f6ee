//! Files that are compressed with gzip.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::source::Refusal;

pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What is smaller may grow as it likes: a file of one line a million times does no harm.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// What a compressed file may become: a few bytes can stand for terabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes of what comes out, at most.
    pub bytes_max: u64,
    /// The largest ratio of what comes out to what went in, once what comes out is larger than
    /// 64 MiB.
    pub ratio_max: u64,
}

impl Default for InflateLimits {
    fn default() -> InflateLimits {
        InflateLimits { bytes_max: 16 << 30, ratio_max: 200 }
    }
}

type Source<R> = BufReader<Counted<R>>;

/// The contents of a compressed file, as far as the limits allow: of all its members, one behind
/// the other. Zeros behind the last member are padding, as for gzip itself; other data there is
/// refused.
pub(super) struct Inflated<R> {
    state: State<R>,
    given: u64,
    limits: InflateLimits,
}

enum State<R> {
    Member(Box<GzDecoder<Source<R>>>),
    Ended(u64),
    /// A read failed.
    Failed,
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<R: Read> Inflated<R> {
    pub(super) fn new(file: R, limits: InflateLimits) -> Inflated<R> {
        let source = BufReader::with_capacity(64 << 10, Counted { inner: file, bytes: 0 });
        Inflated { state: State::Member(Box::new(GzDecoder::new(source))), given: 0, limits }
    }

    /// Bytes of the compressed file so far.
    fn taken(&self) -> u64 {
        match &self.state {
            State::Member(decoder) => decoder.get_ref().get_ref().bytes,
            State::Ended(bytes) => *bytes,
            State::Failed => 0,
        }
    }

    fn read_member(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let decoder = match &mut self.state {
                State::Member(decoder) => decoder,
                State::Ended(_) => return Ok(0),
                State::Failed => return Err(io::Error::other("an earlier read failed")),
            };
            let read = decoder.read(buffer).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Refusal::CutOff.raise(),
                ErrorKind::InvalidInput | ErrorKind::InvalidData => Refusal::Damaged(error.to_string()).raise(),
                _ => error,
            })?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let State::Member(decoder) = std::mem::replace(&mut self.state, State::Failed) else { continue };
            self.state = after_member(decoder.into_inner())?;
        }
    }
}

/// The data behind a member: another one, or padding, or the end.
fn after_member<R: Read>(mut source: Source<R>) -> io::Result<State<R>> {
    let mut has_zeros = false;
    loop {
        let rest = match source.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            rest => rest?,
        };
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        match rest.get(zeros) {
            // A member begins with another byte than data that was added, whatever it is cut to.
            Some(byte) if !has_zeros && zeros == 0 && *byte == MAGIC[0] => return Ok(State::Member(Box::new(GzDecoder::new(source)))),
            Some(_) => {
                let before = rest.len() - zeros;
                let at = source.get_ref().bytes - before as u64 + 1;
                return Err(Refusal::Trailing { at }.raise());
            }
            None if rest.is_empty() => return Ok(State::Ended(source.get_ref().bytes)),
            None => {
                has_zeros = true;
                source.consume(zeros);
            }
        }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_member(buffer)?;
        self.given += read as u64;
        let InflateLimits { bytes_max, ratio_max } = self.limits;
        if self.given > bytes_max {
            return Err(Refusal::InflatedTooLarge { limit: bytes_max }.raise());
        }
        if self.given > RATIO_FROM_BYTES && self.given / ratio_max > self.taken() {
            return Err(Refusal::RatioTooHigh { limit: ratio_max }.raise());
        }
        Ok(read)
    }
}
