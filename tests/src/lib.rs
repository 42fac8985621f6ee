//! What the tests and the programs that test share.

pub mod built;
pub mod history;
pub mod random;
pub mod servers;
pub mod ticks;
