//! Processors of every turn of mind, through the harness and so through the same code as in the sandbox.

use rowmill_guest::bindings::types;
use rowmill_guest::instance::{BatchInstance, SlowQueryInstance};
use rowmill_guest::testing::{self, Log};
use rowmill_guest::{
    AppInfo, Batch, BatchProcessor, BatchStatus, Empty, Failure, Level, Message, Outcome, OutputFile, Query, Row, RowStatus, SlowQueryProcessor,
    Summary, host, output_files,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

struct Shop {
    name: String,
    served: u32,
}

#[derive(Deserialize)]
struct Rebate {
    percent: u8,
    #[serde(default)]
    closed: bool,
}

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
struct Receipt {
    shop: String,
    number: u32,
    cents: u32,
}

impl BatchProcessor for Shop {
    type Context = Rebate;
    type Input = Order;
    type Output = Receipt;

    fn init(app: &AppInfo) -> Result<Self, String> {
        host::debug("opening");
        if app.op == "closed" { Err("there is no such shop".into()) } else { Ok(Self { name: format!("{}/{}", app.app, app.op), served: 0 }) }
    }

    fn begin(&mut self, batch: &Batch<Rebate>) -> Result<(), Failure> {
        if batch.context.closed { Err(Failure::retry("closed").after(Duration::from_secs(5))) } else { Ok(()) }
    }

    fn process_row(&mut self, batch: &Batch<Rebate>, row: Row<Order>) -> Result<Outcome<Receipt>, Failure> {
        let Order { item, count } = row.input;
        self.served += 1;
        host::info(format!("{count} × {item}"));
        match item.as_str() {
            "nothing" => Ok(Outcome::failed().message(Message::new("out-of-stock").id(7).field("item").value(&item).value(count)).message("sorry")),
            "later" if row.attempt < 2 => Err(Failure::retry("not yet")),
            "fire" => Err(Failure::abort_batch("fire")),
            "number" => {
                // What `?` is for.
                let cents: u32 = "many".parse()?;
                Ok(Outcome::success(Receipt { shop: self.name.clone(), number: self.served, cents }))
            }
            _ => {
                let cents = count * (100 - u32::from(batch.context.percent));
                let receipt = Receipt { shop: self.name.clone(), number: self.served, cents };
                Ok(Outcome::success(receipt).piece("log.txt", format!("  {item}  ")).piece("log.txt", " ").piece("all.txt", item))
            }
        }
    }

    fn mark_done(&mut self, summary: &Summary<Rebate>) -> Result<(), Failure> {
        let Summary { batch, status, rows, success, failed, aborted, files } = summary;
        host::info(format!("{} {status:?} {rows} {success} {failed} {aborted} {files:?}", batch.context.percent));
        if *status == BatchStatus::Aborted { Err(Failure::permanent("nothing to close")) } else { Ok(()) }
    }
}

rowmill_guest::export_batch_processor!(Shop);

fn shop() -> testing::Batch<Shop> {
    testing::Batch::new().app("corner", "buy").context(json!({"percent": 10}))
}

fn order(item: &str) -> Value {
    json!({"item": item, "count": 2})
}

#[test]
fn rows_are_run_one_after_the_other_in_one_instance() {
    let rows = shop().run_rows([order("tea"), order("nothing"), order("milk")]);
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows[0].answer().output, json!({"shop": "corner/buy", "number": 1, "cents": 180}));
    assert_eq!(rows[2].answer().output, json!({"shop": "corner/buy", "number": 3, "cents": 180}));
    assert_eq!(rows[0].answer().status, RowStatus::Success);
    let log = |level, text: &str| Log { level, text: text.into() };
    assert_eq!(rows[0].logs, [log(Level::Debug, "opening"), log(Level::Info, "2 × tea")]);
    assert_eq!(rows[1].logs, [log(Level::Info, "2 × nothing")]);
}

#[test]
fn a_failed_row_has_messages_and_an_empty_output() {
    let rows = shop().run_rows([order("nothing")]);
    let answer = rows[0].answer();
    assert_eq!((answer.status, &answer.output), (RowStatus::Failed, &json!({})));
    assert_eq!(rows[0].codes(), ["out-of-stock", "sorry"]);
    let Message { id, field, values, .. } = &answer.messages[0];
    assert_eq!((*id, field.as_deref(), values.join("|").as_str()), (7, Some("item"), "nothing|2"));
}

#[test]
fn files_are_joined_as_the_runtime_does() {
    let rows = shop().run_rows([order("tea"), order("nothing"), order("milk")]);
    assert_eq!(testing::file(&rows, "log.txt"), "tea\nmilk\n");
    assert_eq!(testing::file(&rows, "other.txt"), "");
}

