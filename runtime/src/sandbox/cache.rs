//! Compiled code on disk, so that a processor is compiled once per machine.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use uuid::Uuid;
use wasmtime::Engine;
use wasmtime::component::Component;

/// A file begins with the SHA-256 of the code behind it.
const SUM_BYTES: usize = 32;

/// A directory of compiled components. Loading one is running it: only this process's user may write here, and nothing a user uploads ever lands here.
#[derive(Debug)]
pub(super) struct CompiledCache {
    directory: PathBuf,
    engine_hash: u64,
}

impl CompiledCache {
    /// Opens the cache, and makes the directory when there is none.
    pub(super) fn open(directory: &Path, engine: &Engine) -> std::io::Result<CompiledCache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::metadata(directory)?;
        let others_may_write = metadata.permissions().mode() & 0o022 != 0;
        let own = fs::metadata("/proc/self").map_or(true, |me| me.uid() == metadata.uid());
        if others_may_write || !own {
            let problem =
                format!("{} can be written by others, so code in it cannot be trusted: chmod 700 it, or choose another", directory.display());
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, problem));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        // How modules are lifted comes with our own version.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Ok(CompiledCache { directory: directory.to_owned(), engine_hash: hasher.finish() })
    }

    /// The name says what was compiled, by which versions of wasmtime and of us, and with which settings.
    fn path(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{digest}-{:016x}.cwasm", self.engine_hash))
    }

    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("compiles again, since {} cannot be read: {error}", path.display());
                return None;
            }
        };
        let Some(code) = undamaged(&file) else {
            tracing::warn!("compiles again, since {} is damaged", path.display());
            return None;
        };
        #[expect(unsafe_code, reason = "compiled code can be loaded in no other way")]
        // SAFETY: these are the bytes that `save` wrote, what the engine itself made, in a directory that `open` found to be this user's alone.
        let loaded = unsafe { Component::deserialize(engine, code) };
        loaded.inspect_err(|error| tracing::warn!("compiles again, since {} cannot be used: {error:#}", path.display())).ok()
    }

    /// Writes a whole file or none: others may load, or write the same one, at the same time.
    pub(super) fn save(&self, digest: &str, component: &Component) {
        let path = self.path(digest);
        let saved = component.serialize().map_err(std::io::Error::other).and_then(|code| {
            let part = path.with_extension(format!("{}.part", Uuid::now_v7()));
            let written = fs::OpenOptions::new().write(true).create_new(true).open(&part).and_then(|mut file| {
                file.write_all(&Sha256::digest(&code))?;
                file.write_all(&code)?;
                file.sync_all()?;
                fs::rename(&part, &path)
            });
            written.inspect_err(|_| drop(fs::remove_file(&part)))
        });
        if let Err(error) = saved {
            tracing::warn!("compiled code is not kept, {} cannot be written: {error}", path.display());
        }
    }
}

/// The code in a file that begins with its SHA-256, when it is what was written: machine code with a flipped bit would be loaded and run.
fn undamaged(file: &[u8]) -> Option<&[u8]> {
    let (sum, code) = file.split_first_chunk::<SUM_BYTES>()?;
    (Sha256::digest(code).as_slice() == sum).then_some(code)
}
