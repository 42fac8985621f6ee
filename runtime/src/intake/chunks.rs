//! Rows of a file in chunks, read on a thread of their own while others work on them.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{IntakeError, RowReader};
use crate::model::{Line, NewRow};

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

/// The lines of a file's rows in their batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileLines {
    /// The number of the record in the file, or the line that a list of failed rows gives the record. The batch is of this file alone, and a row that comes in twice is refused, so
    /// several processes may go on with one file.
    #[default]
    Record,
    /// The next line of the batch: the file is appended to others.
    Next,
}

/// Which rows of a file are read, and as which lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub lines: FileLines,
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
            loop {
                let chunk = next_chunk(&mut reader, place.lines, size)?;
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

fn next_chunk(reader: &mut RowReader, lines: FileLines, size: ChunkSize) -> Result<Vec<NewRow>, IntakeError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < size.rows && bytes < size.bytes {
        let Some(row) = reader.next_row()? else { break };
        let row = match lines {
            FileLines::Record => row,
            FileLines::Next => NewRow { line: Line::Next, ..row },
        };
        bytes += row.input.as_str().len();
        chunk.push(row);
    }
    Ok(chunk)
}
