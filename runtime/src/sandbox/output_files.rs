//! `rowmill:jobs/output-files` and `rowmill:jobs/mark` for guests: what a processor can learn and read while its `mark-done` is called.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use wasmtime::component::Resource;

use super::bindings::mark_done::rowmill::jobs::{mark, output_files};
use super::capabilities::caught;
use super::guest::GuestState;
use crate::model::OutputFile;

/// Bytes of one read, at most. What a guest asks for beyond is not an error.
const READ_BYTES_MAX: u32 = 1 << 20;
/// Readers of one instance that are open at the same time: each may hold a connection.
const READERS_MAX: u32 = 8;

/// The bytes of an output file, in parts. A failure is a sentence for the guest.
pub type FileBytes = BoxStream<'static, Result<Bytes, String>>;

/// Opens output files of batches that have ended.
#[async_trait]
pub trait OutputFiles: Send + Sync {
    /// Opens a file at its beginning.
    ///
    /// # Errors
    /// A sentence for the guest.
    async fn open(&self, file: &OutputFile) -> Result<FileBytes, String>;
}

/// What `mark-done` is called with beside the summary.
#[derive(Clone)]
pub struct Marking {
    /// 1 for the first call.
    pub attempt: u32,
    /// Opens the output files of the batch.
    pub files: Arc<dyn OutputFiles>,
}

/// What a guest can reach in a call of `mark-done`.
pub(super) struct MarkState {
    marking: Marking,
    files: Vec<OutputFile>,
    /// Readers that are open.
    readers: u32,
}

impl MarkState {
    pub fn new(marking: Marking, files: Vec<OutputFile>) -> MarkState {
        MarkState { marking, files, readers: 0 }
    }
}

/// An open file.
pub struct Reader {
    stream: FileBytes,
    /// What was received and not read.
    rest: Bytes,
}

impl Reader {
    /// The next bytes: as many, unless the file ends before.
    async fn read(&mut self, max: usize) -> Result<Bytes, String> {
        if self.rest.is_empty() && !self.receive().await? {
            return Ok(Bytes::new());
        }
        if self.rest.len() >= max {
            return Ok(self.rest.split_to(max));
        }
        let mut read = BytesMut::with_capacity(max);
        loop {
            read.extend_from_slice(&self.rest.split_to(self.rest.len().min(max - read.len())));
            if read.len() == max || !self.receive().await? {
                return Ok(read.freeze());
            }
        }
    }

    /// Receives a part that is not empty. False at the end.
    async fn receive(&mut self) -> Result<bool, String> {
        while self.rest.is_empty() {
            match self.stream.next().await {
                Some(part) => self.rest = part?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Why a call was not done.
pub(super) enum ReadError {
    Told(output_files::Error),
    Trap(wasmtime::Error),
}

impl From<output_files::Error> for ReadError {
    fn from(error: output_files::Error) -> ReadError {
        ReadError::Told(error)
    }
}

impl From<wasmtime::component::ResourceTableError> for ReadError {
    fn from(error: wasmtime::component::ResourceTableError) -> ReadError {
        ReadError::Trap(error.into())
    }
}

async fn done<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, ReadError> {
    Ok(caught(work).await.and_then(|done| done).map_err(output_files::Error::Unavailable)?)
}

impl GuestState {
    fn mark(&mut self) -> Result<&mut MarkState, ReadError> {
        Ok(self.mark.as_mut().ok_or(output_files::Error::NotNow)?)
    }
}

impl mark::Host for GuestState {
    async fn attempt(&mut self) -> wasmtime::Result<Option<u32>> {
        Ok(self.mark.as_ref().map(|mark| mark.marking.attempt))
    }
}

impl output_files::Host for GuestState {
    async fn list(&mut self) -> Result<Vec<output_files::Info>, ReadError> {
        let info = |file: &OutputFile| output_files::Info { name: file.name.clone(), size: file.size_bytes };
        Ok(self.mark()?.files.iter().map(info).collect())
    }

    async fn open(&mut self, name: String) -> Result<Resource<Reader>, ReadError> {
        let mark = self.mark()?;
        let file = mark.files.iter().find(|file| file.name == name).ok_or(output_files::Error::NoSuchFile)?;
        if mark.readers >= READERS_MAX {
            return Err(output_files::Error::TooManyOpen(READERS_MAX).into());
        }
        let stream = done(mark.marking.files.open(file)).await?;
        let reader = self.table.push(Reader { stream, rest: Bytes::new() })?;
        self.mark()?.readers += 1;
        Ok(reader)
    }

    fn convert_error(&mut self, error: ReadError) -> wasmtime::Result<output_files::Error> {
        match error {
            ReadError::Told(error) => Ok(error),
            ReadError::Trap(error) => Err(error),
        }
    }
}

impl output_files::HostReader for GuestState {
    async fn read(&mut self, reader: Resource<Reader>, max: u32) -> Result<Vec<u8>, ReadError> {
        self.mark()?;
        let reader = self.table.get_mut(&reader)?;
        let max = max.clamp(1, READ_BYTES_MAX);
        Ok(done(reader.read(max as usize)).await?.into())
    }

    async fn drop(&mut self, reader: Resource<Reader>) -> wasmtime::Result<()> {
        self.table.delete(reader)?;
        if let Some(mark) = &mut self.mark {
            mark.readers = mark.readers.saturating_sub(1);
        }
        Ok(())
    }
}
