//! Rows of a file in chunks, read on a thread of their own while others work on them.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{IntakeError, RowReader};
use crate::model::NewRow;

/// How large a chunk becomes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    pub rows: usize,
    /// Of inputs; the row that reaches it is part of the chunk.
    pub bytes: usize,
}

impl ChunkSize {
    /// For one append.
    pub const APPEND: ChunkSize = ChunkSize { rows: 10_000, bytes: 4 << 20 };
    /// For one call of a guest, in whose memory it stands.
    pub const CALL: ChunkSize = ChunkSize { rows: 500, bytes: 1 << 20 };
}

/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 2;

/// Which rows of a file are read, and as which lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The lines of the batch before the file's first. Behind others rows are numbered on, also those of a list that have lines of their own.
    pub lines_before: u32,
    /// The file's first rows, which the batch has already.
    pub skipped: u64,
}

/// The rows of a file in chunks.
pub struct Chunks {
    chunks: mpsc::Receiver<Vec<NewRow>>,
    reading: JoinHandle<Result<(), IntakeError>>,
}

impl Chunks {
    /// Begins to read.
    pub fn of(mut reader: RowReader, place: Place, size: ChunkSize) -> Chunks {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            for _ in 0..place.skipped {
                reader.next_row()?;
            }
            let mut read = place.skipped;
            loop {
                let chunk = next_chunk(&mut reader, place.lines_before, &mut read, size)?;
                if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                    return Ok(());
                }
            }
        });
        Chunks { chunks, reading }
    }

    /// The next chunk; none at the end, whatever it came from.
    pub async fn next(&mut self) -> Option<Vec<NewRow>> {
        self.chunks.recv().await
    }

    /// Whether the file was read to its end.
    ///
    /// # Errors
    /// [`IntakeError`]: then the rows that came are not the whole file.
    pub async fn end(self) -> Result<(), IntakeError> {
        drop(self.chunks);
        match self.reading.await {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(IntakeError::Read(std::io::Error::other(error))),
        }
    }
}

/// The rows of the next chunk, behind so many that were read.
fn next_chunk(reader: &mut RowReader, lines_before: u32, read: &mut u64, size: ChunkSize) -> Result<Vec<NewRow>, IntakeError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < size.rows && bytes < size.bytes {
        let Some(mut row) = reader.next_row()? else { break };
        *read += 1;
        if lines_before > 0 {
            row.line = u32::try_from(*read + u64::from(lines_before)).map_err(|_| IntakeError::TooMany)?;
        }
        bytes += row.input.as_str().len();
        chunk.push(row);
    }
    Ok(chunk)
}
