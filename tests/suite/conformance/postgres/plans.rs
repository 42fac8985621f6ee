//! What a claim costs does not depend on how much waits: its plans go along indexes, and it reads as little of a large backlog as of a small one. No test looks at
//! the time.

use std::fmt::Write as _;
use std::process::Command;

use rowmill_tests::servers::Database;

use super::migrated;

const CLAIM: &str = "SELECT * FROM rowmill.claim_work('worker', 4, 5000, 4, 250000, 30000, NULL, 10000000, NULL, 65536)";
const CLAIM_FINISH: &str = "SELECT * FROM rowmill.claim_finish('worker', NULL, 30000, NULL)";

/// So many batches that are long done, and as many of so many rows each, queued, as a submit writes them.
fn queue(database: &Database, batches: u32, rows_each: u32) {
    fill(database, batches, rows_each, "'queued', 'rows', true, 1, 0");
    fill(database, batches, 1, "'success', 'done', false, 2, 1");
    let rows = format!(
        "INSERT INTO rowmill.rows (batch_key, line, row_no, input)
         SELECT b.batch_key, n, n, '{{\"line\":' || n || '}}' FROM rowmill.batches b, generate_series(1, {rows_each}) n WHERE b.fresh"
    );
    database.sql(&rows).unwrap();
    // A lease that ended, and a row to be run again.
    let others = "INSERT INTO rowmill.leases (batch_key, app, kind, token, worker, retries, next_row, last_row, crashes, charged_micros, expires_at)
         SELECT batch_key, app, kind, 1, 'gone', false, 1, 1, 0, 0, 1 FROM rowmill.batches WHERE batch_key = 1;
         INSERT INTO rowmill.retries (batch_key, row_no, app, op, kind, attempt, due_at)
         SELECT batch_key, 2, app, op, kind, 2, 1 FROM rowmill.batches WHERE batch_key = 1";
    database.sql(others).unwrap();
}

/// So many batches that are long done, and as many whose rows are done, to be joined.
fn finished(database: &Database, batches: u32) {
    fill(database, batches, 1, "'success', 'done', false, 2, 1");
    fill(database, batches, 1, "'inprog', 'join', false, 2, 1");
}

fn fill(database: &Database, batches: u32, rows_each: u32, state: &str) {
    let insert = format!(
        "INSERT INTO rowmill.batches (batch_id, app, op, kind, processor_version, processor_digest, context, attempts_max, submitted_at, row_count,
            status, step, fresh, next_row, success)
         SELECT gen_random_uuid(), 'app ' || n % 3, 'post', CASE WHEN n % 2 = 0 THEN 'batch' ELSE 'slow_query' END, 1, '', '{{}}', 1, 0, {rows_each}, {state}
         FROM generate_series(1, {batches}) n"
    );
    database.sql(&insert).unwrap();
}

/// Pages that a statement looks at when its connection has run it before, its functions' statements included. What it did is rolled back.
fn pages(database: &Database, statement: &str) -> u64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) {statement};");
    let again = format!("BEGIN; {explain} SELECT 'again'; {explain} ROLLBACK");
    let said = database.sql(&again).unwrap();
    let (_, said) = said.split_once("again").unwrap();
    // The first line of buffers is of the whole statement.
    let buffers = said.lines().find_map(|line| line.trim().strip_prefix("Buffers: shared ")).unwrap_or_else(|| panic!("{said}"));
    let counted = |what: &str| buffers.split(' ').find_map(|part| part.strip_prefix(what)).map_or(0, |number| number.parse().unwrap());
    counted("hit=") + counted("read=")
}

