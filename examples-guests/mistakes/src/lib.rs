//! Makes the mistake that a row names, as authors make them. `make mistakes` shows what a person is told of each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Empty, Failure, Outcome, Row};
use serde::Deserialize;

struct Mistakes {
    names: RefCell<Vec<String>>,
}

#[derive(Deserialize)]
struct Given {
    mistake: Mistake,
    list: Vec<u8>,
    zero: u8,
    text: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mistake {
    Index,
    NoneUnwrap,
    ErrorUnwrap,
    Overflow,
    Cast,
    Division,
    Slice,
    CharBoundary,
    MapKey,
    BorrowTwice,
    Assertion,
    Unfinished,
    Recursion,
    Endless,
    EndlessInLibrary,
    Memory,
    Capacity,
    ErrorText,
}

impl BatchProcessor for Mistakes {
    type Context = Empty;
    type Input = Given;
    type Output = u64;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self { names: RefCell::new(Vec::new()) })
    }

    fn process_row(&mut self, _: &Batch<Empty>, row: Row<Given>) -> Result<Outcome<u64>, Failure> {
        self.make(&row.input).map(Outcome::success)
    }
}

impl Mistakes {
    fn make(&self, given: &Given) -> Result<u64, Failure> {
        Ok(match given.mistake {
            Mistake::Index => third(&given.list),
            Mistake::NoneUnwrap => u64::from(*given.list.iter().find(|&&number| number > 9).unwrap()),
            Mistake::ErrorUnwrap => given.text.parse().unwrap(),
            Mistake::Overflow => u64::from(given.zero - black_box(1)),
            Mistake::Cast => u64::try_from(-1 - i64::from(given.zero)).expect("an amount is positive"),
            Mistake::Division => u64::from(100 / given.zero),
            Mistake::Slice => given.list[1..9].len() as u64,
            Mistake::CharBoundary => "é"[..1 + usize::from(given.zero)].len() as u64,
            Mistake::MapKey => BTreeMap::from([("A", 1)])[given.text.as_str()],
            Mistake::BorrowTwice => self.rename(given),
            Mistake::Assertion => {
                assert!(given.zero > 0, "the amount should be positive");
                0
            }
            Mistake::Unfinished => unreachable!("{} is no kind of account", given.text),
            Mistake::Recursion => depth(u64::from(given.zero)),
            Mistake::Endless => halvings(u64::from(given.zero)),
            Mistake::EndlessInLibrary => longest(&given.text),
            Mistake::Memory => keep(&given.text),
            Mistake::Capacity => Vec::<u64>::with_capacity(usize::MAX - usize::from(given.zero)).capacity() as u64,
            Mistake::ErrorText => return Err(Failure::permanent("there is no such account")),
        })
    }

    fn rename(&self, given: &Given) -> u64 {
        let names = self.names.borrow();
        self.names.borrow_mut().push(given.text.clone());
        names.len() as u64
    }
}

#[inline(never)]
fn third(list: &[u8]) -> u64 {
    u64::from(list[2 + list.len()])
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "it is the mistake")]
fn depth(level: u64) -> u64 {
    1 + depth(black_box(level + 1))
}

#[inline(never)]
fn halvings(mut number: u64) -> u64 {
    let mut count = 0_u64;
    while number != 1 {
        number = black_box(number / 2);
        count = count.wrapping_add(1);
    }
    count
}

#[inline(never)]
#[expect(clippy::infinite_iter, reason = "it is the mistake")]
fn longest(text: &str) -> u64 {
    text.chars().cycle().map(|letter| letter.len_utf8() as u64).fold(0, |longest, length| black_box(longest.max(length)))
}

#[inline(never)]
fn keep(text: &str) -> u64 {
    let mut kept = Vec::new();
    loop {
        kept.push(text.repeat(1 << 10));
        black_box(&kept);
    }
}

rowmill_guest::export_batch_processor!(Mistakes);
