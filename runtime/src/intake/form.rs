//! How a file holds its rows, by its name.

use super::Format;

/// How a file holds its rows, and whether it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileForm {
    pub format: Format,
    /// Compressed with gzip.
    pub gzip: bool,
}

impl FileForm {
    /// Every form, by what stands behind the dot of a file's name.
    const NAMES: [(&str, FileForm); 6] = [
        ("csv", FileForm::plain(Format::Csv)),
        ("csv.gz", FileForm::compressed(Format::Csv)),
        ("ndjson", FileForm::plain(Format::Ndjson)),
        ("ndjson.gz", FileForm::compressed(Format::Ndjson)),
        ("jsonl", FileForm::plain(Format::Ndjson)),
        ("jsonl.gz", FileForm::compressed(Format::Ndjson)),
    ];

    pub const fn plain(format: Format) -> FileForm {
        FileForm { format, gzip: false }
    }

    pub const fn compressed(format: Format) -> FileForm {
        FileForm { format, gzip: true }
    }

    /// By the end of a file's name, whatever its letters' case.
    pub fn of_name(name: &str) -> Option<FileForm> {
        let name = name.to_ascii_lowercase();
        let ends = |end: &str| name.strip_suffix(end).is_some_and(|stem| stem.ends_with('.'));
        FileForm::NAMES.iter().find(|(end, _)| ends(end)).map(|(_, form)| *form)
    }

    /// By its own name, as [`FileForm::as_str`] has it.
    pub fn parse(name: &str) -> Option<FileForm> {
        FileForm::NAMES.iter().map(|(_, form)| *form).find(|form| form.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match (self.format, self.gzip) {
            (Format::Csv, false) => "csv",
            (Format::Csv, true) => "csv.gz",
            (Format::Ndjson, false) => "ndjson",
            (Format::Ndjson, true) => "ndjson.gz",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_format_and_whether_it_is_compressed() {
        let form = |name: &str| FileForm::of_name(name).map(FileForm::as_str);
        assert_eq!(form("a.csv"), Some("csv"));
        assert_eq!(form("a.b.CSV.GZ"), Some("csv.gz"));
        assert_eq!((form("a.ndjson"), form("a.jsonl")), (Some("ndjson"), Some("ndjson")));
        assert_eq!((form("a.ndjson.gz"), form("a.jsonl.gz")), (Some("ndjson.gz"), Some("ndjson.gz")));
        for name in ["a.gz", "csv", "acsv", "a.csv.zip", "a.csv.", ""] {
            assert_eq!(form(name), None, "{name}");
        }
        for (_, form) in FileForm::NAMES {
            assert_eq!(FileForm::parse(form.as_str()), Some(form));
        }
    }
}
