//! Objects in a native build: kept per thread.

use crate::objects::{Error, Info};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

thread_local! {
    static OBJECTS: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

// As the runtime checks them.
fn check(name: &str) -> Result<(), Error> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(Error::BadName(format!("{name:?} cannot be the name of an object")));
    }
    Ok(())
}

pub fn put(name: &str, contents: &[u8]) -> Result<(), Error> {
    check(name)?;
    OBJECTS.with_borrow_mut(|objects| objects.insert(name.to_owned(), contents.to_owned()));
    Ok(())
}

pub fn get(name: &str) -> Result<Option<Vec<u8>>, Error> {
    check(name)?;
    Ok(OBJECTS.with_borrow(|objects| objects.get(name).cloned()))
}

pub fn delete(name: &str) -> Result<(), Error> {
    check(name)?;
    OBJECTS.with_borrow_mut(|objects| objects.remove(name));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the runtime's own may fail")]
pub fn list(prefix: &str, after: Option<&str>) -> Result<Vec<Info>, Error> {
    let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
    let info = |(name, contents): (&String, &Vec<u8>)| Info { name: name.clone(), size: contents.len() as u64 };
    Ok(OBJECTS
        .with_borrow(|objects| objects.range::<str, _>((behind, Bound::Unbounded)).filter(|(name, _)| name.starts_with(prefix)).map(info).collect()))
}
