#![doc = include_str!("../README.md")]

#[doc(hidden)]
pub mod bindings;
mod check;
#[doc(hidden)]
pub mod check_instance;
pub mod config;
mod decode;
mod failure;
pub mod files;
pub mod host;
pub mod http;
#[doc(hidden)]
pub mod instance;
pub mod key_value;
mod macros;
pub mod objects;
mod outcome;
pub mod output_files;
mod processor;
pub mod sql;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::types::{AppInfo, BatchStatus, Message, OutputFile, Piece, RowStatus};
pub use check::{Columns, File, FileChecker, Finding, Record, Rejection, Rows};
pub use failure::Failure;
pub use host::Level;
pub use outcome::Outcome;
pub use processor::{Batch, BatchProcessor, Empty, Query, Row, SlowQueryProcessor, Summary};
