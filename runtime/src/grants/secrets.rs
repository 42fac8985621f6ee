//! Values of secrets, from a directory that the operator fills: one file each, as container platforms mount them.

use std::io::Read;
use std::path::Path;

use crate::sandbox::Masks;

/// A secret is this long at most.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The contents of the secret's file, without the line break at its end. It is read anew for each batch that a worker begins, so that secrets can be changed.
///
/// # Errors
/// A sentence that holds nothing of the secret.
pub(super) fn read_secret(directory: &Path, name: &str) -> Result<String, String> {
    let path = directory.join(name);
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("the secret {name:?} cannot be read from {shown}: {error}"))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("the secret {name:?} in {shown} is longer than {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| format!("the secret {name:?} in {shown} is no text in UTF-8"))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.trim().len() < Masks::SECRET_BYTES_MIN {
        return Err(format!(
            "the secret {name:?} in {shown} is shorter than {} bytes, so that it could not be hidden in logs",
            Masks::SECRET_BYTES_MIN
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_or_refused_without_being_told() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
        write("good", b"hunter2-hunter2\r\n");
        write("short", b"abcde\n");
        write("binary", b"\xff\xfe-hunter2-hunter2");
        write("long", &b"x".repeat(70_000));
        assert_eq!(read_secret(directory.path(), "good").unwrap(), "hunter2-hunter2");
        for (name, part) in [
            ("short", "shorter than 6 bytes"),
            ("binary", "no text"),
            ("long", "longer than 65536"),
            ("none", "cannot be read"),
            (".", "cannot be read"),
        ] {
            let error = read_secret(directory.path(), name).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2") && !error.contains("abcde"), "{error}");
        }
    }
}
