//! Uses what an operator may grant, for tests of the runtime: a row is a list of steps, and its output is what came of each.
//!
//! `[{"do": "config", "key": "branch"}, {"do": "http", "url": "http://127.0.0.1:8080/"}]`

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Empty, Failure, Outcome, Row, config, files, host, http, key_value, objects, sql};
use serde::Deserialize;
use serde_json::{Value, json};

struct Reaching;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Step {
    /// Reads a value.
    Config {
        key: String,
    },
    /// Tells a value where it should not be told.
    Tell {
        key: String,
        place: Place,
    },
    /// Sends a request, and those that its answers redirect to.
    Http {
        #[serde(default = "get")]
        method: String,
        url: String,
        #[serde(default)]
        body: String,
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// So many bytes of body more.
        #[serde(default)]
        bytes: usize,
        #[serde(default)]
        follow: bool,
    },
    /// Begins so many requests before it looks at one.
    AtOnce {
        url: String,
        count: usize,
    },
    /// Sends a body without telling how long it is.
    Upload {
        url: String,
        bytes: usize,
    },
    /// Makes headers until it may make no more.
    Headers {
        bytes: usize,
    },
    Sql {
        database: String,
        statement: String,
        #[serde(default)]
        parameters: Vec<Value>,
    },
    /// Writes an object: a text, and so many bytes more.
    Put {
        name: String,
        #[serde(default)]
        text: String,
        #[serde(default)]
        bytes: usize,
    },
    Object {
        name: String,
    },
    Remove {
        name: String,
    },
    Objects {
        #[serde(default)]
        prefix: String,
    },
    Read {
        path: String,
    },
    Write {
        path: String,
        text: String,
    },
    List {
        path: String,
    },
    Get {
        key: String,
    },
    Set {
        key: String,
        value: String,
    },
    /// Sets a value of so many bytes.
    SetBytes {
        key: String,
        bytes: usize,
    },
    Delete {
        key: String,
    },
    Increment {
        key: String,
        delta: u64,
    },
    Keys,
    /// Reads so many keys at once.
    GetMany {
        count: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    Log,
    /// Behind so much that it is cut off.
    LongLog,
    Message,
    FileText,
    FileName,
    Output,
    Number,
    Progress,
    Panic,
    Failure,
    Retry,
    Abort,
}

fn get() -> String {
    "GET".to_owned()
}

impl BatchProcessor for Reaching {
    type Context = Empty;
    type Input = Vec<Step>;
    type Output = Value;

    fn init(_: &AppInfo) -> Result<Self, String> {
        match config::get("init") {
            Ok(Some(text)) => Err(format!("told to fail with {text}")),
            _ => Ok(Self),
        }
    }

    fn process_row(&mut self, _: &Batch<Empty>, row: Row<Vec<Step>>) -> Result<Outcome<Value>, Failure> {
        let mut done = Vec::new();
        let mut told = Told::default();
        for step in row.input {
            done.push(take(step, &mut told)?);
        }
        let output = told.output.unwrap_or_else(|| Value::from(done));
        let mut outcome = Outcome::success(output);
        for text in told.messages {
            outcome = outcome.message(rowmill_guest::Message { id: 1, code: "told".to_owned(), field: None, values: vec![text] });
        }
        for (file, text) in told.pieces {
            outcome = outcome.piece(file, text);
        }
        Ok(outcome)
    }
}

#[derive(Default)]
struct Told {
    output: Option<Value>,
    messages: Vec<String>,
    pieces: Vec<(String, String)>,
}

fn take(step: Step, told: &mut Told) -> Result<Value, Failure> {
    let value = match step {
        Step::Config { key } => said(config::get(key).map(Value::from)),
        Step::Tell { key, place } => {
            tell(config::require(key).map_err(Failure::Permanent)?, &place, told)?;
            Value::Null
        }
        Step::Http { method, url, body, headers, bytes, follow } => {
            let mut body = body.into_bytes();
            body.resize(body.len() + bytes, b'x');
            let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            send(http::Request { method, url, headers, body }, follow)
        }
        Step::AtOnce { url, count } => at_once(&url, count),
        Step::Upload { url, bytes } => upload(&url, bytes),
        Step::Headers { bytes } => headers(bytes),
        Step::Sql { database, statement, parameters } => ask(&database, &statement, &parameters),
        Step::Put { name, text, bytes } => {
            let mut contents = text.into_bytes();
            contents.resize(contents.len() + bytes, b'x');
            of_objects(objects::put(name, contents).map(Value::from))
        }
        Step::Object { name } => {
            of_objects(objects::get(name).map(|found| found.map(|contents| String::from_utf8_lossy(&contents).into_owned()).into()))
        }
        Step::Remove { name } => of_objects(objects::delete(name).map(Value::from)),
        Step::Objects { prefix } => {
            let told = |object: objects::Info| json!([object.name, object.size]);
            of_objects(objects::list(prefix).map(|found| found.into_iter().map(told).collect()))
        }
        Step::Read { path } => said(files::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into())),
        Step::Write { path, text } => said(files::write(path, text).map(Value::from)),
        Step::List { path } => said(files::list(path).map(Value::from)),
        Step::Get { key } => said(key_value::get(key).map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()).into())),
        Step::Set { key, value } => said(key_value::set(key, value).map(Value::from)),
        Step::SetBytes { key, bytes } => said(key_value::set(key, vec![b'x'; bytes]).map(Value::from)),
        Step::Delete { key } => said(key_value::delete(key).map(Value::from)),
        Step::Increment { key, delta } => said(key_value::increment(key, delta).map(Value::from)),
        Step::Keys => said(key_value::list_keys().map(Value::from)),
        Step::GetMany { count } => {
            let keys: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
            said(key_value::get_many(&keys).map(|values| values.iter().filter(|value| value.is_some()).count().into()))
        }
    };
    Ok(value)
}

