//! Rowmill: a job runtime that runs WebAssembly processors over rows, in a sandbox.
//!
//! ARCHITECTURE.md says what each room does, and what it must not know.

pub mod blobs;
pub mod cli;
pub mod config;
pub mod export;
mod files;
pub mod grants;
pub mod intake;
pub mod jobs;
pub mod model;
pub mod prune;
pub mod registry;
pub mod sandbox;
pub mod schedule;
pub mod status;
pub mod store;
pub mod watch;
pub mod worker;
