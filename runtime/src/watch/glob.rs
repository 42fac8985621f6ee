//! A pattern of names: `*`, `?`, `[a-z]`, `{one,other}`, and `\\` before a sign that stands for
//! itself. It goes by letters and not by bytes, and names have no `/`.

/// Patterns without braces that one with braces may stand for.
const ALTERNATIVES_MAX: usize = 1_000;

/// A pattern, as the patterns without braces that it stands for.
#[derive(Debug)]
pub(super) struct Glob(Vec<Vec<Token>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Letter(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `[a-z]`, or `[!a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn matches(&self, letter: char) -> bool {
        match self {
            Token::Letter(own) => *own == letter,
            Token::Any | Token::Many => true,
            Token::Class { negated, ranges } => ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated,
        }
    }
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(pattern: &str) -> Result<Glob, String> {
        let mut letters = pattern.chars().collect::<Vec<_>>().into_iter().peekable();
        let globs = Parser { letters: &mut letters, depth: 0 }.alternatives()?;
        match globs {
            globs if globs.iter().all(Vec::is_empty) => Err("it is empty, and a name is not".to_owned()),
            globs => Ok(Glob(globs)),
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        let letters: Vec<char> = name.chars().collect();
        self.0.iter().any(|tokens| matches(tokens, &letters))
    }

    /// Returns true if it is certain that each name that the other pattern matches matches this
    /// one, too: both are the same, this one is for every name, or the other one is for single
    /// names.
    pub fn covers(&self, other: &Glob) -> bool {
        let letter = |token: &Token| if let Token::Letter(letter) = token { Some(*letter) } else { None };
        let takes = |theirs: &Vec<Token>| {
            let name: Option<Vec<char>> = theirs.iter().map(letter).collect();
            self.0.iter().any(|own| own == theirs || name.as_ref().is_some_and(|name| matches(own, name)))
        };
        self.0.iter().any(|own| own.as_slice() == [Token::Many]) || other.0.iter().all(takes)
    }

    /// Returns true if names that match all begin with a dot.
    pub fn is_hidden(&self) -> bool {
        self.0.iter().all(|tokens| tokens.first() == Some(&Token::Letter('.')))
    }
}

/// Goes back to the last `*` alone where the rest does not match: no earlier one could help.
fn matches(tokens: &[Token], letters: &[char]) -> bool {
    let (mut token, mut letter) = (0, 0);
    let mut last_many: Option<(usize, usize)> = None;
    while letter < letters.len() {
        match tokens.get(token) {
            Some(Token::Many) => {
                last_many = Some((token, letter));
                token += 1;
            }
            Some(one) if one.matches(letters[letter]) => {
                token += 1;
                letter += 1;
            }
            _ => {
                let Some((many, from)) = last_many else { return false };
                last_many = Some((many, from + 1));
                token = many + 1;
                letter = from + 1;
            }
        }
    }
    tokens[token..].iter().all(|token| *token == Token::Many)
}

struct Parser<'a> {
    letters: &'a mut std::iter::Peekable<std::vec::IntoIter<char>>,
    /// Braces that are open.
    depth: usize,
}

impl Parser<'_> {
    /// Patterns up to the end, or up to the brace that closes them.
    fn alternatives(&mut self) -> Result<Vec<Vec<Token>>, String> {
        let mut all = Vec::new();
        let mut current = vec![Vec::new()];
        loop {
            let next = match self.letters.next() {
                None if self.depth > 0 => return Err("a { is not closed".to_owned()),
                None => break,
                Some('}') if self.depth > 0 => break,
                Some('}') => return Err("a } closes nothing: write \\} for the sign itself".to_owned()),
                Some(',') if self.depth > 0 => {
                    all.append(&mut current);
                    current.push(Vec::new());
                    continue;
                }
                Some('{') => {
                    self.depth += 1;
                    let inner = self.alternatives()?;
                    self.depth -= 1;
                    inner
                }
                Some('/') => return Err("the name of a file has no /: a pattern is for names, and the directory is said by directory".to_owned()),
                Some('*') if self.letters.peek() == Some(&'*') => return Err("** is for directories, and a pattern is for names: write *".to_owned()),
                Some('*') => vec![vec![Token::Many]],
                Some('?') => vec![vec![Token::Any]],
                Some('[') => vec![vec![self.class()?]],
                Some('\\') => match self.letters.next() {
                    Some(letter) => vec![vec![Token::Letter(letter)]],
                    None => return Err("nothing stands behind the \\ at its end".to_owned()),
                },
                Some(letter) => vec![vec![Token::Letter(letter)]],
            };
            current = product(&current, &next)?;
        }
        all.append(&mut current);
        Ok(all)
    }

    /// Reads a class up to its `]`. A `]` that comes first stands for itself.
    fn class(&mut self) -> Result<Token, String> {
        let unclosed = || "a [ is not closed".to_owned();
        let negated = self.letters.next_if(|letter| matches!(letter, '!' | '^')).is_some();
        let mut ranges = Vec::new();
        loop {
            let first = match self.letters.next().ok_or_else(unclosed)? {
                ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
                '/' => return Err("the name of a file has no /".to_owned()),
                letter => letter,
            };
            let mut last = first;
            if self.letters.peek() == Some(&'-') {
                self.letters.next();
                match self.letters.peek() {
                    None => return Err(unclosed()),
                    // A - before the end stands for itself.
                    Some(']') => ranges.push(('-', '-')),
                    Some(_) => last = self.letters.next().ok_or_else(unclosed)?,
                }
            }
            if last < first {
                return Err(format!("the range {first}-{last} is empty: write {last}-{first}"));
            }
            ranges.push((first, last));
        }
    }
}

fn product(heads: &[Vec<Token>], tails: &[Vec<Token>]) -> Result<Vec<Vec<Token>>, String> {
    if heads.len().saturating_mul(tails.len()) > ALTERNATIVES_MAX {
        return Err(format!("it stands for more than {ALTERNATIVES_MAX} patterns"));
    }
    Ok(heads.iter().flat_map(|head| tails.iter().map(|tail| [head.as_slice(), tail.as_slice()].concat())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let glob = Glob::parse(pattern).unwrap();
        for name in matching {
            assert!(glob.matches(name), "{pattern} should match {name:?}");
        }
        for name in others {
            assert!(!glob.matches(name), "{pattern} should not match {name:?}");
        }
    }

    #[test]
    fn names_match_letter_by_letter() {
        check("*.csv", &["a.csv", ".csv", "größe.csv", "a.b.csv", "a\n.csv"], &["a.CSV", "a.csv.gz", "csv", "a.csv "]);
        check("a?c", &["abc", "aäc", "a€c", "a🏦c"], &["ac", "abbc", "aäöc"]);
        check("[äöü0-9]-*", &["ä-", "7-x"], &["a-", "-", "Ã-"]);
        check("[!a-z]", &["A", "ß", "-"], &["a", "ab", ""]);
        check("[]x-]", &["]", "x", "-"], &["y"]);
        check("a{,.gz}", &["a", "a.gz"], &["a."]);
        check("{a,b{1,2}}*.{csv,ndjson}", &["a.csv", "b1x.ndjson", "b2.csv"], &["b.csv", "b3.csv"]);
        check("a,b", &["a,b"], &["a", "b"]);
        check("\\*\\{\\}", &["*{}"], &["a{}"]);
        check("*a*b*c", &["abc", "xaxbxc", "aabbcc"], &["acb", "ab", "abcx"]);
        check("*?", &["a"], &[""]);
        // It would take for ever if each star were tried with each of the others.
        check(&"*a".repeat(50), &[&"a".repeat(255)], &[&format!("{}b", "a".repeat(254))]);
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_in_a_sentence() {
        for (pattern, part) in [
            ("", "it is empty"),
            ("{}", "it is empty"),
            ("{,}", "it is empty"),
            ("/", "has no /"),
            ("in/*.csv", "the directory is said by directory"),
            ("[a/]", "has no /"),
            ("**", "** is for directories, and a pattern is for names: write *"),
            ("a**", "write *"),
            ("a[", "a [ is not closed"),
            ("a[]", "a [ is not closed"),
            ("[a-", "a [ is not closed"),
            ("[z-a]", "the range z-a is empty: write a-z"),
            ("{a,b", "a { is not closed"),
            ("a}", "a } closes nothing"),
            ("a\\", "nothing stands behind the \\"),
            (&"{a,b}".repeat(10), "more than 1000 patterns"),
        ] {
            let said = Glob::parse(pattern).unwrap_err();
            assert!(said.contains(part), "{pattern}: {said}");
        }
    }

    #[test]
    fn a_pattern_covers_another_only_where_that_is_certain() {
        let glob = |pattern: &str| Glob::parse(pattern).unwrap();
        let covers = |one: &str, other: &str| glob(one).covers(&glob(other));
        assert!(covers("*", "a?") && covers("{a,*}", "*.csv") && covers("a*", "{ab,ac}") && covers("{a*,b*}", "{b*,a1}"));
        assert!(!covers("a*", "b") && !covers("a*", "a?") && !covers("a?", "{ab,abc}"));
        assert!(glob(".a*").is_hidden() && !glob("{.a,b}").is_hidden());
    }
}
