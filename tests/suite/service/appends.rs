//! Files that are appended to one batch at the same moment, by processes that know nothing of each other.

use std::process::Stdio;

use super::Installation;

const FILES: usize = 4;
const ROWS: usize = 300;

#[test]
fn files_that_are_appended_at_the_same_moment_all_come_in() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let batch = site.said(&["submit", "bank", "sleep", "--hold"]);
    let appends: Vec<_> = (0..FILES)
        .map(|file| {
            let rows: String = (0..ROWS).map(|row| format!("{{\"ms\":1,\"file\":{file},\"row\":{row}}}\n")).collect();
            let name = site.file(&format!("{file}.ndjson"), &rows);
            site.command(&["append", &batch, &name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for append in appends {
        let output = append.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rows = site.lines(&["rows", &batch]);
    let lines: Vec<u64> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=(FILES * ROWS) as u64).collect::<Vec<_>>());
    // Files of this size are not torn apart, and each is recorded with its first row.
    for part in rows.chunks(ROWS) {
        let file = &part[0]["input"]["file"];
        let wanted = (0..ROWS as u64).map(|row| (file.clone(), row));
        assert!(part.iter().map(|row| (row["input"]["file"].clone(), row["input"]["row"].as_u64().unwrap())).eq(wanted), "{part:?}");
    }
    let firsts = "SELECT string_agg(first_row::text, ' ' ORDER BY first_row) FROM rowmill.batch_files";
    assert_eq!(site.database.as_ref().unwrap().sql(firsts).unwrap().trim(), "1 301 601 901");
}

#[test]
fn a_rejected_row_that_has_not_come_to_its_turn_shows_its_text_and_code() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let batch = site.said(&["submit", "bank", "sleep", "--hold"]);
    let file = site.file("a.csv", "ms,note\n1,x\n1,5\" disk\n");
    site.said(&["append", &batch, &file]);
    let rows = site.lines(&["rows", &batch]);
    assert_eq!(rows[0], serde_json::json!({"line": 1, "status": null, "input": {"ms": "1", "note": "x"}}));
    let reason = "record 2 (line 3 of the file) has a quote inside a field that does not begin with one: put the field in quotes, and write each quote in it twice";
    let message = serde_json::json!({"id": 0, "code": "bad_row", "values": [reason]});
    assert_eq!(rows[1], serde_json::json!({"line": 2, "status": null, "text": "1,5\" disk", "messages": [message]}));
    assert_eq!(site.lines(&["rows", &batch, "--code", "bad_row"]), rows[1..]);
}
