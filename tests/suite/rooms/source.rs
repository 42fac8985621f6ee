//! Which paths a file names and which strings it holds, read from its tokens: comments are no tokens, and the arguments of macros
//! are read like any other code.

use std::slice;

use proc_macro2::{TokenStream, TokenTree};

use Token::{Group, Other, PathSep, Text, Word};

/// What a file names, with the line of each.
#[derive(Default)]
pub struct Source {
    /// Every path, use trees spelt out. What began with `self`, `super` or our library's name begins with `crate`.
    pub paths: Vec<(usize, Vec<String>)>,
    pub strings: Vec<(usize, String)>,
}

enum Token {
    Word(String),
    PathSep,
    /// A literal as it is written, quotes and all.
    Text(String),
    Group(Vec<(usize, Token)>),
    Other(char),
}

type Tokens = [(usize, Token)];

impl Source {
    /// Reads the text of the module `modules`, which is empty for the crate's root.
    pub fn read(text: &str, modules: &[String]) -> Source {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", modules.join("::")));
        let mut source = Source::default();
        source.read_tokens(&tokens(stream), modules);
        source
    }

    fn read_tokens(&mut self, mut tokens: &Tokens, modules: &[String]) {
        while let [(line, token), rest @ ..] = tokens {
            tokens = match (token, rest) {
                (Word(word), [(_, Word(name)), (_, Group(body)), rest @ ..]) if word == "mod" => {
                    self.read_tokens(body, &[modules, slice::from_ref(name)].concat());
                    rest
                }
                // `impl Trait + use<'a>` imports nothing.
                (Word(word), [(_, first), ..]) if word == "use" && !matches!(first, Other('<')) => self.read_use_tree(rest, &[], modules),
                (Word(word), [(_, Word(next)), rest @ ..]) if word == "extern" && next == "crate" => self.read_use_tree(rest, &[], modules),
                // A doc comment is `#[doc = "text"]`.
                (Word(word), [(_, Other('=')), (_, Text(_)), rest @ ..]) if word == "doc" => rest,
                (Word(first), mut rest) => {
                    let mut path = vec![first.clone()];
                    while let [(_, PathSep), (_, Word(next)), after @ ..] = rest {
                        path.push(next.clone());
                        rest = after;
                    }
                    // A word alone is a variable, a field or something imported.
                    if path.len() > 1 {
                        self.paths.push((*line, from_the_crate(&path, modules)));
                    }
                    rest
                }
                (Group(body), rest) => {
                    self.read_tokens(body, modules);
                    rest
                }
                (Text(text), rest) => {
                    self.strings.push((*line, text.clone()));
                    rest
                }
                (PathSep | Other(_), rest) => rest,
            }
        }
    }

    /// `a::{b, c::*}` behind `prefix` is `prefix::a::b` and `prefix::a::c::*`. Returns what follows the tree.
    fn read_use_tree<'a>(&mut self, mut tokens: &'a Tokens, prefix: &[String], modules: &[String]) -> &'a Tokens {
        let mut path = prefix.to_vec();
        let mut last_line = None;
        while let [(line, token), rest @ ..] = tokens {
            tokens = rest;
            match token {
                Other(',' | ';') => break,
                Group(inner) => {
                    let mut inner = inner.as_slice();
                    while !inner.is_empty() {
                        inner = self.read_use_tree(inner, &path, modules);
                    }
                    last_line = None;
                }
                Word(word) if word == "as" => tokens = rest.get(1..).unwrap_or_default(),
                Word(word) => {
                    path.push(word.clone());
                    last_line = Some(*line);
                }
                Other('*') => {
                    path.push("*".to_owned());
                    last_line = Some(*line);
                }
                PathSep | Other(_) | Text(_) => {}
            }
        }
        if let Some(line) = last_line {
            self.paths.push((line, from_the_crate(&path, modules)));
        }
        tokens
    }
}

fn tokens(stream: TokenStream) -> Vec<(usize, Token)> {
    let mut found = Vec::new();
    for tree in stream {
        let line = tree.span().start().line;
        let token = match tree {
            TokenTree::Ident(word) => Word(word.to_string().trim_start_matches("r#").to_owned()),
            TokenTree::Literal(literal) => Text(literal.to_string()),
            TokenTree::Group(group) => Group(tokens(group.stream())),
            TokenTree::Punct(punct) if punct.as_char() == ':' && matches!(found.last(), Some((_, Other(':')))) => {
                found.pop();
                PathSep
            }
            TokenTree::Punct(punct) => Other(punct.as_char()),
        };
        found.push((line, token));
    }
    found
}

fn from_the_crate(path: &[String], modules: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|word| *word == "super").count();
    let (base, rest) = match path[0].as_str() {
        "super" => (&modules[..modules.len().saturating_sub(ups)], &path[ups..]),
        "self" => (modules, &path[1..]),
        "rowmill" => (&[][..], &path[1..]),
        _ => return path.to_vec(),
    };
    [&["crate".to_owned()], base, rest].concat()
}
