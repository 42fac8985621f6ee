//! The checker must be able to fail: each test spoils one thing of a run that is right.

use super::*;
use tempfile::TempDir;

const INPUT: &str = "\
id,date,type,account,to_account,amount,currency,memo
T1,2024-02-29,deposit,DE0000000001,,12.30,EUR,
\"T,2\",2024-03-01,transfer,DE0000000001,FR0000000002,5,USD,\"said \"\"hi\"\"\"
T3,2024-03-01,payment,DE0000000001,,-1,EUR,
T4,2024-03-01,deposit
T5,2024-03-01,payment,DE0000000001,,2.00,GBP,büro
T6,2024-03-32,deposit,DE0000000001,,1,EUR,,too much
T7,2024-03-32,deposit,DE0000000001,,1,EUR,
";

const GOOD: [(&str, &str); 5] = [
    (
        "results.ndjson",
        r#"{"line":1,"status":"success","output":{"id":"T1","type":"deposit","account":"DE0000000001","change_cents":1230,"fee_cents":0},"messages":[],"attempts":1,"fuel":10}
{"line":2,"status":"success","output":{"id":"T,2","type":"transfer","account":"DE0000000001","change_cents":-500,"fee_cents":25},"messages":[],"attempts":1,"fuel":10}
{"line":3,"status":"failed","output":{},"messages":[{"id":10,"code":"amount-not-positive","field":"amount","values":["-1"]},{"id":13,"code":"memo-missing","field":"memo","values":[""]}],"attempts":1,"fuel":10}
{"line":4,"status":"failed","output":null,"messages":[{"id":0,"code":"bad_row","field":null,"values":["3 fields"]}],"attempts":0,"fuel":0}
{"line":5,"status":"success","output":{"id":"T5","type":"payment","account":"DE0000000001","change_cents":-200,"fee_cents":1},"messages":[],"attempts":2,"fuel":10}
{"line":6,"status":"failed","messages":[{"id":0,"code":"bad_row","field":null,"values":["9 fields"]}],"attempts":0,"fuel":0}
{"line":7,"status":"failed","messages":[{"id":2,"code":"date-malformed","field":"date","values":["2024-03-32"]}],"attempts":1,"fuel":10,"log":"x"}
"#,
    ),
    (
        "files/postings.csv",
        "1,T1,DE0000000001,1230,EUR\n2,\"T,2\",DE0000000001,-500,USD\n2,\"T,2\",FR0000000002,500,USD\n5,T5,DE0000000001,-200,GBP\n",
    ),
    ("files/rejects.csv", "3,T3,amount-not-positive;memo-missing\n7,T7,date-malformed\n"),
    (
        "failed.csv",
        "id,date,type,account,to_account,amount,currency,memo,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n\
         T3,2024-03-01,payment,DE0000000001,,-1,EUR,,3,amount-not-positive;memo-missing,,so\n\
         T4,2024-03-01,deposit,,,,,,4,bad_row,\"T4,2024-03-01,deposit\",so\n\
         T6,2024-03-32,deposit,DE0000000001,,1,EUR,,6,bad_row,\"T6,2024-03-32,deposit,DE0000000001,,1,EUR,,too much\",so\n\
         T7,2024-03-32,deposit,DE0000000001,,1,EUR,,7,date-malformed,,so\n",
    ),
    (
        "summary.json",
        r#"{"id":"x","status":"failed","rows":7,"success":3,"failed":4,"aborted":0,"seconds":0.5,"rows_per_second":14.0,"fuel":50,"files":[{"name":"postings.csv","path":"files/postings.csv","size_bytes":113},{"name":"rejects.csv","path":"files/rejects.csv","size_bytes":58}]}"#,
    ),
];

/// A run that is right.
fn good_run() -> TempDir {
    let run = tempfile::tempdir().unwrap();
    std::fs::create_dir(run.path().join("files")).unwrap();
    std::fs::write(run.path().join("input.csv"), INPUT).unwrap();
    for (name, text) in GOOD {
        std::fs::write(run.path().join(name), text).unwrap();
    }
    run
}

fn report(run: &TempDir) -> Report {
    check(&run.path().join("input.csv"), run.path()).unwrap()
}

/// The differences when, in one file of a right run, the one place that holds `old` holds `new` instead.
fn differences(name: &str, old: &str, new: &str) -> Vec<String> {
    let run = good_run();
    let text = std::fs::read_to_string(run.path().join(name)).unwrap();
    assert_eq!(text.matches(old).count(), 1, "{old}");
    std::fs::write(run.path().join(name), text.replace(old, new)).unwrap();
    report(&run).differences.first
}

/// The lines of a file of a right run, by their places.
fn lines(name: &str, numbers: impl IntoIterator<Item = usize>) -> String {
    let (_, text) = GOOD.into_iter().find(|(good, _)| *good == name).unwrap();
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    numbers.into_iter().map(|number| all[number - 1]).collect()
}

/// The differences when a file of a right run has these of its lines.
fn differences_of_lines(name: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let run = good_run();
    std::fs::write(run.path().join(name), lines(name, numbers)).unwrap();
    // The sizes in the summary are another matter.
    report(&run).differences.first.into_iter().filter(|difference| !difference.starts_with(SUMMARY)).collect()
}

#[test]
fn a_right_run_is_right() {
    let report = report(&good_run());
    assert_eq!(report.differences.first, Vec::<String>::new());
    assert_eq!((report.rows, report.success, report.failed, report.balance_cents), (7, 3, 4, 1230 - 525 - 201));
}

