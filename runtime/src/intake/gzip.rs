//! Files that are compressed with gzip.

use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use super::IntakeError;
use super::source::Refusal;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What is smaller may grow as it likes: a file of one line a million times does no harm.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// What a compressed file may become: a few bytes can stand for terabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes of what comes out, at most.
    pub bytes_max: u64,
    /// What comes out may be so many times as large as what went in, at most, once it is larger than 64 MiB.
    pub ratio_max: u64,
}

impl Default for InflateLimits {
    fn default() -> InflateLimits {
        InflateLimits { bytes_max: 16 << 30, ratio_max: 200 }
    }
}

/// A file whose first bytes were looked at.
pub(super) type Begun<R> = Chain<Cursor<Vec<u8>>, R>;

/// Looks at the first bytes of a file, which tell whether it is compressed.
pub(super) fn check_beginning<R: Read>(mut file: R, should_be_gzip: bool) -> Result<Begun<R>, IntakeError> {
    let mut first = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first).map_err(IntakeError::Read)?;
    match (should_be_gzip, first == MAGIC) {
        _ if first.is_empty() => Err(IntakeError::Empty),
        (true, false) => Err(IntakeError::NotGzip),
        (false, true) => Err(IntakeError::IsGzip),
        (true, true) | (false, false) => Ok(Cursor::new(first).chain(file)),
    }
}

/// What is in a compressed file, as far as it may grow.
pub(super) struct Inflated<R> {
    decoder: MultiGzDecoder<BufReader<Counted<R>>>,
    given: u64,
    limits: InflateLimits,
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
        Inflated { decoder: MultiGzDecoder::new(BufReader::with_capacity(64 << 10, Counted { inner: file, bytes: 0 })), given: 0, limits }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Refusal::CutOff.raise(),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => Refusal::Damaged(error.to_string()).raise(),
            _ => error,
        })?;
        self.given += read as u64;
        let InflateLimits { bytes_max, ratio_max } = self.limits;
        if self.given > bytes_max {
            return Err(Refusal::InflatedTooLarge { limit: bytes_max }.raise());
        }
        if self.given > RATIO_FROM_BYTES && self.given / ratio_max > self.decoder.get_ref().get_ref().bytes {
            return Err(Refusal::RatioTooHigh { limit: ratio_max }.raise());
        }
        Ok(read)
    }
}
