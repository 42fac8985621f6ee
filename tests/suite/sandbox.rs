//! Guests in the sandbox, as the library has it: each way to misbehave has an end of its own, with its numbers.

mod cache;
mod check;
mod compiler;
mod endings;
mod fuel;
mod isolation;
mod languages;
mod load;
mod mark_done;
mod memory;
mod programs;
mod start;
mod time;
mod turns;
pub mod wasi;