fn ask(database: &str, statement: &str, parameters: &[Value]) -> Value {
    let parameter = |value: &Value| match value {
        Value::Null => sql::Value::Null,
        Value::Bool(value) => sql::Value::Boolean(*value),
        Value::Number(value) => value.as_i64().map_or_else(|| sql::Value::Number(value.as_f64().unwrap_or_default()), sql::Value::Integer),
        other => sql::Value::Text(other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
    };
    let parameters: Vec<sql::Value> = parameters.iter().map(parameter).collect();
    match sql::rows::<Value>(database, statement, &parameters) {
        Ok(rows) => json!(rows),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }
}

fn of_objects(done: Result<Value, objects::Error>) -> Value {
    done.unwrap_or_else(|error| json!({ "error": format!("{error:?}") }))
}

fn said(done: Result<Value, String>) -> Value {
    done.unwrap_or_else(|error| json!({ "error": error }))
}

fn tell(value: String, place: &Place, told: &mut Told) -> Result<(), Failure> {
    match place {
        Place::Log => host::info(format!("it is {value}, really")),
        Place::LongLog => {
            for _ in 0..4_000 {
                host::info(&value);
            }
        }
        Place::Message => told.messages.push(value),
        Place::FileText => told.pieces.push(("told.txt".to_owned(), value)),
        Place::FileName => told.pieces.push((value, "told".to_owned())),
        Place::Output => told.output = Some(json!({ "it is": value })),
        Place::Number => told.output = value.parse::<u64>().ok().map(Value::from),
        Place::Progress => host::progress(50, format!("working with {value}")),
        Place::Panic => panic!("it is {value}"),
        Place::Failure => return Err(Failure::Permanent(format!("failed with {value}"))),
        Place::Retry => return Err(Failure::retry(format!("later with {value}"))),
        Place::Abort => return Err(Failure::AbortBatch(format!("no more with {value}"))),
    }
    Ok(())
}

fn send(request: http::Request, follow: bool) -> Value {
    let method = request.method.clone();
    match request.send() {
        Ok(response) => match response.header("location") {
            Some(url) if follow => send(http::Request { method, ..http::Request::get(url) }, follow),
            _ => json!({ "status": response.status, "body": String::from_utf8_lossy(&response.body), "bytes": response.body.len() }),
        },
        Err(error) => json!({ "error": error.kind }),
    }
}

#[cfg(target_arch = "wasm32")]
mod raw {
    use rowmill_guest::bindings::granted_part::wasi::http::outgoing_handler::handle;
    use rowmill_guest::bindings::granted_part::wasi::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};
    use serde_json::{Value, json};

    pub fn at_once(url: &str, count: usize) -> Value {
        let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
        let begun: Vec<_> = (0..count)
            .map(|_| {
                let request = OutgoingRequest::new(Fields::new());
                let _ = request.set_scheme(Some(&Scheme::Http));
                let _ = request.set_authority(Some(authority));
                let _ = request.set_path_with_query(Some(&format!("/{path}")));
                handle(request, None)
            })
            .collect();
        let ends: Vec<String> = begun
            .iter()
            .map(|begun| match begun {
                Err(code) => format!("{code:?}"),
                Ok(response) => loop {
                    match response.get() {
                        None => response.subscribe().block(),
                        Some(Ok(Ok(answer))) => {
                            // It is held: its place is not free again.
                            let status = answer.status();
                            core::mem::forget(answer);
                            break status.to_string();
                        }
                        Some(Ok(Err(code))) => break format!("{code:?}"),
                        Some(Err(())) => break "taken".to_owned(),
                    }
                },
            })
            .collect();
        json!(ends)
    }

    pub fn upload(url: &str, bytes: usize) -> Value {
        let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
        let request = OutgoingRequest::new(Fields::new());
        let _ = request.set_method(&Method::Post);
        let _ = request.set_scheme(Some(&Scheme::Http));
        let _ = request.set_authority(Some(authority));
        let _ = request.set_path_with_query(Some(&format!("/{path}")));
        let Ok(body) = request.body() else { return json!("no body") };
        let Ok(stream) = body.write() else { return json!("no stream") };
        let response = match handle(request, None) {
            Ok(response) => response,
            Err(code) => return json!(format!("{code:?}")),
        };
        for _ in 0..bytes.div_ceil(1_000) {
            if stream.blocking_write_and_flush(&[b'x'; 1_000]).is_err() {
                break;
            }
        }
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
        loop {
            match response.get() {
                None => response.subscribe().block(),
                Some(Ok(Ok(answer))) => break json!(answer.status()),
                Some(Ok(Err(code))) => break json!(format!("{code:?}")),
                Some(Err(())) => break json!("taken"),
            }
        }
    }

    pub fn headers(bytes: usize) -> Value {
        let fields = Fields::new();
        let value = vec![b'x'; bytes];
        let made = (0..10_000).take_while(|number| fields.append(&format!("x-{number}"), &value).is_ok()).count();
        json!(made)
    }
}

#[cfg(target_arch = "wasm32")]
use raw::{at_once, headers, upload};

#[cfg(not(target_arch = "wasm32"))]
fn at_once(url: &str, count: usize) -> Value {
    Value::from((0..count).map(|_| send(http::Request::get(url), false)).collect::<Vec<_>>())
}

#[cfg(not(target_arch = "wasm32"))]
fn upload(url: &str, bytes: usize) -> Value {
    send(http::Request::post(url, vec![b'x'; bytes]), false)
}

#[cfg(not(target_arch = "wasm32"))]
fn headers(bytes: usize) -> Value {
    Value::from(bytes)
}

rowmill_guest::export_batch_processor!(Reaching);
