//! Files whose records must come in the order of their lines.

use anyhow::Context;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// What is wrong: all of it counted, the first few kept.
#[derive(Debug, Default)]
pub struct Differences {
    pub count: u64,
    pub first: Vec<String>,
}

impl Differences {
    pub fn add(&mut self, text: String) {
        self.count += 1;
        if self.count <= crate::SHOWN_MAX {
            self.first.push(text);
        }
    }
}

/// A record and the line it is about, or what is wrong with it.
type Parsed<T> = Result<(u64, T), String>;

/// The records of a file, one after the other. A file that is not there has none.
pub struct Ordered<T> {
    name: &'static str,
    records: Box<dyn Iterator<Item = anyhow::Result<Parsed<T>>>>,
    /// Read, but of a later line than was asked for.
    ahead: Option<(u64, T)>,
}

impl Ordered<csv::StringRecord> {
    /// Opens a CSV file, in which the column of this index holds the line. It has this header, or none when that is empty.
    pub fn open_csv(
        directory: &Path,
        name: &'static str,
        line_column: usize,
        header: &[&str],
        differences: &mut Differences,
    ) -> anyhow::Result<Self> {
        let Some(file) = open(directory, name)? else { return Ok(Self { name, records: Box::new(std::iter::empty()), ahead: None }) };
        let mut reader = csv::ReaderBuilder::new().has_headers(!header.is_empty()).flexible(true).from_reader(file);
        if !header.is_empty() {
            let found = reader.headers().with_context(|| format!("cannot read {name}"))?;
            if !found.iter().eq(header.iter().copied()) {
                differences.add(format!("{name}: the header is {found:?}"));
            }
        }
        let records = reader.into_records().map(move |record| match record {
            Ok(record) => Ok(match record.get(line_column).and_then(|line| line.parse().ok()) {
                Some(line) => Ok((line, record)),
                None => Err(format!("a record without a line: {record:?}")),
            }),
            Err(error) if error.is_io_error() => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        });
        Ok(Self { name, records: Box::new(records), ahead: None })
    }
}

impl<T: 'static> Ordered<T> {
    /// Opens a file of lines, each of which `parse` makes a record of.
    pub fn open_lines(directory: &Path, name: &'static str, parse: fn(&[u8]) -> Parsed<T>) -> anyhow::Result<Self> {
        let Some(file) = open(directory, name)? else { return Ok(Self { name, records: Box::new(std::iter::empty()), ahead: None }) };
        Ok(Self { name, records: Box::new(file.split(b'\n').map(move |line| Ok(parse(&line?)))), ahead: None })
    }
}

impl<T> Ordered<T> {
    /// The next record, which must be of this line. None if it is not there; what comes before it should not, and is passed over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn expect(&mut self, line: u64, differences: &mut Differences) -> anyhow::Result<Option<T>> {
        while let Some((found, record)) = self.next(differences)? {
            if found == line {
                return Ok(Some(record));
            }
            if found > line {
                self.ahead = Some((found, record));
                break;
            }
            differences.add(format!("{}: line {found}: doubled or out of order, line {line} was expected", self.name));
        }
        differences.add(format!("{}: line {line}: missing", self.name));
        Ok(None)
    }

    /// There must be no more.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn finish(&mut self, differences: &mut Differences) -> anyhow::Result<()> {
        while let Some((found, _)) = self.next(differences)? {
            differences.add(format!("{}: line {found}: not expected", self.name));
        }
        Ok(())
    }

    fn next(&mut self, differences: &mut Differences) -> anyhow::Result<Option<(u64, T)>> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        for record in self.records.by_ref() {
            match record.with_context(|| format!("cannot read {}", self.name))? {
                Ok(record) => return Ok(Some(record)),
                Err(text) => differences.add(format!("{}: {text}", self.name)),
            }
        }
        Ok(None)
    }
}

fn open(directory: &Path, name: &str) -> anyhow::Result<Option<BufReader<File>>> {
    match File::open(directory.join(name)) {
        Ok(file) => Ok(Some(BufReader::with_capacity(1 << 16, file))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {name}")),
    }
}
