//! What is not kept any longer goes: by every process that works, and when somebody asks for it.
//!
//! It goes in small steps, each a transaction of some milliseconds, and objects go before the records that name them. A step that is left in the middle is gone on with
//! by whoever comes next.

mod pace;
mod pruner;

pub use pace::Pace;
pub use pruner::{DueOp, PruneError, PruneReport, Pruner};
