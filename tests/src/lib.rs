//! What the tests and the programs that test share.

pub mod attacks;
pub mod built;
pub mod fuzz;
pub mod history;
pub mod loading;
pub mod mistakes;
pub mod random;
pub mod reaching;
pub mod running;
pub mod servers;
pub mod stopping;
pub mod ticks;
