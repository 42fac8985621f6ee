//! The history checker: a run of two minutes, and the proof that it finds what is wrong.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rowmill_tests::history::{self, Deed, History, Objects, Options, Report, Rule};
use rowmill_tests::servers::Database;

use crate::support::target;

use Rule::{
    AcknowledgedIsKept, AppsKeepTheirLimit, CountsEqualRows, EverythingEnds, FilesAreComplete, FinishedOnce, GroupsEndOnce, MarkDoneOnce,
    NothingAfterAbort, NothingUnderALostLease, OneOutcomePerRow, OutcomeIsTheRows, PollsGoForward, QuarantineHasItsReason, RemovedIsGone,
    TermsAreKept,
};

/// Longer runs: `make history SEED=… SECONDS=…`.
#[test]
fn two_minutes_of_failures_break_no_promise() {
    let seed = std::env::var("ROWMILL_TEST_SEED").unwrap_or_else(|_| "20260801".to_owned());
    let run = Command::new(target().join("release/history")).args(["--seconds", "120", "--seed", &seed]).output().unwrap();
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "seed {seed}: {report}\n{}", String::from_utf8_lossy(&run.stderr));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    println!("{report:#}");
    // It would be easy to keep every promise when nothing happens.
    let kills = report["failures"]["counts"]["worker_killed"].as_u64().unwrap();
    assert!(
        kills >= 10
            && report["outcomes"].as_u64().unwrap() >= 1_000
            && report["leases_taken_over"].as_u64().unwrap() >= 10
            && report["removed"].as_u64().unwrap() >= 10,
        "{report:#}"
    );
    assert!(report["groups_ended"].as_u64().unwrap() >= 5 && report["queries_leased_at_once"].as_u64().unwrap() >= 5, "{report:#}");
}

/// A batch of rows that all succeeded and wrote nothing, but to the files of others, which ran once and has no part in a chain: `b`. And one of its rows: `r`.
const SUCCESS: &str = "WITH b AS (
        SELECT * FROM rowmill.batches b WHERE status = 'success' AND step = 'done' AND kind = 'batch' AND mark_error IS NOT NULL AND round = 1
            AND after_batch IS NULL AND NOT EXISTS (SELECT FROM rowmill.batches c WHERE c.after_batch = b.batch_id) ORDER BY batch_key LIMIT 1),
    r AS (
        SELECT o.* FROM rowmill.outcomes o JOIN b USING (batch_key)
        WHERE o.piece_files IS NULL ORDER BY row_no LIMIT 1)";
/// A batch that was aborted with a row that has no outcome: `b`, and that row: `r`.
const ABORTED: &str = "WITH r AS (
        SELECT r.* FROM rowmill.rows r JOIN rowmill.batches b USING (batch_key)
        WHERE b.status = 'aborted' AND b.step = 'done' AND b.mark_error LIKE 'aborted %' AND r.row_no > 50
            AND b.after_batch IS NULL AND NOT EXISTS (SELECT FROM rowmill.batches c WHERE c.after_batch = b.batch_id)
            AND r.input::json->>'do' = 'succeed' AND r.input::json->>'pieces' = '[]' AND (r.input::json->>'until_attempt')::int <= 1
            AND NOT EXISTS (SELECT FROM rowmill.outcomes o WHERE o.batch_key = r.batch_key AND o.row_no = r.row_no) ORDER BY batch_key, row_no LIMIT 1),
    b AS (SELECT b.* FROM rowmill.batches b JOIN r USING (batch_key))";

/// A promise that is broken by hand: what is done after `SUCCESS` or `ABORTED`, and the rules that must be found broken, no others.
type Breach = (&'static str, &'static str, &'static str, &'static [Rule]);

