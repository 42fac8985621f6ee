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
    fn escapes_and_their_one_character_forms_become_blanks() {
        assert_eq!(without_controls("a\x1b[2Jb\u{9b}31mc\r\n\0ä"), "a [2Jb 31mc   ä");
    }
}
