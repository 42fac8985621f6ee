//! PostgreSQL's texts hold every character but NUL. Ours do: a guest may write one to its log.

use std::borrow::Cow;

const NUL: char = '\0';
/// "Substitute", which stands for itself as [`ESCAPE_ESCAPE`]. Texts without these two characters, all but few, are stored as they are.
const ESCAPE: char = '\u{1a}';
const ESCAPE_NUL: char = '0';
const ESCAPE_ESCAPE: char = '1';
/// Between two pieces of a row, where no text can hold it.
pub(super) const PIECE_END: &str = "\u{1a}2";
/// Behind an [`ESCAPE`]: the end of a piece, and of a row's pieces.
const ESCAPE_PIECE_END: char = '2';
const ESCAPE_ROW_END: char = '3';
/// Between the inputs of two rows. JSON holds no such character.
pub(super) const INPUT_END: char = '\u{1e}';
/// The file of a piece is told by a character; this is that of file 0.
pub(super) const FIRST_FILE: char = '0';

/// A text for the database.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    if !text.contains([NUL, ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            NUL => encoded.extend([ESCAPE, ESCAPE_NUL]),
            ESCAPE => encoded.extend([ESCAPE, ESCAPE_ESCAPE]),
            other => encoded.push(other),
        }
    }
    Cow::Owned(encoded)
}

/// A text from the database, which [`encode`] made.
pub(super) fn decode(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ESCAPE => decoded.push(if characters.next() == Some(ESCAPE_NUL) { NUL } else { ESCAPE }),
            other => decoded.push(other),
        }
    }
    decoded
}

/// The pieces of rows in a page: for each row, the numbers of their files and their texts.
pub(super) fn split_pieces<'a>(files: &'a str, pieces: &'a str) -> impl Iterator<Item = Vec<(usize, String)>> + 'a {
    let number = |mark: char| (mark as usize).saturating_sub(FIRST_FILE as usize);
    files
        .split(' ')
        .zip(split(pieces, ESCAPE_ROW_END))
        .map(move |(files, pieces)| files.chars().map(number).zip(split(pieces, ESCAPE_PIECE_END).map(|piece| decode(piece.to_owned()))).collect())
}

/// What stands between the marks of one kind.
fn split(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        for (at, _) in text.match_indices(ESCAPE) {
            if let Some(after) = text[at + ESCAPE.len_utf8()..].strip_prefix(mark) {
                rest = Some(after);
                return Some(&text[..at]);
            }
        }
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in ["", "plain", "\0", "\u{1a}", "a\0b\u{1a}0\u{1a}1\0", "é\u{1a}"] {
            let encoded = encode(text).into_owned();
            assert!(!encoded.contains(NUL));
            assert_eq!(decode(encoded), text);
        }
    }

    #[test]
    fn pieces_are_told_apart_whatever_they_hold() {
        let texts = ["", "plain", "2", "3", "\0", "\u{1a}", "\u{1a}2", "\u{1a}3", "a\u{1a}", "\u{1a}\u{1a}1"];
        let row = |texts: &[&str]| texts.iter().map(|text| encode(text)).collect::<Vec<_>>().join(PIECE_END);
        let page = [row(&texts), row(&[""]), row(&["a", "b"])].join("\u{1a}3");
        let rows: Vec<Vec<(usize, String)>> = split_pieces("0123456789 o 01", &page).collect();
        assert_eq!(rows[0], texts.iter().map(|text| (*text).to_owned()).enumerate().collect::<Vec<_>>());
        assert_eq!(rows[1..], [vec![(63, String::new())], vec![(0, "a".to_owned()), (1, "b".to_owned())]]);
    }
}
