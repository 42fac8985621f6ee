//! batch-large: the balance of 100,000 rows.

use std::path::Path;
use std::process::Command;

use rowmill_tests::servers::Database;

use super::{Shown, assert_lines, example};
use crate::support::{ended, target};

/// Its balance in cents, read from the file by the test itself.
fn balance_of(file: &Path) -> (usize, i64) {
    let mut reader = csv::Reader::from_path(file).unwrap();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cents = records.iter().map(|record| {
        let (whole, places) = record[4].split_once('.').unwrap();
        let cents = whole.parse::<i64>().unwrap() * 100 + places.parse::<i64>().unwrap();
        match &record[2] {
            "deposit" => cents,
            "withdrawal" => -cents,
            other => panic!("{other}"),
        }
    });
    (records.len(), cents.sum())
}

fn its_balance_is_that_of_the_file(arguments: &[&str]) {
    let Shown { out, directory } = example("batch-large", arguments);
    let (rows, balance) = balance_of(&directory.path().join("transactions.csv"));
    assert_eq!(rows, 100_000);
    let mut expected = vec!["submitted: 100000 rows in 10 batches, for 10 workers"];
    expected.extend(["batch "; 10]);
    expected.push("100000 rows succeeded in ");
    let end = format!("balance: {balance} cents in the file, {balance} in the results, {balance} in postings.csv");
    expected.push(&end);
    assert_lines(&out, &expected);
    assert_eq!(out.matches(": success: 10000 rows, 10000 success, 0 failed, 0 aborted").count(), 10, "{out}");
}

#[test]
fn batch_large_balances_over_the_embedded_store() {
    its_balance_is_that_of_the_file(&[]);
}

#[test]
fn batch_large_balances_over_postgresql_with_ten_processes() {
    let database = Database::create().unwrap();
    let mut migrate = Command::new(target().join("release/rowmill"));
    let (status, said) = ended(migrate.arg("migrate").env("ROWMILL_STORE_URL", database.url()));
    assert_eq!(status, 0, "{said}");
    // Who ran what is gone with the leases: a trigger writes it down.
    database
        .sql(
            "CREATE TABLE leased (worker text);
             CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO public.leased VALUES (NEW.worker); RETURN NULL; END $$;
             CREATE TRIGGER note_lease AFTER INSERT ON rowmill.leases FOR EACH ROW EXECUTE FUNCTION note_lease()",
        )
        .unwrap();
    its_balance_is_that_of_the_file(&["--processes", "--store", &format!("'{}'", database.url())]);
    // All ten are there when the batches are released; how many come first to some work is up to the machine.
    let workers: u64 = database.sql("SELECT count(DISTINCT worker) FROM leased").unwrap().trim().parse().unwrap();
    eprintln!("{workers} of ten processes had a part");
    assert!(workers > 1, "one process did it all");
}
