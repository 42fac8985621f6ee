//! What an operator may grant, in a native build: kept per thread, and answered as the test wishes.

use crate::GrantError;
use crate::http::{Error, Request, Response};
use crate::sql;
use std::cell::RefCell;
use std::collections::BTreeMap;

type SqlAnswer = Box<dyn FnMut(&str, &str, &[sql::Value]) -> Result<Vec<serde_json::Value>, sql::Error>>;
type Answer = Box<dyn FnMut(Request) -> Result<Response, Error>>;

thread_local! {
    static CONFIG: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    static VALUES: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    static SQL: RefCell<Option<SqlAnswer>> = const { RefCell::new(None) };
    static HTTP: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// What [`config`](crate::config) tells on this thread from now on.
pub fn set_config(values: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) {
    CONFIG.set(values.into_iter().map(|(key, value)| (key.into(), value.into())).collect());
}

/// Answers the requests of [`http`](crate::http) on this thread from now on. Without it they are denied.
pub fn answer_http(answer: impl FnMut(Request) -> Result<Response, Error> + 'static) {
    HTTP.set(Some(Box::new(answer)));
}

/// Answers the statements of [`sql`] on this thread from now on: database, statement and parameters to rows. Without it there are no databases.
pub fn answer_sql(answer: impl FnMut(&str, &str, &[sql::Value]) -> Result<Vec<serde_json::Value>, sql::Error> + 'static) {
    SQL.set(Some(Box::new(answer)));
}

pub(crate) fn ask(database: &str, statement: &str, parameters: &[sql::Value]) -> Result<Vec<String>, sql::Error> {
    SQL.with_borrow_mut(|answer| match answer {
        Some(answer) => Ok(answer(database, statement, parameters)?.iter().map(ToString::to_string).collect()),
        None => Err(sql::Error::NoSuchDatabase),
    })
}

pub(crate) fn config(key: &str) -> Option<String> {
    CONFIG.with_borrow(|config| config.get(key).cloned())
}

pub(crate) fn answer(request: Request) -> Result<Response, Error> {
    HTTP.with_borrow_mut(|answer| match answer {
        Some(answer) => answer(request),
        None => Err(Error { kind: "HttpRequestDenied".to_owned() }),
    })
}

// As the runtime does it, which may fail.

#[expect(clippy::unnecessary_wraps, reason = "the runtime's own may fail")]
pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, GrantError> {
    Ok(VALUES.with_borrow(|values| values.get(key).cloned()))
}

pub(crate) fn get_many(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, GrantError> {
    keys.iter().map(|key| get(key)).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "the runtime's own may fail")]
pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), GrantError> {
    VALUES.with_borrow_mut(|values| values.insert(key.to_owned(), value.to_owned()));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the runtime's own may fail")]
pub(crate) fn delete(key: &str) -> Result<(), GrantError> {
    VALUES.with_borrow_mut(|values| values.remove(key));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the runtime's own may fail")]
pub(crate) fn list_keys() -> Result<Vec<String>, GrantError> {
    Ok(VALUES.with_borrow(|values| values.keys().cloned().collect()))
}

pub(crate) fn increment(key: &str, delta: u64) -> Result<u64, GrantError> {
    let no_number = || GrantError(format!("the value of {key:?} is no whole number that can be added to"));
    let old = match get(key)? {
        None => 0,
        Some(value) => String::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(no_number)?,
    };
    let sum = old.checked_add(delta).ok_or_else(no_number)?;
    set(key, sum.to_string().as_bytes())?;
    Ok(sum)
}
