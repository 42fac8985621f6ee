//! One instance of a checker: the contract's calls on one side, the checker's typed ones on the other. Hidden like [`instance`](crate::instance).

use crate::bindings::file_check::{FileInfo, FileRecord, FileRow, Finding as FindingOut};
use crate::decode::decode;
use crate::instance::log_panics;
use crate::{AppInfo, File, FileChecker, Finding, Message, Record, Rejection, Rows};
use std::cell::RefCell;

/// The `RefCell` is never borrowed twice: a component cannot be entered while it runs.
pub struct CheckInstance<C: FileChecker>(RefCell<Option<Running<C>>>);

struct Running<C: FileChecker> {
    checker: C,
    /// Of `begin`.
    file: Option<File<C::Context>>,
}

impl<C: FileChecker> CheckInstance<C> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn init(&self, app: &AppInfo) -> Result<(), String> {
        log_panics();
        *self.0.borrow_mut() = Some(Running { checker: C::init(app)?, file: None });
        Ok(())
    }

    pub fn begin(&self, info: FileInfo) -> Result<(), Vec<FindingOut>> {
        let mut slot = self.0.borrow_mut();
        let running = slot.as_mut().ok_or_else(|| too_early("begin", "init"))?;
        let FileInfo { name, size, sha256, form, columns, context } = info;
        let context = decode("context", &context).map_err(|message| out(Rejection::of_file(message)))?;
        let file = File { name, size_bytes: size, sha256, form, columns, context };
        running.checker.begin(&file).map_err(out)?;
        running.file = Some(file);
        Ok(())
    }

    pub fn check_records(&self, records: Vec<FileRecord>) -> Result<Vec<FileRow>, Vec<FindingOut>> {
        let mut slot = self.0.borrow_mut();
        let Some(Running { checker, file: Some(file) }) = slot.as_mut() else { return Err(too_early("check-records", "begin")) };
        let mut made = Vec::with_capacity(records.len());
        let mut rows = Rows { rows: Vec::new() };
        for FileRecord { line, value: text, unreadable } in records {
            if let Some(reason) = unreadable {
                checker.unreadable(file, line, &reason).map_err(out)?;
                made.push(FileRow { line, input: text, rejected: Some(reason) });
                continue;
            }
            let value = decode("", &text).map_err(|message| out(Rejection::of_record(line, message)))?;
            // The text may be large, and the checker needs the memory.
            drop(text);
            checker.check(file, Record { line, value }, &mut rows).map_err(out)?;
            for (line, input) in rows.rows.drain(..) {
                let input = serde_json::to_string(&input).map_err(|error| {
                    out(Rejection::of_record(line, Message::new("bad_row").value(format!("the input cannot be written as JSON: {error}"))))
                })?;
                made.push(FileRow { line, input, rejected: None });
            }
        }
        Ok(made)
    }

    pub fn end(&self) -> Result<String, Vec<FindingOut>> {
        let mut slot = self.0.borrow_mut();
        let Some(Running { checker, file: Some(file) }) = slot.as_mut() else { return Err(too_early("end", "begin")) };
        Ok(checker.end(file).map_err(out)?.map_or_else(String::new, |context| context.to_string()))
    }

    pub fn close(&self) {
        if let Some(running) = self.0.take() {
            running.checker.close();
        }
    }
}

impl<C: FileChecker> Default for CheckInstance<C> {
    fn default() -> Self {
        Self::new()
    }
}

fn out(rejection: Rejection) -> Vec<FindingOut> {
    rejection.findings.into_iter().map(|Finding { line, message }| FindingOut { line, message }).collect()
}

/// A call that came before the one it depends on: a mistake of the runtime, told instead of trapped so that it is understood.
#[cold]
fn too_early(call: &str, needed: &str) -> Vec<FindingOut> {
    out(Rejection::of_file(Message::new("bad_call").value(format!("`{call}` was called before `{needed}` had succeeded"))))
}
