/// A guest's text with a blank for each control character, so that it can be shown: nothing in it commands a terminal.
pub fn without_controls(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Bytes in hexadecimal, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_their_one_character_forms_become_blanks() {
        assert_eq!(without_controls("a\x1b[2Jb\u{9b}31mc\r\n\0ä"), "a [2Jb 31mc   ä");
    }
}
