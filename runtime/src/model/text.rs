use std::borrow::Cow;

/// A guest's text with a blank for each control character, so that it can be shown: nothing in it commands a terminal.
pub fn without_controls(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A guest's text of several lines so that it can be shown: line breaks and tabs stay, every other control character, and what would turn the direction of writing, is written as
/// its code (`\\u{1b}`).
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            character if character.is_control() || is_direction(character) => shown.extend(character.escape_unicode()),
            character => shown.push(character),
        }
    }
    shown
}

/// A line of JSON, or of ours with texts of others in it, so that it can be printed: what would command a terminal is written as JSON writes it (`\\u009b`), so that JSON stays the same
/// JSON. Line breaks and tabs stay; a return of the carriage, which JSON can only have between its values, is a blank.
pub fn printable(text: &str) -> Cow<'_, str> {
    let commands = |character: char| (character.is_control() && !matches!(character, '\n' | '\t')) || is_direction(character);
    if !text.chars().any(commands) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 32);
    for character in text.chars() {
        match character {
            '\r' => shown.push(' '),
            character if commands(character) => {
                let mut units = [0; 2];
                shown.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            character => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Marks that let a text look like another one.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

/// Bytes in hexadecimal, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(visible("a\x1b[2Jb\u{9b}31m\tc\r\n\0\u{202e}ä"), "a\\u{1b}[2Jb\\u{9b}31m\tc\\u{d}\n\\u{0}\\u{202e}ä");
    }

    #[test]
    fn what_is_printable_is_the_same_json() {
        let json = "{\"a\u{9b}\":\r\n\"\u{7f}\u{202e}\\u0000ä\"}";
        assert_eq!(printable(json), "{\"a\\u009b\": \n\"\\u007f\\u202e\\u0000ä\"}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&printable(json)), read(json));
        assert!(matches!(printable("{\"ä\":\"\\u009b\"}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_and_their_one_character_forms_become_blanks() {
        assert_eq!(without_controls("a\x1b[2Jb\u{9b}31mc\r\n\0ä"), "a [2Jb 31mc   ä");
    }
}
