//! Files in directories that an operator granted (`rowmill apps grant APP --dir /data=/srv/bank`), as `wasi:filesystem`. Paths are absolute, and begin with that of a granted
//! directory.
//!
//! In a native build they are the machine's own files.

use crate::GrantError;

/// The whole contents of a file.
///
/// # Errors
/// [`GrantError`] when the file is not there or not granted.
pub fn read(path: impl AsRef<str>) -> Result<Vec<u8>, GrantError> {
    system::read(path.as_ref()).map_err(|reason| GrantError(format!("{} cannot be read: {reason}", path.as_ref())))
}

/// Writes a file, instead of what was in it.
///
/// # Errors
/// As for [`read`]; and when the directory may only be read.
pub fn write(path: impl AsRef<str>, contents: impl AsRef<[u8]>) -> Result<(), GrantError> {
    system::write(path.as_ref(), contents.as_ref()).map_err(|reason| GrantError(format!("{} cannot be written: {reason}", path.as_ref())))
}

/// The names of what is in a directory, sorted.
///
/// # Errors
/// As for [`read`].
pub fn list(path: impl AsRef<str>) -> Result<Vec<String>, GrantError> {
    let mut names = system::list(path.as_ref()).map_err(|reason| GrantError(format!("{} cannot be listed: {reason}", path.as_ref())))?;
    names.sort();
    Ok(names)
}

#[cfg(not(target_arch = "wasm32"))]
mod system {
    pub fn read(path: &str) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|error| error.to_string())
    }

    pub fn write(path: &str, contents: &[u8]) -> Result<(), String> {
        std::fs::write(path, contents).map_err(|error| error.to_string())
    }

    pub fn list(path: &str) -> Result<Vec<String>, String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        std::fs::read_dir(path).and_then(|entries| entries.map(name).collect()).map_err(|error| error.to_string())
    }
}

#[cfg(target_arch = "wasm32")]
mod system {
    use crate::bindings::granted_part::wasi::filesystem::preopens::get_directories;
    use crate::bindings::granted_part::wasi::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

    /// What is asked of a file at once.
    const PIECE_BYTES: u64 = 64 << 10;

    fn told(code: ErrorCode) -> String {
        code.name().to_owned()
    }

    fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, String> {
        // The longest: a granted directory may be below another.
        let below = |granted: &str| {
            path.strip_prefix(granted).filter(|rest| rest.is_empty() || rest.starts_with('/')).map(|rest| rest.trim_start_matches('/').to_owned())
        };
        let found = get_directories().into_iter().filter_map(|(directory, granted)| Some((granted.len(), directory, below(&granted)?)));
        let (_, directory, rest) = found.max_by_key(|(length, ..)| *length).ok_or_else(|| "it is in no directory that is granted".to_owned())?;
        directory.open_at(PathFlags::SYMLINK_FOLLOW, if rest.is_empty() { "." } else { &rest }, how, flags).map_err(told)
    }

    pub fn read(path: &str) -> Result<Vec<u8>, String> {
        let file = open(path, OpenFlags::empty(), DescriptorFlags::READ)?;
        let mut contents = Vec::new();
        loop {
            let (piece, at_end) = file.read(PIECE_BYTES, contents.len() as u64).map_err(told)?;
            contents.extend(piece);
            if at_end {
                return Ok(contents);
            }
        }
    }

    pub fn write(path: &str, contents: &[u8]) -> Result<(), String> {
        let file = open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE)?;
        let mut written = 0;
        while written < contents.len() {
            let bytes = file.write(&contents[written..], written as u64).map_err(told)?;
            written += usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    pub fn list(path: &str) -> Result<Vec<String>, String> {
        let directory = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
        let entries = directory.read_directory().map_err(told)?;
        let mut names = Vec::new();
        while let Some(entry) = entries.read_directory_entry().map_err(told)? {
            names.push(entry.name);
        }
        Ok(names)
    }
}
