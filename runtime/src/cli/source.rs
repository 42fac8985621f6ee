//! Where the file of a submission is.

use std::path::Path;

use anyhow::Context;

use super::feed::{FormatArg, InputFile, form_of, open_file};
use crate::jobs::JobManager;

/// What stands before the name of an object where a file is named.
const OBJECT: &str = "object:";

/// Where a file is.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Local(&'a Path),
    /// In the object store.
    Object(&'a str),
}

impl<'a> Source<'a> {
    pub(super) fn of(file: &'a Path) -> Source<'a> {
        file.to_str().and_then(|file| file.strip_prefix(OBJECT)).map_or(Source::Local(file), Source::Object)
    }

    pub(super) async fn open(self, jobs: &JobManager, format: Option<FormatArg>) -> anyhow::Result<InputFile> {
        match self {
            Source::Local(path) => open_file(path, format),
            Source::Object(object) => {
                let form = form_of(object, format)?;
                let file = jobs.open_object(object).await.with_context(|| format!("cannot read the object {object}"))?;
                let file = InputFile::new(object.to_owned(), form, file);
                Ok(InputFile { object: Some(object.to_owned()), ..file })
            }
        }
    }
}