/// Each statement inside a function, with its plan and without costs.
fn plans(database: &Database, statement: &str) -> String {
    let settings = "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET auto_explain.log_level = notice";
    let script = format!("{settings}; BEGIN; {statement}; ROLLBACK");
    // It says notices on stderr, and a place only with each error.
    let said = Command::new("psql").args(["--no-psqlrc", "-qAt", "--command", &script, &database.url()]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stderr).unwrap();
    let mut plans = String::new();
    for notice in said.split("NOTICE:  ").skip(1) {
        let notice = notice.split("\nCONTEXT:").next().unwrap_or_default();
        let Some((_, notice)) = notice.split_once("Query Text: ") else { continue };
        let plan_from = notice.find("(cost=").map_or(0, |cost| notice[..cost].rfind('\n').map_or(0, |end| end + 1));
        let (text, plan) = notice.split_at(plan_from);
        // Not the script itself.
        if text.starts_with("LOAD") {
            continue;
        }
        writeln!(plans, "{}", text.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        for line in plan.lines().filter(|line| !line.trim().is_empty()) {
            writeln!(plans, "    {}", without_times(line.split("  (cost=").next().unwrap_or(line).trim_end())).unwrap();
        }
    }
    plans
}

/// Times differ from run to run.
fn without_times(line: &str) -> String {
    let is_time = |part: &&str| part.len() > 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    line.split('\'').map(|part| if is_time(&part) { "TIME" } else { part }).collect::<Vec<_>>().join("'")
}

/// Plans are worded differently by other versions.
fn is_worded_for(database: &Database) -> bool {
    database.sql("SHOW server_version_num").unwrap().trim().starts_with("15")
}

#[test]
fn a_claim_costs_the_same_whatever_waits() {
    let few = migrated();
    queue(&few, 10, 10);
    let few_pages = pages(&few, CLAIM);
    for (batches, rows_each) in [(10_000, 10), (1, 500_000)] {
        let many = migrated();
        queue(&many, batches, rows_each);
        for analyzed in [false, true] {
            if analyzed {
                many.sql("ANALYZE").unwrap();
            }
            let many_pages = pages(&many, CLAIM);
            assert!(
                many_pages <= 2 * few_pages,
                "{batches} batches of {rows_each} rows, analyzed {analyzed}: {many_pages} pages instead of {few_pages}"
            );
            if batches > 1 && analyzed && is_worded_for(&many) {
                insta::assert_snapshot!("plans_of_a_claim", plans(&many, CLAIM));
            }
        }
    }
}

#[test]
fn a_claim_to_finish_costs_the_same_however_many_batches_wait() {
    let few = migrated();
    finished(&few, 10);
    let few_pages = pages(&few, CLAIM_FINISH);
    let many = migrated();
    finished(&many, 10_000);
    for analyzed in [false, true] {
        if analyzed {
            many.sql("ANALYZE").unwrap();
        }
        let many_pages = pages(&many, CLAIM_FINISH);
        assert!(many_pages <= 2 * few_pages, "analyzed {analyzed}: {many_pages} pages instead of {few_pages}");
        if analyzed && is_worded_for(&many) {
            insta::assert_snapshot!("plans_of_a_claim_to_finish", plans(&many, CLAIM_FINISH));
        }
    }
}

/// Of many rows that succeeded one failed, and of many batches one has it.
#[test]
fn a_page_of_failed_rows_costs_the_same_however_many_succeeded() {
    const LIST: &str = "SELECT * FROM rowmill.list_failed('app 0', NULL, '{}', NULL, 9223372036854775807, 0, 10, 10000, 4194304)";
    let with = |batches: u32, rows: u32| {
        let database = migrated();
        fill(&database, batches, rows, &format!("'success', 'done', false, {rows} + 1, {rows}"));
        for statement in [
            format!("INSERT INTO rowmill.rows (batch_key, line, row_no, input) SELECT 3, n, n, '{{}}' FROM generate_series(1, {rows}) n"),
            format!(
                "INSERT INTO rowmill.outcomes (batch_key, fuel, row_no, attempt, failed) SELECT 3, 1, n, 1, n = {rows} FROM generate_series(1, {rows}) n"
            ),
            format!("UPDATE rowmill.batches SET status = 'failed', success = {rows} - 1, failed = 1, failure_at = 1 WHERE batch_key = 3"),
        ] {
            database.sql(&statement).unwrap();
        }
        assert_eq!(database.sql(&format!("SELECT count(*) FROM ({LIST}) f")).unwrap().trim(), "1");
        database
    };
    let few_pages = pages(&with(10, 10), LIST);
    let many = with(10_000, 100_000);
    for analyzed in [false, true] {
        if analyzed {
            many.sql("ANALYZE").unwrap();
        }
        let many_pages = pages(&many, LIST);
        assert!(many_pages <= 2 * few_pages, "analyzed {analyzed}: {many_pages} pages instead of {few_pages}");
    }
}
