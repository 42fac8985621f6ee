//! What the tests and the generator of transactions share.

pub mod random;
