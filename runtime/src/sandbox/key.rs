//! The key by which compiled code is known as this installation's own.

use std::fmt;
use std::fs;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use blake3::{Hash, Hasher};
use uuid::Uuid;

use crate::files;

/// Bytes of a key that is made here.
const KEY_BYTES: usize = 32;
pub(super) const MAC_BYTES: usize = 32;
/// Keys are derived for this, so that a secret that is used for something else, too, authenticates nothing here.
const PURPOSE: &str = "rowmill compiled code, format 2";

/// Whoever has it can make code that is run as it is.
pub(super) struct CodeKey([u8; KEY_BYTES]);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl CodeKey {
    /// The installation's own, which all of its processes share.
    pub(super) fn shared(secret: &[u8]) -> CodeKey {
        CodeKey(blake3::derive_key(PURPOSE, secret))
    }

    /// One that is kept in a file, and made by chance when there is none.
    pub(super) fn kept_in(path: &Path) -> std::io::Result<CodeKey> {
        match CodeKey::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => return read,
        }
        let mut fresh = [0; KEY_BYTES];
        fs::File::open("/dev/urandom")?.read_exact(&mut fresh)?;
        let part = path.with_extension(format!("{}.part", Uuid::now_v7()));
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).and_then(|mut file| {
            file.write_all(&fresh)?;
            file.sync_all()?;
            // Of those who come at the same time the first has made it.
            fs::hard_link(&part, path).or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        });
        let removed = fs::remove_file(&part);
        made.and(removed)?;
        CodeKey::read(path)
    }

    fn read(path: &Path) -> std::io::Result<CodeKey> {
        let mut file = files::open_at(path)?;
        let metadata = file.metadata()?;
        let own = fs::metadata("/proc/self").map_or(true, |me| me.uid() == metadata.uid());
        let wrong = |problem: &str| Error::new(ErrorKind::PermissionDenied, format!("{} {problem}: remove it, and another is made", path.display()));
        if metadata.permissions().mode() & 0o077 != 0 || !own {
            return Err(wrong("is a secret key, and others can use it"));
        }
        let mut key = Vec::new();
        Read::by_ref(&mut file).take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
        if key.len() == KEY_BYTES { Ok(CodeKey::shared(&key)) } else { Err(wrong("is no key")) }
    }

    /// What proves that code was made here, from an upload of this digest, for an engine of this hash.
    pub(super) fn sign(&self, digest: &str, engine_hash: &str, code: &[u8]) -> [u8; MAC_BYTES] {
        self.mac(digest, engine_hash, code).into()
    }

    /// Whether it proves that. The comparison takes the same time wherever they differ.
    pub(super) fn verify(&self, digest: &str, engine_hash: &str, code: &[u8], mac: &[u8; MAC_BYTES]) -> bool {
        self.mac(digest, engine_hash, code) == *mac
    }

    fn mac(&self, digest: &str, engine_hash: &str, code: &[u8]) -> Hash {
        // Each upload has a key of its own for each engine, so that code is hashed from its first byte, which stands at the beginning of a page.
        let mut key = Hasher::new_keyed(&self.0);
        // Each with its length, so that nothing can move from one to the next.
        for part in [digest, engine_hash] {
            key.update(&(part.len() as u64).to_le_bytes());
            key.update(part.as_bytes());
        }
        Hasher::new_keyed(key.finalize().as_bytes()).update_rayon(code).finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody has vectors for our framing: what matters is that each part counts, and that no part can lend to the next.
    #[test]
    fn every_part_counts() {
        let key = CodeKey::shared(b"key");
        let mac = key.sign("ab", "cd", b"ef");
        assert!(key.verify("ab", "cd", b"ef", &mac));
        for (digest, engine, code) in
            [("a", "bcd", "ef"), ("abc", "d", "ef"), ("ab", "cde", "f"), ("ab", "c", "def"), ("ba", "cd", "ef"), ("ab", "cd", "")]
        {
            assert!(!key.verify(digest, engine, code.as_bytes(), &mac), "{digest} {engine} {code}");
        }
        assert!(!CodeKey::shared(b"kez").verify("ab", "cd", b"ef", &mac));
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn a_key_is_made_once_and_is_refused_when_others_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let keys: Vec<[u8; KEY_BYTES]> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| CodeKey::kept_in(&path).unwrap().0)).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key == &keys[0]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(CodeKey::kept_in(&path).unwrap_err().to_string().contains("others can use it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(CodeKey::kept_in(&path).unwrap_err().to_string().contains("is no key"));
    }
}