#[test]
fn failures_reach_the_runtime() {
    let failure = |row: &testing::RowResult| row.result.clone().unwrap_err();
    let rows = shop().run_rows([order("later"), order("fire"), order("number")]);
    assert_eq!(failure(&rows[0]), Failure::retry("not yet"));
    assert_eq!(failure(&rows[1]), Failure::abort_batch("fire"));
    assert_eq!(failure(&rows[2]), Failure::permanent("invalid digit found in string"));
    assert!(shop().attempt(2).run_rows([order("later")])[0].result.is_ok());
}

#[test]
fn a_failure_of_begin_ends_every_row() {
    let rows = shop().context(json!({"percent": 0, "closed": true})).run_rows([order("tea"), order("milk")]);
    let expected = Err(Failure::Retry { reason: "closed".into(), after: Some(Duration::from_secs(5)) });
    assert!(rows.iter().all(|row| row.result == expected));
}

#[test]
fn input_that_does_not_fit_fails_its_row_only() {
    let rows = shop().run_rows([json!({"item": "tea", "count": "2"}), json!({"count": 1}), json!(null), order("tea")]);
    let told: Vec<_> = rows[..3].iter().map(|row| (row.codes(), row.answer().status, row.answer().messages[0].field.as_deref())).collect();
    let bad = |field| (vec!["bad_input"], RowStatus::Failed, field);
    assert_eq!(told, [bad(Some("count")), bad(Some("item")), bad(None)]);
    assert!(rows[0].answer().messages[0].values[0].starts_with("invalid type: string \"2\", expected u32"));
    assert_eq!(rows[3].answer().output["number"], 1);
}

#[test]
fn a_context_that_does_not_fit_fails_every_row() {
    for (context, field) in [(json!({}), "context.percent"), (json!({"percent": 300}), "context.percent"), (json!(7), "context")] {
        let batch = shop().context(&context);
        let rows = batch.run_rows([order("tea"), order("milk")]);
        for row in &rows {
            assert_eq!((row.codes(), row.answer().messages[0].field.as_deref()), (vec!["bad_input"], Some(field)), "{context}");
        }
        let Err(Failure::Permanent(text)) = batch.mark_done(&rows).result else { panic!("{context} was taken") };
        assert!(text.starts_with(&format!("bad_input: {field}: ")), "{text}");
    }
}

#[test]
fn the_end_is_told_with_counts_and_files() {
    let batch = shop();
    let rows = batch.run_rows([order("tea"), order("nothing")]);
    let done = batch.mark_done(&rows);
    assert_eq!(done.result, Ok(()));
    let file = |name: &str, size| OutputFile { name: name.into(), object: format!("test/{name}"), size };
    let files = [file("all.txt", 4), file("log.txt", 4)];
    assert_eq!(done.logs[1].text, format!("10 BatchStatus::Failed 2 1 1 0 {files:?}"));
    let rows = batch.run_rows([order("tea"), order("fire")]);
    assert_eq!(batch.mark_done(&rows).result, Err(Failure::permanent("nothing to close")));
}

#[test]
fn init_can_refuse() {
    assert_eq!(shop().app("corner", "closed").init(), Err("there is no such shop".into()));
    assert_eq!(shop().init(), Ok(()));
}

