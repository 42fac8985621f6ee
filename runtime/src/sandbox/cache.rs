//! Compiled code on disk, so that a processor is compiled once per machine.

use std::fmt::Display;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::evict::{PART, evict, mark_used};
use super::key::{CodeKey, MAC_BYTES};
use crate::files;
use crate::model::hex;

/// The file of a key that was made here.
const KEY_FILE: &str = "key";

/// A directory of compiled components. Loading one is running it: only this process's user may write here, nothing a user uploads ever lands here, and each file
/// ends with what proves that this installation made it.
#[derive(Debug)]
pub(super) struct CompiledCache {
    directory: PathBuf,
    engine_hash: String,
    key: CodeKey,
    /// Other processes have the same key.
    pub(super) key_is_shared: bool,
    max_bytes: u64,
}

/// Compiled code with what proves where it is from, as it is written to a file or an object.
pub(super) type Sealed = Vec<u8>;

/// Held by the one that compiles an upload; others on this machine wait for it.
pub(super) struct CompileLock(Option<fs::File>, PathBuf);

impl Drop for CompileLock {
    fn drop(&mut self) {
        // Under the lock: whoever waited for it finds that its file is gone, and looks again.
        if self.0.is_some() {
            let _ = fs::remove_file(&self.1);
        }
    }
}