#[test]
fn a_result_that_is_doubled_missing_or_swapped_is_found() {
    assert_eq!(differences_of_lines(RESULTS, [1, 2, 2, 3, 4, 5, 6, 7]), ["results.ndjson: line 2: doubled or out of order, line 3 was expected"]);
    assert_eq!(differences_of_lines(RESULTS, [1, 3, 4, 5, 6, 7])[0], "results.ndjson: line 2: missing");
    assert_eq!(differences_of_lines(RESULTS, 1..=6)[0], "results.ndjson: line 7: missing");
    assert_eq!(differences_of_lines(RESULTS, [1, 2, 3, 4, 5, 6, 7, 7]), ["results.ndjson: line 7: not expected"]);
    assert_eq!(
        differences_of_lines(RESULTS, [2, 1, 3, 4, 5, 6, 7]),
        ["results.ndjson: line 1: missing", "results.ndjson: line 1: doubled or out of order, line 3 was expected"]
    );
}

#[test]
fn a_line_of_a_file_that_is_doubled_missing_or_swapped_is_found() {
    assert_eq!(differences_of_lines(POSTINGS, [1, 2, 3, 3, 4]), ["files/postings.csv: line 2: doubled or out of order, line 5 was expected"]);
    assert_eq!(differences_of_lines(POSTINGS, [1, 2, 4]), ["files/postings.csv: line 2: missing"]);
    assert_eq!(differences_of_lines(POSTINGS, [1, 3, 2, 4]).len(), 2);
    assert_eq!(differences_of_lines(POSTINGS, [4, 1, 2, 3]).len(), 6);
    assert_eq!(differences_of_lines(REJECTS, [2, 1]).len(), 2);
    assert_eq!(differences_of_lines(REJECTS, [1]), ["files/rejects.csv: line 7: missing"]);
    assert_eq!(differences_of_lines(FAILED, [1, 2, 4, 3, 5]).len(), 2);
    assert_eq!(differences_of_lines(FAILED, [2, 3, 4, 5]).len(), 2);
}

#[test]
fn a_wrong_result_is_found() {
    for (old, new, expected) in [
        ("\"memo-missing\"", "\"id-missing\"", "line 3: codes"),
        (",{\"id\":13,\"code\":\"memo-missing\",\"field\":\"memo\",\"values\":[\"\"]}", "", "line 3: codes"),
        ("\"field\":\"amount\"", "\"field\":\"memo\"", "line 3: message"),
        ("[\"-1\"]", "[\"-2\"]", "line 3: message"),
        ("{\"line\":3,\"status\":\"failed\"", "{\"line\":3,\"status\":\"aborted\"", "line 3: status"),
        ("\"output\":{},", "\"output\":{\"id\":\"T3\"},", "line 3: output"),
        ("\"fee_cents\":25", "\"fee_cents\":26", "line 2: output"),
        ("\"change_cents\":1230,", "", "line 1: output"),
        ("\"attempts\":2", "\"attempts\":0", "line 5: attempts"),
        ("{\"line\":1,", "{\"lines\":1,", "not a result"),
    ] {
        let found = differences(RESULTS, old, new);
        assert!(found[0].contains(expected), "{old}: {found:?}");
    }
}

#[test]
fn a_wrong_line_of_a_file_is_found() {
    for (name, old, new) in [
        (POSTINGS, "5,T5,DE0000000001,-200", "5,T5,DE0000000001,-201"),
        (POSTINGS, "FR0000000002", "FR0000000003"),
        (POSTINGS, "1,T1", "one,T1"),
        (REJECTS, "memo-missing", "id-missing"),
        (REJECTS, "3,T3", "3,T4"),
        (FAILED, "payment,DE0000000001,,-1", "payment,DE0000000001,,1"),
        (FAILED, "3,amount-not-positive;memo-missing", "3,amount-not-positive"),
        (FAILED, "T4,2024-03-01,deposit\",so", "T4,2024-03-01,deposit\","),
        (FAILED, ",too much", ""),
        (FAILED, "rowmill_codes", "codes"),
    ] {
        let found = differences(name, old, new);
        assert!(found[0].starts_with(name), "{old}: {found:?}");
    }
}

#[test]
fn a_wrong_summary_is_found() {
    for (old, new) in [
        ("\"rows\":7", "\"rows\":8"),
        ("\"success\":3", "\"success\":2"),
        ("\"failed\":4", "\"failed\":5"),
        ("\"aborted\":0", "\"aborted\":1"),
        ("\"status\":\"failed\"", "\"status\":\"success\""),
        ("\"fuel\":50", "\"fuel\":51"),
        ("\"seconds\":0.5,", ""),
        ("\"id\":\"x\"", "\"id\":\"\""),
        ("\"size_bytes\":58", "\"size_bytes\":61"),
        ("\"name\":\"rejects.csv\"", "\"name\":\"postings.csv\""),
    ] {
        let found = differences(SUMMARY, old, new);
        assert!(found.len() == 1 && found[0].starts_with(SUMMARY), "{old}: {found:?}");
    }
}

#[test]
fn a_missing_or_surplus_file_is_found() {
    for (name, _) in GOOD {
        let run = good_run();
        std::fs::remove_file(run.path().join(name)).unwrap();
        assert!(report(&run).differences.count > 0, "{name}");
    }
    let run = good_run();
    std::fs::write(run.path().join("files/more.csv"), "").unwrap();
    assert_eq!(report(&run).differences.first.len(), 2);
}

#[test]
fn only_the_first_differences_are_kept() {
    let run = good_run();
    let result = lines(RESULTS, [1]).repeat(100);
    std::fs::write(run.path().join(RESULTS), result).unwrap();
    let Differences { count, first } = report(&run).differences;
    assert!(count > 100);
    assert_eq!(first.len(), 10);
}