const BREACHES: &[Breach] = &[
    (
        "an outcome is lost",
        SUCCESS,
        "DELETE FROM rowmill.outcomes o USING r WHERE (o.batch_key, o.row_no) = (r.batch_key, r.row_no)",
        &[OneOutcomePerRow, CountsEqualRows],
    ),
    (
        "an outcome is changed",
        SUCCESS,
        "UPDATE rowmill.outcomes o SET output = '{\"line\":1,\"said\":\"other\"}' FROM r
        WHERE (o.batch_key, o.row_no) = (r.batch_key, r.row_no)",
        &[OneOutcomePerRow, OutcomeIsTheRows],
    ),
    (
        "a row fails after it had succeeded",
        SUCCESS,
        "UPDATE rowmill.outcomes o SET failed = true FROM r WHERE (o.batch_key, o.row_no) = (r.batch_key, r.row_no)",
        &[OneOutcomePerRow, OutcomeIsTheRows, CountsEqualRows],
    ),
    (
        "a row is quarantined for nothing",
        SUCCESS,
        "UPDATE rowmill.outcomes o SET failed = true, output = NULL,
            messages = '[{\"id\":0,\"code\":\"quarantined\",\"values\":[\"4\"]}]'
        FROM r WHERE (o.batch_key, o.row_no) = (r.batch_key, r.row_no)",
        &[OneOutcomePerRow, CountsEqualRows, QuarantineHasItsReason],
    ),
    (
        "counts move alone",
        SUCCESS,
        "UPDATE rowmill.batches t SET success = t.success - 1 FROM b WHERE t.batch_key = b.batch_key",
        &[CountsEqualRows, PollsGoForward, MarkDoneOnce],
    ),
    (
        "a final status changes",
        SUCCESS,
        "UPDATE rowmill.batches t SET status = 'failed' FROM b WHERE t.batch_key = b.batch_key",
        &[FinishedOnce, PollsGoForward, MarkDoneOnce, AcknowledgedIsKept],
    ),
    ("a batch is finished again", SUCCESS, "UPDATE rowmill.batches t SET step = 'mark' FROM b WHERE t.batch_key = b.batch_key", &[FinishedOnce]),
    (
        "mark-done is recorded again",
        SUCCESS,
        "UPDATE rowmill.batches t SET mark_error = 'again' FROM b WHERE t.batch_key = b.batch_key",
        &[MarkDoneOnce],
    ),
    (
        "a call of mark-done is counted that was none",
        SUCCESS,
        "UPDATE rowmill.batches t SET mark_calls = t.mark_calls + 1 FROM b WHERE t.batch_key = b.batch_key",
        &[MarkDoneOnce],
    ),
    (
        "a file is recorded again",
        SUCCESS,
        "UPDATE rowmill.output_files f SET object = object || '2' FROM b WHERE f.batch_key = b.batch_key",
        &[FinishedOnce, FilesAreComplete],
    ),
    (
        "a row is submitted by nobody",
        SUCCESS,
        "INSERT INTO rowmill.rows SELECT batch_key, 1000000, row_count + 1, '{}' FROM b",
        &[AcknowledgedIsKept],
    ),
    (
        "a row's input changes",
        SUCCESS,
        "UPDATE rowmill.rows t SET input = '{}' FROM r WHERE (t.batch_key, t.row_no) = (r.batch_key, r.row_no)",
        &[AcknowledgedIsKept],
    ),
    ("a batch is lost", SUCCESS, "DELETE FROM rowmill.batches t USING b WHERE t.batch_key = b.batch_key", &[AcknowledgedIsKept]),
    (
        "an outcome comes after the abort",
        ABORTED,
        "INSERT INTO rowmill.outcomes (batch_key, row_no, failed, attempt, fuel, output)
        SELECT r.batch_key, r.row_no, false, 1, 0, json_build_object('line', r.line, 'said', r.input::json->>'say')::text FROM r",
        &[NothingAfterAbort, NothingUnderALostLease, CountsEqualRows],
    ),
    (
        "counts move after the abort",
        ABORTED,
        "UPDATE rowmill.batches t SET success = t.success + 1 FROM b WHERE t.batch_key = b.batch_key",
        &[NothingAfterAbort, CountsEqualRows, PollsGoForward, MarkDoneOnce],
    ),
    (
        "a batch is aborted by nobody",
        SUCCESS,
        "UPDATE rowmill.batches t SET status = 'aborted' FROM b WHERE t.batch_key = b.batch_key",
        &[FinishedOnce, PollsGoForward, MarkDoneOnce, AcknowledgedIsKept],
    ),
    (
        "a row of a batch that comes after another is not the output that it should be",
        "WITH b AS (SELECT * FROM rowmill.batches WHERE after_batch IS NOT NULL AND status = 'success' AND step = 'done' AND row_count > 1 ORDER BY batch_key LIMIT 1)",
        "UPDATE rowmill.rows t SET input = replace(t.input, 'said', 'Said') FROM b WHERE t.batch_key = b.batch_key AND t.row_no = 2",
        &[AcknowledgedIsKept],
    ),
    (
        "a round begins that nobody asked for",
        SUCCESS,
        "UPDATE rowmill.batches t SET status = 'queued', step = 'rows', round = t.round + 1, started_at = NULL, finished_at = NULL FROM b WHERE t.batch_key = b.batch_key",
        &[FinishedOnce, AcknowledgedIsKept, MarkDoneOnce, PollsGoForward],
    ),
    (
        "what a row came to before it was run again is lost",
        "WITH p AS (SELECT * FROM rowmill.past_outcomes ORDER BY batch_key, row_no LIMIT 1)",
        "DELETE FROM rowmill.past_outcomes t USING p WHERE (t.batch_key, t.row_no, t.round) = (p.batch_key, p.row_no, p.round)",
        &[OneOutcomePerRow],
    ),
    (
        "a row is left of a batch that was removed",
        "WITH b AS (SELECT batch_key FROM audit.changes
            WHERE source = 'batches' AND after IS NULL AND before::json->>'step' = 'done' ORDER BY seq LIMIT 1)",
        "INSERT INTO rowmill.rows SELECT batch_key, 1, 1, '{}' FROM b",
        &[RemovedIsGone],
    ),
    (
        "a group ends again",
        "WITH g AS (SELECT * FROM rowmill.groups WHERE ended_at IS NOT NULL ORDER BY app, name LIMIT 1)",
        "UPDATE rowmill.groups t SET ended_at = t.ended_at + 1 FROM g WHERE (t.app, t.name) = (g.app, g.name)",
        &[GroupsEndOnce],
    ),
    (
        "a group that was sealed is open, and nobody is told of its end",
        "WITH g AS (SELECT * FROM rowmill.groups WHERE ended_at IS NOT NULL ORDER BY app, name LIMIT 1)",
        "UPDATE rowmill.groups t SET ended_at = NULL, sealed_at = NULL FROM g WHERE (t.app, t.name) = (g.app, g.name)",
        &[GroupsEndOnce],
    ),
    (
        "there is a batch of nobody's",
        SUCCESS,
        "INSERT INTO rowmill.batches (batch_id, app, op, kind, processor_version, processor_digest, context, attempts_max,
            status, submitted_at) SELECT gen_random_uuid(), app, op, kind, 1, '', '{}', 1, 'wait', 0 FROM b",
        &[AcknowledgedIsKept],
    ),
];

