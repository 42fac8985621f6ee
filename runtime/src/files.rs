//! Regular files in directories that others may write to. A link is not followed, and a FIFO or a
//! device is not waited for. Files that a user names on a command line are opened elsewhere: those
//! may be FIFOs.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a file for reading.
///
/// # Errors
/// `InvalidInput` if it is not a regular file.
pub fn open(dir: &Dir, name: impl AsRef<Path>) -> io::Result<File> {
    open_with(dir, name.as_ref(), OpenOptions::new().read(true))
}

/// Opens a file for a lock, and makes it if it is missing. Its contents stay.
///
/// # Errors
/// `InvalidInput` if it is not a regular file.
pub fn open_lock(dir: &Dir, name: &str) -> io::Result<std::fs::File> {
    Ok(open_with(dir, Path::new(name), OpenOptions::new().write(true).create(true).truncate(false))?.into_std())
}

/// Makes a file anew, in the place of whatever has its name.
///
/// # Errors
/// Its name is that of a directory.
pub fn create(dir: &Dir, name: &str) -> io::Result<File> {
    match dir.remove_file(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => dir.open_with(name, OpenOptions::new().write(true).create_new(true)),
    }
}

/// The same as [`open`], by a path of which the directories are trusted.
///
/// # Errors
/// `InvalidInput` if it is not a regular file.
pub fn open_at(path: &Path) -> io::Result<std::fs::File> {
    regular_at(std::fs::OpenOptions::new().read(true).custom_flags(flags()).open(path))
}

/// The same as [`open_lock`], by a path of which the directories are trusted.
///
/// # Errors
/// `InvalidInput` if it is not a regular file.
pub fn open_lock_at(path: &Path) -> io::Result<std::fs::File> {
    regular_at(std::fs::OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags()).open(path))
}

/// Reads a file whole.
///
/// # Errors
/// `InvalidData` if it has more bytes than this.
pub fn read(file: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it is larger than {} KiB", bytes_max >> 10)));
    }
    Ok(bytes)
}

fn open_with(dir: &Dir, name: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = dir.open_with(name, options.custom_flags(flags())).map_err(not_waited_for)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn regular_at(opened: io::Result<std::fs::File>) -> io::Result<std::fs::File> {
    let file = opened.map_err(not_waited_for)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn not_waited_for(error: io::Error) -> io::Error {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    // A link, a FIFO that no process reads, a socket.
    if is(Errno::LOOP) || is(Errno::NXIO) { not_regular() } else { error }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use rustix::fs::{FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        dir.write("file", "1").unwrap();
        dir.create_dir("directory").unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", directory.path().join("device")).unwrap();
        mknodat(&dir, "fifo", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let path = |name: &str| directory.path().join(name);
        assert!(open(&dir, "file").is_ok() && open_lock(&dir, "file").is_ok());
        assert!(open_at(&path("file")).is_ok() && open_lock_at(&path("file")).is_ok());
        assert_eq!(dir.read("file").unwrap(), b"1", "a lock changes nothing");
        for name in ["directory", "link", "device", "fifo"] {
            assert_eq!(open(&dir, name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
            assert_eq!(open_at(&path(name)).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
            assert!(open_lock(&dir, name).is_err() && open_lock_at(&path(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_is_made_in_the_place_of_whatever_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        mknodat(&dir, "fifo", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        io::Write::write_all(&mut create(&dir, "fifo").unwrap(), b"1").unwrap();
        assert_eq!(dir.read("fifo").unwrap(), b"1");
    }

    #[test]
    fn a_file_is_read_up_to_a_size() {
        assert_eq!(read(&[7; 1_024][..], 1_024).unwrap().len(), 1_024);
        assert_eq!(read(&[7; 1_025][..], 1_024).unwrap_err().to_string(), "it is larger than 1 KiB");
    }
}
