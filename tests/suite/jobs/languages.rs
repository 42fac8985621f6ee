//! The same processor in Python and in JavaScript.

use rowmill::jobs::BatchRequest;
use rowmill::model::{BatchStatus, Isolation, JsonText, NewRow, Policy, RecordedOutcome, RowStatus};
use rowmill::worker::WorkerSettings;

use super::{Site, on_each_store, row, settings};
use crate::support::guests;

on_each_store! {
    python_and_javascript_say_the_same_of_the_same_rows
}

const LANGUAGES: [&str; 2] = ["python", "javascript"];
/// What becomes of the invoices, but for the exception.
const GOOD: &str = r#"{"invoice":"A-1","net_cents":4749,"tax_cents":783,"gross_cents":5532,"taxes":[{"percent":7,"net_cents":999,"tax_cents":70},{"percent":19,"net_cents":3750,"tax_cents":713}]}"#;

fn invoices() -> Vec<NewRow> {
    let line = |quantity: &str, price_cents: u32, tax: u32| format!(r#"{{"quantity":{quantity},"price_cents":{price_cents},"tax":{tax}}}"#);
    let invoice = |number: &str, lines: &str| format!(r#"{{"invoice":"{number}","lines":[{lines}]}}"#);
    let inputs = [
        invoice("A-1", &[line("3", 1_250, 19), line("1", 999, 7)].join(",")),
        invoice("A-2", &[line("1", 1, 7), line("0", 10_000_001, 20)].join(",")),
        // Neither expects this.
        r#"{"invoice":"A-3","lines":5}"#.to_owned(),
        invoice("A-4", &line("2.0", 1, 19)),
        invoice("Ä", &line("1", 1, 19)),
        invoice("A-6", ""),
        // The largest sum that there can be.
        invoice("A-7", &vec![line("10000", 10_000_000, 19); 500].join(",")),
    ];
    (1..).zip(inputs).map(|(line, input)| row(line, &input)).collect()
}

async fn run(site: &Site, language: &str, context: &str) -> (Vec<RecordedOutcome>, String) {
    let request = BatchRequest::new("shop", language).with_context(JsonText::check(context).unwrap()).with_rows(invoices());
    let id = site.jobs.batch_submit(request).await.unwrap();
    let batch = site.wait(id).await;
    assert_eq!((batch.status, batch.mark_error), (BatchStatus::Failed, None), "{language}");
    let mut file = String::new();
    for kept in batch.files {
        file += str::from_utf8(&site.blobs.get(&kept.object).await.unwrap()).unwrap();
    }
    (site.jobs.batch_rows(id, None, 100).await.unwrap(), file)
}

/// What the language has no part in.
fn said(row: &RecordedOutcome) -> String {
    let messages = row.messages.iter().map(|message| format!("{} {:?} {:?}", message.code, message.field, message.values));
    format!("{:?} {} [{}]", row.status.unwrap(), row.output.as_deref().unwrap_or("-"), messages.collect::<Vec<_>>().join("; "))
}

async fn python_and_javascript_say_the_same_of_the_same_rows(mut site: Site) {
    for language in LANGUAGES {
        site.jobs.register_processor("shop", language, guests::read(&format!("invoice-totals-{language}"))).await.unwrap();
    }
    for isolation in [Isolation::Lease, Isolation::Warm] {
        site.store.put_policy(&Policy { isolation: Some(isolation), ..Policy::of("shop", None) }).await.unwrap();
        // Several leases, so that there is something to stay warm for.
        site = site.working_by(WorkerSettings { slots: 1, lease_rows_max: 2, ..settings("one") });
        site.begin_work();
        let [python, javascript] = [run(&site, "python", "{}").await, run(&site, "javascript", "{}").await];
        for ((rows, file), place) in [(&python, "process_row (app.py:"), (&javascript, "processRow (app.js:")] {
            assert_eq!(file, "1,A-1,4749,783,5532\n4,A-4,2,0,2\n7,A-7,50000000000000,9500000000000,59500000000000\n");
            assert_eq!(rows[0].output.as_deref(), Some(GOOD));
            assert!(
                rows[0].log.as_deref().is_some_and(|log| log.ends_with("A-1: 2 lines\n")),
                "what is printed is kept with the row: {:?}",
                rows[0].log
            );
            let wrong = rows[1].messages.iter().map(|message| (message.code.as_str(), message.field.as_deref().unwrap(), message.values.join(",")));
            let wanted = [("quantity-wrong", "quantity"), ("price-wrong", "price_cents"), ("tax-unknown", "tax")];
            assert_eq!(wrong.collect::<Vec<_>>(), wanted.map(|(code, field)| (code, field, "2".to_owned())));
            let thrown = &rows[2].messages[0];
            assert_eq!((rows[2].status, thrown.code.as_str()), (Some(RowStatus::Failed), "trap"));
            assert!(thrown.values[0].ends_with("not iterable") && thrown.values[1].contains(place), "{thrown:?}");
        }
        for (one, other) in python.0.iter().zip(&javascript.0).filter(|(row, _)| row.line != 3) {
            assert_eq!(said(one), said(other), "line {}", one.line);
        }
        // An error that a processor returns, and not an exception.
        for language in LANGUAGES {
            let (rows, _) = run(&site, language, r#"{"taxes":"all"}"#).await;
            for row in rows {
                assert_eq!(row.messages[0].values, ["taxes should be a list of whole percents, 0 to 100"], "{language}");
            }
        }
        site.end_work().await;
    }
}
