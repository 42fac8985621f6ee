//! The fields of a cron line. Cron programs read some values in different ways, and the library
//! that looks for ticks reads some as less than they say: these are refused, with the value that
//! means one thing everywhere.

/// A field of a line: its name, its values, and the words and signs that may stand there beside
/// digits, `*`, `,`, `-` and `/`.
pub(super) struct Field {
    pub name: &'static str,
    pub wanted: &'static str,
    first: u8,
    last: u8,
    /// Words for numbers, from `words_from` on.
    words: &'static [&'static str],
    words_from: u8,
    days: Days,
}

/// Signs for days that a field knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Days {
    None,
    /// `L`, `W` and `?`.
    OfMonth,
    /// `L`, `#` and `?`; 7 is 0.
    OfWeek,
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const fn numbers(name: &'static str, wanted: &'static str, first: u8, last: u8) -> Field {
    Field { name, wanted, first, last, words: &[], words_from: 0, days: Days::None }
}

pub(super) const FIELDS: [Field; 6] = [
    numbers("second", "seconds are 0 to 59", 0, 59),
    numbers("minute", "minutes are 0 to 59", 0, 59),
    numbers("hour", "hours are 0 to 23", 0, 23),
    Field { days: Days::OfMonth, ..numbers("day of month", "days are 1 to 31, or L for the last", 1, 31) },
    Field { words: MONTHS, words_from: 1, ..numbers("month", "months are 1 to 12, or JAN to DEC", 1, 12) },
    Field { words: WEEKDAYS, days: Days::OfWeek, ..numbers("day of week", "days are 0 to 7, where both are Sunday, or SUN to SAT", 0, 6) },
];

/// Reason why a value is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadField {
    Unknown,
    /// Another value says what this one was probably to say.
    Instead {
        why: String,
        value: String,
    },
}

/// A value of a field, as a number and as it was written.
#[derive(Clone, Copy)]
struct Written<'a> {
    number: u8,
    text: &'a str,
}

impl Field {
    /// Checks one field of a line.
    pub fn check(&self, value: &str) -> Result<(), BadField> {
        if value == "*" || (value == "?" && self.days != Days::None) {
            return Ok(());
        }
        let mut reason = None;
        let mut parts = Vec::new();
        for part in value.split(',') {
            match self.check_part(part) {
                Ok(()) => parts.push(part.to_owned()),
                Err(BadField::Instead { why, value }) => {
                    reason.get_or_insert(why);
                    parts.push(value);
                }
                Err(BadField::Unknown) => return Err(BadField::Unknown),
            }
        }
        let has = |sign: &str| parts.iter().any(|part| part.eq_ignore_ascii_case(sign));
        if reason.is_none() && has("L") && has("LW") {
            // The library would take the last weekday alone.
            return Err(BadField::Unknown);
        }
        reason.map_or(Ok(()), |why| Err(BadField::Instead { why, value: parts.join(",") }))
    }

