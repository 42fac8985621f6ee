//! batch-mailbatch: a mail per row, through a real SMTP server, and crashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rowmill_tests::servers::Smtp;
use serde_json::Value;

use super::{example, example_in};
use crate::service::eventually;
use crate::support::target;

/// Lines and Message-IDs that are written down as sent. What was cut off by a crash does not count.
fn recorded(directory: &Path) -> BTreeMap<u64, String> {
    let journal = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let journal: Option<PathBuf> = journal.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("mails-"));
    let text = journal.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    let entries = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.map(|entry| (entry["line"].as_u64().unwrap(), entry["message_id"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn mails_that_are_written_down_are_not_sent_again_whatever_is_killed() {
    const ROWS: u64 = 200;
    const KILLS: u64 = 8;
    let smtp = Smtp::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--rows".to_owned(), ROWS.to_string(), "--relay".to_owned(), smtp.address().to_string()];
    // Of what was written down when it was killed: how often each mail had come.
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut kills = 0;
    while kills < KILLS {
        let mut command = Command::new(target().join("release/alya-examples"));
        command.args(["batch-mailbatch", "--directory"]).arg(directory.path()).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        kills += 1;
        // Each time a bit further, and a bit into the next mail.
        let wanted = usize::try_from(kills * ROWS / (KILLS + 2)).unwrap();
        eventually(|| (recorded(directory.path()).len() >= wanted || child.try_wait().unwrap().is_some()).then_some(()));
        assert!(child.try_wait().unwrap().is_none(), "it was faster than its killer");
        child.kill().unwrap();
        child.wait().unwrap();
        let mails = smtp.mails().unwrap();
        for (line, id) in recorded(directory.path()) {
            let times = mails.get(&id).map_or(0, Vec::len);
            assert!(times >= 1, "the mail of line {line} is written down and was not sent");
            let before = *kept.entry(id).or_insert(times);
            assert_eq!(before, times, "the mail of line {line} was written down, and sent again");
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let out = example_in(directory.path(), "batch-mailbatch", &arguments);
    assert!(out.contains("failed: 200 rows, 180 success, 20 failed, 0 aborted"), "{out}");
    let (mails, written) = (smtp.mails().unwrap(), recorded(directory.path()));
    assert_eq!(written.keys().copied().collect::<Vec<_>>(), (1..=ROWS).filter(|line| line % 10 != 0).collect::<Vec<_>>());
    assert_eq!(mails.len(), written.len(), "mails for no row");
    for (line, id) in &written {
        let came = &mails[id];
        assert!(kept.get(id).is_none_or(|before| *before == came.len()), "the mail of line {line} was written down, and sent again");
        assert!(came.iter().all(|mail| mail.contains(&format!("To: customer{line}@example.com"))), "{}", came[0]);
    }
    // What was on its way at a crash may be there twice, with the same Message-ID, and nothing else.
    let twice = mails.values().map(|came| came.len() as u64 - 1).sum::<u64>();
    assert!(twice <= KILLS, "{twice} mails too many");

    let out = example_in(directory.path(), "batch-mailbatch", &arguments);
    assert!(out.contains("sent before: 180\n") && out.contains("sent now: 0, refused by the relay: 0"), "{out}");
    assert_eq!(smtp.mails().unwrap(), mails);
}

#[test]
fn without_a_relay_the_mails_are_files() {
    let shown = example("batch-mailbatch", &[]);
    assert!(
        shown.out.contains("failed: 20 rows, 18 success, 2 failed") && shown.out.contains("sent now: 18, refused by the relay: 0"),
        "{}",
        shown.out
    );
    let mail = fs::read_to_string(shown.directory.path().join("mails/7.eml")).unwrap();
    for header in ["From: bank@example.com\r\n", "To: customer7@example.com\r\n", "Subject: ", "Message-ID: <", ".7@example.com>\r\n", "Date: "] {
        assert!(mail.contains(header), "{header}: {mail}");
    }
    assert!(mail.contains("your balance is 7.00 EUR"), "{mail}");
    assert_eq!(fs::read_dir(shown.directory.path().join("mails")).unwrap().count(), 18);
}
