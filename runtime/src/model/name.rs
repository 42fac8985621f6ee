use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Bytes of the name of an app, an operation, a group or a schedule, at most.
pub const NAME_BYTES_MAX: usize = 255;

/// Reason why a text is not accepted as a name. `what` says which name it is, such as "the name of
/// an app".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("{what} is empty: it has 1 to {NAME_BYTES_MAX} bytes")]
    Empty { what: String },
    #[error("{what} has at most {NAME_BYTES_MAX} bytes; this one has {bytes}")]
    Long { what: String, bytes: usize },
    #[error("{what} begins or ends with a space, and this cannot be seen: {name:?}")]
    SpaceAtEnd { what: String, name: String },
    #[error("{what} has the character {} in {name:?}, which looks like a space: use a plain space", code_of(*character))]
    OtherSpace { what: String, name: String, character: char },
    #[error("{what} has the character {} in {name:?}, which cannot be seen: leave it out", code_of(*character))]
    Invisible { what: String, name: String, character: char },
    #[error("{what} has {} in {name:?}, which is no character of Unicode {}: leave it out", code_of(*character), unicode_version())]
    NoCharacter { what: String, name: String, character: char },
    #[error("{what} has {} in {name:?}, which is for private use, and looks different everywhere: leave it out", code_of(*character))]
    PrivateUse { what: String, name: String, character: char },
    #[error("{what} begins with {} in {name:?}, a mark that belongs to a letter before it: put a letter before it", code_of(*character))]
    MarkAtBegin { what: String, name: String, character: char },
    #[error("{what} is not in the composed form of Unicode (NFC), and looks like another one that is: {name:?}")]
    Decomposed { what: String, name: String },
}

fn code_of(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

/// Returns the form in which names are compared and stored: the composed form of Unicode (NFC). The
/// same letters are the same name, however a keyboard or a file system composes them.
pub fn canonical_name(name: &str) -> Cow<'_, str> {
    match is_nfc_quick(name.chars()) {
        IsNormalized::Yes => Cow::Borrowed(name),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(name.nfc().collect()),
    }
}

/// The version of Unicode by which code points are characters.
fn unicode_version() -> String {
    let (major, minor, _) = unicode_properties::UNICODE_VERSION;
    format!("{major}.{minor}")
}

/// Returns the form in which operations are compared and stored: in lower case, in every script
/// that has one, and composed (NFC). A sigma is the same at the end of a word and in its middle.
pub fn canonical_op(op: &str) -> String {
    if op.is_ascii() {
        return op.to_ascii_lowercase();
    }
    let is_sigma = |character| matches!(character, 'σ' | 'ς');
    let capitals: String = canonical_name(op).chars().map(|character| if is_sigma(character) { 'Σ' } else { character }).collect();
    // Lower case can undo a composition: the capital I with a dot becomes an i and a dot. A sigma at
    // the end of a word is a final one, as words are written and as operations were stored before.
    canonical_name(&capitals.to_lowercase()).into_owned()
}

/// Checks a name in the form in which it is stored: whoever reads it can tell it from every other
/// name. Letters that look alike in two scripts are not checked.
///
/// # Errors
/// [`BadName`].
pub fn check_name(what: &str, name: &str) -> Result<(), BadName> {
    let (what, shown) = (|| what.to_owned(), || name.to_owned());
    if name.is_empty() {
        return Err(BadName::Empty { what: what() });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(BadName::Long { what: what(), bytes: name.len() });
    }
    if let Some(character) = name.chars().find(|character| is_invisible(*character)) {
        return Err(BadName::Invisible { what: what(), name: shown(), character });
    }
    for character in name.chars() {
        match character.general_category() {
            GeneralCategory::Unassigned | GeneralCategory::Surrogate => return Err(BadName::NoCharacter { what: what(), name: shown(), character }),
            GeneralCategory::PrivateUse => return Err(BadName::PrivateUse { what: what(), name: shown(), character }),
            _ => {}
        }
    }
    if let Some(character) = name.chars().next().filter(|character| character.general_category_group() == GeneralCategoryGroup::Mark) {
        return Err(BadName::MarkAtBegin { what: what(), name: shown(), character });
    }
    if name.trim() != name {
        return Err(BadName::SpaceAtEnd { what: what(), name: shown() });
    }
    if let Some(character) = name.chars().find(|character| character.is_whitespace() && *character != ' ') {
        return Err(BadName::OtherSpace { what: what(), name: shown(), character });
    }
    if canonical_name(name) != name {
        return Err(BadName::Decomposed { what: what(), name: shown() });
    }
    Ok(())
}

