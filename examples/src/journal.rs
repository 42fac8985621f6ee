//! What was sent, written down mail by mail: after a crash it is known where to go on.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What became of one mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The line of its row.
    pub line: u32,
    pub message_id: String,
    /// Why it is never sent, if the relay refused it for good.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
}

/// The journal of one batch: a JSON object a line, in the order of the lines. It is this process's as long as it is open.
#[derive(Debug)]
pub struct Journal {
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens it, and makes it when it is missing. An entry that was being written when its process died does not count.
    ///
    /// # Errors
    /// When another process has it, or it cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<Journal> {
        let mut file = File::options().read(true).append(true).create(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another process sends these mails now"),
            Err(TryLockError::Error(error)) => return Err(error).context("the journal cannot be locked"),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        // The name of a new file is on the disk when its directory is.
        path.parent().map(File::open).transpose()?.map(|directory| directory.sync_all()).transpose()?;
        let entries = text[..whole].lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Journal { file, entries: entries.with_context(|| format!("{} is no journal", path.display()))? })
    }

    /// The last line that was dealt with; 0 for none.
    pub fn last_line(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.line)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes an entry down. It is on the disk when this returns.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn record(&mut self, entry: Entry) -> anyhow::Result<()> {
        let line = serde_json::to_string(&entry)? + "\n";
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).context("the journal cannot be written")?;
        self.entries.push(entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: u32) -> Entry {
        Entry { line, message_id: format!("<{line}@example.com>"), refused: (line == 2).then(|| "no such user".to_owned()) }
    }

    #[test]
    fn an_entry_that_was_cut_off_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.ndjson");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.last_line(), 0);
        journal.record(entry(1)).unwrap();
        journal.record(entry(2)).unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("another process"));
        drop(journal);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"line\":3,\"mess").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.last_line(), journal.entries()), (2, &[entry(1), entry(2)][..]));
        journal.record(entry(3)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().entries(), [entry(1), entry(2), entry(3)]);
    }
}