impl CompiledCache {
    /// Opens the cache, makes the directory if there is none, and removes the least recently used code until the rest has at most `max_bytes`. Without a secret a key is made, which is good
    /// for this directory alone.
    pub(super) fn open(directory: &Path, engine: &Engine, secret: Option<&[u8]>, max_bytes: u64) -> std::io::Result<CompiledCache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::metadata(directory)?;
        let others_may_write = metadata.permissions().mode() & 0o022 != 0;
        let own = fs::metadata("/proc/self").map_or(true, |me| me.uid() == metadata.uid());
        if others_may_write || !own {
            let problem =
                format!("{} can be written by others, so code in it cannot be trusted: chmod 700 it, or choose another", directory.display());
            return Err(std::io::Error::new(ErrorKind::PermissionDenied, problem));
        }
        let key = match secret {
            Some(secret) => CodeKey::shared(secret),
            None => CodeKey::kept_in(&directory.join(KEY_FILE))?,
        };
        evict(directory, max_bytes, None);
        Ok(CompiledCache { directory: directory.to_owned(), engine_hash: hash_of(engine), key, key_is_shared: secret.is_some(), max_bytes })
    }

    /// What code is compiled for: versions and settings.
    pub(super) fn engine_hash(&self) -> &str {
        &self.engine_hash
    }

    /// The name says what was compiled, by which versions of wasmtime and of us, and with which settings. None for what is no digest: it becomes part of a path.
    fn path(&self, digest: &str) -> Option<PathBuf> {
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_digest.then(|| self.directory.join(format!("{digest}-{}.cwasm", &self.engine_hash[..16])))
    }

    /// Returns true if there is a file for an upload.
    pub(super) fn has(&self, digest: &str) -> bool {
        self.path(digest).is_some_and(|path| path.exists())
    }

    /// The component in the file of an upload, unless that is not what this installation wrote.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest)?;
        let file = open(&path)?;
        match self.is_sealed(digest, &file) {
            Ok(true) => mark_used(&file),
            Ok(false) => return again(&path, &"it was damaged, or made with another key or by another version"),
            Err(error) => return again(&path, &error),
        }
        match Self::load_sealed(engine, &file, &path) {
            Ok(component) => Some(component),
            Err(error) => again(&path, &format!("{error:#}")),
        }
    }

    /// Whether a file ends with the seal of what comes before.
    fn is_sealed(&self, digest: &str, file: &fs::File) -> std::io::Result<bool> {
        // Nothing cannot be mapped.
        Ok(file.metadata()?.len() > 0 && self.code_in(digest, &map(file)?).is_some())
    }

    /// Loads a file whose seal was found right. It is mapped, not copied: processes on a machine share it, and of large code only what is run is read.
    fn load_sealed(engine: &Engine, file: &fs::File, path: &Path) -> wasmtime::Result<Component> {
        // The file that was looked at, and not another that has its name by now.
        let same = if cfg!(target_os = "linux") { PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())) } else { path.to_owned() };
        #[expect(unsafe_code, reason = "compiled code can be loaded in no other way")]
        // SAFETY: the caller has seen that these are the bytes that the compiler of this installation made for this engine. Nobody changes them while they are mapped: the directory is this user's
        // alone, and files in it are replaced as a whole.
        unsafe {
            Component::deserialize_file(engine, same)
        }
    }

    /// The file of an upload, unless it is not what this installation wrote.
    pub(super) fn read_sealed(&self, digest: &str) -> Option<Sealed> {
        let mut file = Vec::new();
        files::open_at(&self.path(digest)?).ok()?.read_to_end(&mut file).ok()?;
        self.code_in(digest, &file).is_some().then_some(file)
    }

    fn code_in<'a>(&self, digest: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (code, mac) = sealed.split_last_chunk::<MAC_BYTES>()?;
        self.key.verify(digest, &self.engine_hash, code, mac).then_some(code)
    }

    /// Only for code whose seal was found right, or that the compiler has just made.
    fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "compiled code can be loaded in no other way")]
        // SAFETY: the callers have seen that these are the bytes that the compiler of this installation made for this engine: they carry its seal, or come from it.
        unsafe {
            Component::deserialize(engine, code)
        }
    }

    /// Seals what the compiler made, keeps it, and loads it.
    pub(super) fn add(&self, engine: &Engine, digest: &str, code: &[u8]) -> wasmtime::Result<Component> {
        let component = Self::deserialize(engine, code)?;
        let mac = self.key.sign(digest, &self.engine_hash, code);
        self.save(digest, &[code, &mac]);
        Ok(component)
    }

    /// Keeps what was sealed by this installation elsewhere, and loads it. None when it was not.
    pub(super) fn adopt(&self, engine: &Engine, digest: &str, sealed: &[u8]) -> Option<Component> {
        let Some(code) = self.code_in(digest, sealed) else {
            tracing::warn!(
                digest,
                "compiles again, since compiled code in the object store was damaged, or made with another key or by another version"
            );
            return None;
        };
        let loaded = Self::deserialize(engine, code);
        let component = loaded.inspect_err(|error| tracing::warn!(digest, "compiles again, since compiled code cannot be used: {error:#}")).ok()?;
        self.save(digest, &[sealed]);
        Some(component)
    }

    /// Writes a whole file or none: others may load, or write the same one, at the same time. Then makes the cache fit its bound again.
    fn save(&self, digest: &str, parts: &[&[u8]]) {
        let Some(path) = self.path(digest) else { return };
        let part = path.with_extension(format!("{}.{PART}", Uuid::now_v7()));
        let written = fs::OpenOptions::new().write(true).create_new(true).open(&part).and_then(|mut file| {
            for bytes in parts {
                file.write_all(bytes)?;
            }
            file.sync_all()?;
            mark_used(&file);
            fs::rename(&part, &path)
        });
        match written {
            Ok(()) => evict(&self.directory, self.max_bytes, Some(&path)),
            Err(error) => {
                let _ = fs::remove_file(&part);
                tracing::warn!("compiled code is not kept, {} cannot be written: {error}", path.display());
            }
        }
    }

    /// Waits until nobody else on this machine compiles the same upload. Where a lock cannot be had, it is compiled twice.
    pub(super) fn lock(&self, digest: &str) -> CompileLock {
        let Some(path) = self.path(digest).map(|path| path.with_extension("lock")) else { return CompileLock(None, PathBuf::new()) };
        let locked = || -> std::io::Result<fs::File> {
            loop {
                let file = files::open_lock_at(&path)?;
                file.lock()?;
                // The one that held it removed it, and another may have made it anew.
                match fs::metadata(&path) {
                    Ok(now) if now.ino() == file.metadata()?.ino() => return Ok(file),
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        };
        let file =
            locked().inspect_err(|error| tracing::warn!("what others compile may be compiled twice, {} cannot be locked: {error}", path.display()));
        CompileLock(file.ok(), path)
    }
}

/// The whole of a file, as it is in the system's memory: copying it to hash it would take as long again.
fn map(file: &fs::File) -> std::io::Result<Mmap> {
    #[expect(unsafe_code, reason = "what is mapped could change")]
    // SAFETY: nobody changes it: the directory is this user's alone, and files in it are replaced as a whole.
    unsafe {
        MmapOptions::new().populate().map(file)
    }
}

fn open(path: &Path) -> Option<fs::File> {
    match files::open_at(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => again(path, &error),
    }
}

/// What is not loaded is compiled again.
fn again<T>(path: &Path, why: &dyn Display) -> Option<T> {
    tracing::warn!("compiles again, since {} cannot be used: {why}", path.display());
    None
}

/// SHA-256 over whatever wasmtime says that compiled code depends on, and our own version, with which comes how modules are lifted.
pub(super) fn hash_of(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            unreachable!("the digest is taken whole")
        }
    }
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    hex(&hasher.0.finalize())
}