    fn check_part(&self, part: &str) -> Result<(), BadField> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0).ok_or(BadField::Unknown)?)),
            None => (part, None),
        };
        if step.is_none() && self.is_sign_of_days(range)? {
            return Ok(());
        }
        let range = if self.days == Days::OfWeek { without_nth(range)? } else { range };
        match (range, range.split_once('-'), step) {
            ("*", _, Some(step)) => self.check_step(part, step, self.first, self.last),
            ("", _, Some(step)) => Err(BadField::Instead { why: format!("nothing stands before the / of {part:?}"), value: format!("*/{step}") }),
            (_, Some((first, last)), step) => self.check_range(part, self.value(first)?, self.value(last)?, step),
            (one, None, Some(step)) => Err(self.starting_at(part, self.value(one)?, step)),
            (one, None, None) => self.value(one).map(drop),
        }
    }

    /// A number, or the word for one.
    fn value<'a>(&self, text: &'a str) -> Result<Written<'a>, BadField> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text)).and_then(|at| u8::try_from(at).ok());
        let value = word.map(|at| at + self.words_from).or_else(|| number(text).and_then(|value| u8::try_from(value).ok()));
        let last = if self.days == Days::OfWeek { 7 } else { self.last };
        match value.filter(|value| (self.first..=last).contains(value)) {
            Some(number) => Ok(Written { number, text }),
            None => Err(BadField::Unknown),
        }
    }

    /// `L`, `LW` and `15W` among days of the month, `5L` among those of the week. An `L` alone
    /// means Saturday there for some, and nothing for others.
    fn is_sign_of_days(&self, text: &str) -> Result<bool, BadField> {
        let upper = text.to_ascii_uppercase();
        match (self.days, upper.as_str()) {
            (Days::OfMonth, "L" | "LW") => Ok(true),
            (Days::OfMonth, _) => upper.strip_suffix('W').map_or(Ok(false), |day| self.value(day).map(|_| true)),
            (Days::OfWeek, "L") => Err(BadField::Instead {
                why: "L alone is no day of the week (FRI#L is the last Friday of a month)".to_owned(),
                value: "SAT".to_owned(),
            }),
            (Days::OfWeek, _) if !upper.contains('#') => match upper.strip_suffix('L') {
                // `5L`; a word needs the `#`.
                Some(day) if number(day).is_some() => self.value(day).map(|_| true),
                _ => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn check_range(&self, part: &str, first: Written<'_>, last: Written<'_>, step: Option<u64>) -> Result<(), BadField> {
        let of_week = self.days == Days::OfWeek;
        // Sunday ends a week here, however it is written, and else begins it.
        let end = if of_week && last.number == 0 && first.number > 0 { 7 } else { last.number };
        if of_week && last.number == 0 && first.number == 0 {
            return Err(BadField::Instead { why: format!("{part:?} is one day"), value: first.text.to_owned() });
        }
        if end == 7 && last.text == "0" {
            return Err(BadField::Instead { why: format!("{part:?} goes backwards"), value: part.replacen("-0", "-7", 1) });
        }
        match step {
            None if first.number <= end => Ok(()),
            Some(step) if first.number <= end => self.check_step(part, step, first.number, end),
            _ => Err(BadField::Instead { why: format!("{part:?} goes backwards"), value: self.around(first, last, step) }),
        }
    }

    /// A range over the end of the field, as ranges or numbers that do not go over it.
    fn around(&self, first: Written<'_>, last: Written<'_>, step: Option<u64>) -> String {
        let of_week = self.days == Days::OfWeek;
        if let Some(step) = step {
            let size = u64::from(self.last - self.first) + 1;
            let length = (u64::from(last.number) + size - u64::from(first.number)) % size;
            let values = (0..=length).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            let wrapped = values.map(|value| u64::from(self.first) + (u64::from(first.number - self.first) + value) % size);
            let mut values: Vec<u64> = wrapped.collect();
            values.sort_unstable();
            return values.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        }
        let words = number(first.text).is_none();
        let show = |value: u8| match self.words.get(usize::from(value.saturating_sub(self.words_from))) {
            Some(word) if words => (*word).to_owned(),
            _ => value.to_string(),
        };
        let range = |from: u8, to: u8| if from == to { show(from) } else { format!("{}-{}", show(from), show(to)) };
        // A week that begins on Sunday, written as 7, is one that begins with 0.
        if of_week && first.number == 7 {
            return range(0, last.number);
        }
        format!("{},{}", range(first.number, self.last), range(self.first, last.number))
    }

    /// `5/20`: for some from the fifth on, for others the fifth alone.
    fn starting_at(&self, part: &str, from: Written<'_>, step: u64) -> BadField {
        let why = format!("{part:?} has no range before its /");
        let last = match self.words.last() {
            Some(word) if number(from.text).is_none() => (*word).to_owned(),
            _ => self.last.to_string(),
        };
        if from.number >= self.last || step > u64::from(self.last - from.number) {
            return BadField::Instead { why, value: from.text.to_owned() };
        }
        BadField::Instead { why, value: format!("{}-{last}/{step}", from.text) }
    }

    /// A step over the whole range leaves its first value alone: `*/61` among minutes would be once
    /// an hour.
    fn check_step(&self, part: &str, step: u64, first: u8, last: u8) -> Result<(), BadField> {
        // Seven days after Sunday is Sunday.
        let width = if self.days == Days::OfWeek { u64::from(last - first).min(6) } else { u64::from(last - first) };
        if step <= width {
            return Ok(());
        }
        let why = format!("the step of {part:?} is larger than its range, and only {first} would be left of it");
        Err(BadField::Instead { why, value: first.to_string() })
    }
}

/// A day of the week, or a range of such, without which of a month it is: `5#2`, `MON-FRI#L`.
fn without_nth(range: &str) -> Result<&str, BadField> {
    let Some((days, nth)) = range.split_once('#') else { return Ok(range) };
    let is_known = nth.eq_ignore_ascii_case("L") || matches!(nth, "1" | "2" | "3" | "4" | "5");
    if is_known && !days.is_empty() && days != "*" { Ok(days) } else { Err(BadField::Unknown) }
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Days of the month and days of the week that are both said are taken for either of them. But
/// where one begins with a `*`, as in `*/2`, some cron programs take only the days that are both.
/// Replaces such a value by one that does not begin so, and returns the reason.
pub(super) fn check_days(fields: &mut [String]) -> Option<String> {
    let [.., of_month, _, of_week] = fields else { return None };
    let says_all = |field: &str| matches!(field, "*" | "?");
    if says_all(of_month) || says_all(of_week) {
        return None;
    }
    let mut found = false;
    for (field, all) in [(of_month, "1-31"), (of_week, "0-6")] {
        if field.split(',').any(|part| part.starts_with('*')) {
            *field = field
                .split(',')
                .map(|part| part.strip_prefix('*').map_or(part.to_owned(), |rest| format!("{all}{rest}")))
                .collect::<Vec<_>>()
                .join(",");
            found = true;
        }
    }
    found.then(|| {
        "days of the month and days of the week together mean either of them, and for some cron programs both where one begins with *".to_owned()
    })
}
