//! Files that land in directories become batches.
//!
//! A directory has four places. What lands in `incoming` is *claimed* by renaming it into a directory of its own under `work`, which only one can do; from there it
//! becomes a batch, whose key is made from the claim, and is renamed to `done`; or it is refused, and is renamed to `failed` with the reasons beside it. Who works on a
//! claim holds a lock in it. A claim whose lock is free belongs to nobody: who gets the lock goes on with it, and by the key the batch is there once.

mod claim;
mod context;
mod error;
mod glob;
mod look;
mod places;
mod reasons;
mod report;
mod rows;
mod take;
mod types;
mod watcher;

pub use context::{ContextTemplate, UnknownPlaceholder};
pub use error::WatchError;
pub use places::{PlacePaths, Places};
pub use reasons::Reason;
pub use report::{FileReport, Outcome};
pub use types::{BadPattern, FileType, Patterns};
pub use watcher::{Inbox, WatchSettings, Watcher};