fn quiet(seed: u64, seconds: u64) -> Options {
    Options { pause: None, workers: 2, clients: 8, ..Options::new(seed, Duration::from_secs(seconds)) }
}

fn rules(report: &Report) -> BTreeSet<Rule> {
    report.rules_broken.keys().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_that_is_broken_by_hand_is_found_and_nothing_else() {
    let history = history::run(quiet(7, 6)).await.unwrap();
    let report = history.judge().await.unwrap();
    assert_eq!((report.violations, report.found.len()), (0, 0), "{report:#?}");
    let mut objects = Objects::default();
    // In the open; and some of them behind the back of the triggers, too.
    let all = BREACHES.iter().map(|breach| (breach, false)).chain(BREACHES.iter().step_by(3).map(|breach| (breach, true)));
    for ((name, which, deed, broken), hidden) in all {
        let copy = Database::copy_in(&history.stage.postgres.url(), "postgres").unwrap();
        let role = if hidden { "SET session_replication_role = replica; " } else { "" };
        let done = copy.sql(&format!("{role}{which} {deed} RETURNING 1")).unwrap();
        assert!(!done.trim().is_empty(), "{name}: there was nothing to do it to");
        let report = history.judge_database(&copy.url(), &mut objects).await.unwrap();
        let (found, wanted) = (rules(&report), broken.iter().copied().collect::<BTreeSet<_>>());
        // Where nothing was written down, what there is now is compared with what was, and it is one rule or another.
        let right = if hidden { !found.is_empty() } else { found == wanted };
        assert!(right, "{name}, hidden {hidden}: {wanted:?} should have been found broken: {:#?}", report.found);
        let batches: BTreeSet<_> = report.found.iter().filter_map(|violation| violation.batch).collect();
        assert!(batches.len() <= 1, "{name}: {:#?}", report.found);
    }
    a_file_with_other_bytes_is_found(&history).await;
}

async fn a_file_with_other_bytes_is_found(history: &History) {
    let find = "SELECT f.object FROM rowmill.output_files f JOIN rowmill.batches b USING (batch_key)
        WHERE f.size_bytes > 100 AND b.status = 'success' ORDER BY f.size_bytes LIMIT 1";
    let object = history.stage.postgres.sql(find).unwrap().trim().to_owned();
    let blobs = history.stage.blobs().unwrap();
    let right = blobs.get(&object).await.unwrap();
    let text = String::from_utf8(right.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_first().unwrap();
    let missing = rest.to_vec();
    let doubled = [&[*first], &lines[..]].concat();
    let moved = [rest, &[*first]].concat();
    for wrong in [missing, doubled, moved] {
        blobs.put(&object, format!("{}\n", wrong.join("\n")).into()).await.unwrap();
        let report = history.judge().await.unwrap();
        assert_eq!((rules(&report), report.violations), (BTreeSet::from([FilesAreComplete]), 1), "{:#?}", report.found);
    }
    blobs.put(&object, right).await.unwrap();
    assert_eq!(history.judge().await.unwrap().violations, 0);
}

/// Takes a condition out of a function of the database.
fn without(function: &str, condition: &str) -> String {
    format!(
        "DO $do$ DECLARE was text := pg_get_functiondef('rowmill.{function}'::regproc); BEGIN
            IF position('{condition}' IN was) = 0 THEN RAISE 'the function has no such condition'; END IF;
            EXECUTE replace(was, '{condition}', '');
        END $do$"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_records_under_lost_leases_is_caught() {
    let sabotage =
        vec![without("record_results", "AND l.token = p_token AND l.expires_at > at"), "UPDATE rowmill.apps SET running_max = NULL".to_owned()];
    let pause = Some(Duration::from_millis(200));
    let options = Options { sabotage, pause, deeds: vec![(Deed::WorkerStopped, 1)], ..Options::new(3, Duration::from_secs(12)) };
    let report = history::run(options).await.unwrap().judge().await.unwrap();
    let found = rules(&report);
    assert!(found.contains(&NothingUnderALostLease) && found.contains(&AppsKeepTheirLimit), "{:#?}", report.found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_records_after_an_abort_is_caught() {
    let sabotage = vec![
        without("record_results", "AND b.step = ''rows''"),
        without("record_results", "AND b.status = ''inprog''"),
        // And nobody is told of aborts: guests run on until their worker's next sign of life.
        "CREATE SCHEMA sabotage; ALTER DATABASE postgres SET search_path = sabotage, pg_catalog, public;
         CREATE FUNCTION sabotage.pg_notify(channel text, payload text) RETURNS void LANGUAGE sql VOLATILE AS $$
            SELECT pg_catalog.pg_notify(channel, payload) WHERE payload NOT LIKE 'aborted %'
         $$"
        .to_owned(),
    ];
    let options = Options { sabotage, settle: Duration::from_secs(5), ..quiet(4, 8) };
    let report = history::run(options).await.unwrap().judge().await.unwrap();
    assert!(rules(&report).contains(&NothingAfterAbort), "{:#?}", report.found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_keep_terms_is_caught() {
    for (function, condition) in [("claim_leases", "AND b.start_at <= at"), ("record_results", "failures > limit_rows OR ")] {
        let options = Options { sabotage: vec![without(function, condition)], ..quiet(6, 8) };
        let report = history::run(options).await.unwrap().judge().await.unwrap();
        assert_eq!(rules(&report), BTreeSet::from([TermsAreKept]), "{condition}: {:#?}", report.found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_never_end_are_found() {
    let options = Options { workers: 0, settle: Duration::from_secs(1), ..quiet(5, 1) };
    let report = history::run(options).await.unwrap().judge().await.unwrap();
    assert_eq!(rules(&report), BTreeSet::from([EverythingEnds]), "{:#?}", report.found);
}