#[test]
fn calls_in_the_wrong_order_are_told() {
    let row = || types::Row { line: 1, input: "{}".into(), attempt: 1 };
    let info = || types::BatchInfo { id: "x".into(), context: r#"{"percent":0}"#.into() };
    let text = |failure| match failure {
        types::Failure::Permanent(text) => text,
        other => panic!("{other}"),
    };
    let instance = BatchInstance::<Shop>::new();
    assert_eq!(text(instance.begin(info()).unwrap_err()), "`begin` was called before `init` had succeeded");
    assert_eq!(text(instance.process_row(row()).unwrap_err()), "`process-row` was called before `init` had succeeded");
    instance.close();
    instance.init(&AppInfo { app: "a".into(), op: "b".into(), version: 1 }).unwrap();
    assert_eq!(text(instance.process_row(row()).unwrap_err()), "`process-row` was called before `begin` had succeeded");
    let closed = types::BatchInfo { context: r#"{"percent":0,"closed":true}"#.into(), ..info() };
    assert!(instance.begin(closed).is_err());
    assert_eq!(text(instance.process_row(row()).unwrap_err()), "`process-row` was called before `begin` had succeeded");
    instance.begin(info()).unwrap();
    assert!(instance.process_row(row()).is_ok());

    let query = SlowQueryInstance::<Search>::new();
    assert_eq!(text(query.run(info(), "0".into(), 1).unwrap_err()), "`run` was called before `init` had succeeded");
}

/// Counts up to its input.
struct Search;

impl SlowQueryProcessor for Search {
    type Context = Empty;
    type Input = u8;
    /// A map whose keys are lists is no JSON.
    type Output = HashMap<Vec<u8>, u8>;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn run(&mut self, query: Query<Empty, u8>) -> Result<Outcome<Self::Output>, Failure> {
        for step in 0..query.input {
            if host::cancelled() {
                return Ok(Outcome::failed().message("cancelled").piece("steps.txt", step.to_string()));
            }
            host::progress(step * 50, "searching");
        }
        host::warn(format!("{:?} left", host::remaining()));
        let outcome = Outcome::success(HashMap::new());
        Ok(if query.input == 0 { outcome.output(HashMap::from([(vec![1], 1)])) } else { outcome })
    }
}

#[test]
fn a_query_tells_its_progress() {
    let result = testing::SlowQuery::<Search>::new().remaining(Duration::from_micros(1_999_999)).run(4);
    assert_eq!(result.answer().output, json!({}));
    let percents: Vec<u8> = result.progress.iter().map(|(percent, _)| *percent).collect();
    assert_eq!(percents, [0, 50, 100, 100]);
    assert_eq!(result.logs[0], Log { level: Level::Warn, text: "1.999s left".into() });
}

#[test]
fn a_query_can_be_cancelled_on_its_way() {
    let query = testing::SlowQuery::<Search>::new().cancelled_after(2);
    for _ in 0..2 {
        let result = query.run(4);
        assert_eq!((result.codes(), result.progress.len(), result.file("steps.txt").as_str()), (vec!["cancelled"], 2, "2\n"));
    }
    assert_eq!(testing::SlowQuery::<Search>::new().cancelled_after(0).run(1).codes(), ["cancelled"]);
}

#[test]
fn an_output_that_is_no_json_fails_for_good() {
    let result = testing::SlowQuery::<Search>::new().run(0);
    assert_eq!(result.result, Err(Failure::permanent("the output cannot be written as JSON: key must be a string")));
}

#[test]
fn a_question_that_does_not_fit_is_answered_with_a_message() {
    let query = testing::SlowQuery::<Search>::new();
    let result = query.run(-1);
    assert_eq!(result.codes(), ["bad_input"]);
    assert_eq!(query.context(json!([1])).run(1).codes(), ["bad_input"]);
    assert_eq!(testing::SlowQuery::<Search>::new().mark_done(&result).result, Ok(()));
}

#[test]
#[should_panic(expected = "there is no answer: to be run again: not yet")]
fn asking_for_the_answer_of_a_failure_shows_it() {
    let _ = shop().run_rows([order("later")])[0].answer();
}

/// Reads its output files when it is told of the end.
struct Courier;

impl BatchProcessor for Courier {
    type Context = Empty;
    type Input = String;
    type Output = Empty;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, _: &Batch<Empty>, row: Row<String>) -> Result<Outcome<Empty>, Failure> {
        let refused = output_files::list().unwrap_err();
        host::info(format!("{refused}; call {:?}", host::mark_attempt()));
        Ok(Outcome::success(Empty {}).piece("a.txt", row.input.clone()).piece("b.txt", row.input))
    }

    fn mark_done(&mut self, summary: &Summary<Empty>) -> Result<(), Failure> {
        if host::mark_attempt() < Some(2) {
            return Err(Failure::retry("the partner is away"));
        }
        for file in output_files::list()? {
            let mut reader = output_files::open(&file.name)?;
            let first = reader.read(3)?;
            let mut rest = String::new();
            reader.read_to_string(&mut rest)?;
            host::info(format!("{} {}: {} {rest:?} {:?}", file.name, file.size, String::from_utf8_lossy(&first), reader.read(1)?));
        }
        let readers: Vec<_> = (0..9).map(|_| output_files::open("a.txt").err()).collect();
        let ends = (readers[7].clone(), output_files::open("c.txt").err());
        host::info(format!("{ends:?} {}", summary.files.len()));
        Ok(())
    }
}

#[test]
fn output_files_are_read_in_mark_done_and_nowhere_else() {
    let courier = testing::Batch::<Courier>::new();
    let rows = courier.run_rows(["hello", "world"]);
    assert_eq!(rows[0].logs[0].text, "output files can be read in mark-done only; call None");
    assert_eq!(courier.mark_done(&rows).result, Err(Failure::retry("the partner is away")));
    let done = courier.attempt(2).mark_done(&rows);
    assert_eq!(done.result, Ok(()));
    let said: Vec<&str> = done.logs.iter().map(|log| log.text.as_str()).collect();
    let file = |name: &str| format!("{name} 12: hel \"lo\\nworld\\n\" []");
    assert_eq!(said, [&*file("a.txt"), &*file("b.txt"), "(None, Some(NoSuchFile)) 2"]);
}