/// Returns true for control and format characters, for those that Unicode says are shown as nothing
/// (`Default_Ignorable_Code_Point`), and for those that are blank without being a space.
fn is_invisible(character: char) -> bool {
    match character {
        // Signs of numbers and verses, which are seen around the digits that follow them
        // (`Prepended_Concatenation_Mark`).
        '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{110bd}' | '\u{110cd}' => false,
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2065}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}'
        | '\u{16fe4}'
        | '\u{1d159}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => matches!(character.general_category(), GeneralCategory::Control | GeneralCategory::Format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_composed() {
        assert_eq!(canonical_name("gro\u{308}ße"), "größe");
        assert!(matches!(canonical_name("größe"), Cow::Borrowed("größe")));
        // The sign of Kelvin is the letter K, by Unicode's own word.
        assert_eq!(canonical_name("\u{212a}"), "K");
        assert_eq!(check_name("the name of an app", &canonical_name("gro\u{308}ße")), Ok(()));
    }

    #[test]
    fn the_case_of_an_operation_does_not_matter_in_any_script() {
        for (one, other) in [
            ("POST", "post"),
            ("GRÖSSE", "gro\u{308}sse"),
            ("ПЛАТЕЖ", "платеж"),
            ("ΟΔΟΣ", "οδος"),
            ("ΣΣ", "σσ"),
            ("σς", "Σσ"),
            ("ÉTAT", "E\u{301}tat"),
        ] {
            assert_eq!(canonical_op(one), canonical_op(other));
        }
        for op in ["İ", "ΟΔΟΣ", "ǅ", "ẞ", "K\u{212a}", "i\u{307}"] {
            let canonical = canonical_op(op);
            assert_eq!(canonical_op(&canonical), canonical, "{op}");
            assert_eq!(check_name("an operation", &canonical), Ok(()), "{op}");
        }
    }

    #[test]
    fn a_sigma_is_one_letter_wherever_it_stands_and_other_small_letters_stay() {
        for character in '\0'..=char::MAX {
            let canonical = canonical_op(&character.to_string());
            assert_eq!(canonical_op(&canonical), canonical, "{character:?}");
            if character.is_lowercase() && character != 'ς' {
                assert_eq!(canonical, canonical_name(&character.to_string()), "{character:?}");
            }
        }
        assert_eq!(canonical_op("µs"), "µs");
        for (op, stored) in [("ΟΔΟΣ", "οδος"), ("οδοσ", "οδος"), ("οδος", "οδος"), ("ΣΣ", "σς"), ("σςσ", "σσς"), ("οδοσ 1", "οδος 1")]
        {
            assert_eq!(canonical_op(op), stored);
            assert_eq!(canonical_op(stored), stored);
        }
    }

    #[test]
    fn a_name_has_characters_that_everybody_sees() {
        let refused = |name: &str| check_name("the name of an app", name).unwrap_err().to_string();
        for (name, part) in [
            ("ba\u{fffe}nk", "U+FFFE"),
            ("bank\u{fdd0}", "U+FDD0"),
            ("\u{10ffff}", "U+10FFFF"),
            ("bank\u{378}", "U+0378"),
            ("\u{e000}", "U+E000"),
            ("bank\u{100000}", "U+100000"),
            ("bank\u{1d159}", "U+1D159"),
            ("bank\u{16fe4}", "U+16FE4"),
            ("bank\u{13430}", "U+13430"),
            ("bank\u{1d173}", "U+1D173"),
            ("\u{301}bank", "U+0301"),
            ("\u{20dd}", "U+20DD"),
            ("\u{93e}", "U+093E"),
        ] {
            let said = refused(name);
            assert!(said.starts_with("the name of an app ") && said.contains(part), "{name:?}: {said}");
        }
        assert!(refused("x\u{378}").contains("which is no character of Unicode "));
        assert!(refused("\u{301}x").contains("a mark that belongs to a letter before it: put a letter before it"));
        for name in ["नमस्ते", "x\u{301}y", "\u{600}12", "ⲁ", "👍🏽"] {
            assert_eq!(check_name("the name of an app", name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_told_from_another_is_refused() {
        let refused = |name: &str| check_name("the name of an app", name).unwrap_err().to_string();
        assert_eq!(refused(""), "the name of an app is empty: it has 1 to 255 bytes");
        assert_eq!(refused(&"x".repeat(256)), "the name of an app has at most 255 bytes; this one has 256");
        for name in ["bank ", " bank", "bank\u{a0}", "\u{3000}bank", "\u{2003}"] {
            assert!(refused(name).starts_with("the name of an app begins or ends with a space"), "{name:?}");
        }
        assert!(refused("the\u{a0}bank").contains("has the character U+00A0 in \"the\\u{a0}bank\", which looks like a space"));
        for name in
            ["ba\0nk", "bank\n", "\tbank", "ba\u{200b}nk", "bank\u{fe0f}", "\u{feff}bank", "ba\u{ad}nk", "\u{202e}knab", "\u{2800}", "ba\u{9b}nk"]
        {
            assert!(refused(name).contains("cannot be seen: leave it out"), "{name:?}");
        }
        assert!(refused("gro\u{308}ße").contains("composed form of Unicode (NFC)"));
        for name in ["bank", "The Bank & Co. #1", "größe", "银行", "بنك", "🏦", "a/b", &"x".repeat(255)] {
            assert_eq!(check_name("the name of an app", name), Ok(()), "{name}");
        }
    }
}
