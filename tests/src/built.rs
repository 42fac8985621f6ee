//! What the programs of this crate find beside themselves.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// Where programs and guests were built.
#[derive(Clone, Debug)]
pub struct Built {
    target: PathBuf,
}

impl Built {
    /// This program is somewhere in the directory of everything that was built.
    ///
    /// # Errors
    /// When `rowmill` is not there.
    pub fn find() -> anyhow::Result<Built> {
        let program = std::env::current_exe().context("this program has no path")?;
        let release = program.ancestors().find(|directory| directory.join("rowmill").is_file());
        let release = release.context("`rowmill` is missing: run `cargo build --release --workspace --bins`")?;
        Ok(Built { target: release.parent().context("it is built in a directory")?.to_owned() })
    }

    pub fn program(&self) -> PathBuf {
        self.target.join("release/rowmill")
    }

    /// Compiled guests, which all tests share.
    pub fn cache(&self) -> PathBuf {
        self.target.join("tmp/compiled-guests")
    }

    /// A compiled guest.
    ///
    /// # Errors
    /// When it was not built.
    pub fn guest(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.target.join("guests").join(name).with_extension("wasm");
        ensure!(path.is_file(), "{} is missing: run `make guests`", path.display());
        Ok(path)
    }
}
