//! Memory of a whole instance under one limit.

use std::fmt;

use wasmtime::ResourceLimiter;

/// Adds up the memory and all tables of a store; wasmtime's own limiter counts each for itself, so that four of them pass four times the limit.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    used_bytes: u64,
    limit_bytes: u64,
    has_memory: bool,
}

/// The guest needed more memory than it may use. Raised as an error, and not as a failed `memory.grow`, so that the row ends with these numbers and not
/// with whatever the guest makes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverMemory {
    pub needed_bytes: u64,
    pub limit_bytes: u64,
}

impl fmt::Display for OverMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} bytes of memory, the limit is {}", self.needed_bytes, self.limit_bytes)
    }
}

impl std::error::Error for OverMemory {}

/// The guest has a memory already, and needed another one. Where components of a component pass each other texts, wasmtime converts and copies them from one memory to the other:
/// that costs no fuel, whatever their length, and no call of the host returns behind it, so nobody would look at the deadline. With one memory that has anything in it there is nothing to pass.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it needs a second memory, and an instance may have one: components cannot be put together in one")]
pub(super) struct SecondMemory;

impl MemoryLimiter {
    pub(super) fn new(limit_bytes: u64) -> MemoryLimiter {
        MemoryLimiter { used_bytes: 0, limit_bytes, has_memory: false }
    }

    /// Adds growth to the sum. Returns false if the item's own type does not allow it: then nothing grows, and nothing is added.
    fn grow(&mut self, by_bytes: usize, within_type: bool) -> wasmtime::Result<bool> {
        let needed_bytes = self.used_bytes.saturating_add(by_bytes as u64);
        if needed_bytes > self.limit_bytes {
            return Err(wasmtime::Error::new(OverMemory { needed_bytes, limit_bytes: self.limit_bytes }));
        }
        if within_type {
            self.used_bytes = needed_bytes;
        }
        Ok(within_type)
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let within_type = is_within(desired, maximum);
        // An empty one holds nothing, and never gets smaller again.
        if within_type && current == 0 && desired > 0 && std::mem::replace(&mut self.has_memory, true) {
            return Err(wasmtime::Error::new(SecondMemory));
        }
        self.grow(desired.saturating_sub(current), within_type)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current).saturating_mul(size_of::<usize>()), is_within(desired, maximum))
    }
}

fn is_within(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_none_or(|maximum| desired <= maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_and_tables_are_added_up() {
        let mut limiter = MemoryLimiter::new(100 << 10);
        assert!(limiter.memory_growing(0, 64 << 10, None).is_ok());
        assert!(limiter.table_growing(0, 1 << 10, None).is_ok());
        let over = limiter.memory_growing(64 << 10, 128 << 10, None).unwrap_err();
        let over = over.downcast_ref::<OverMemory>().unwrap();
        assert_eq!((over.needed_bytes, over.limit_bytes), ((64 + 8 + 64) << 10, 100 << 10));
    }

    #[test]
    fn growth_beyond_the_declared_maximum_fails_and_is_not_added() {
        let mut limiter = MemoryLimiter::new(256 << 10);
        // A memory that could not grow is still empty: another one can have something in it.
        assert!(!limiter.memory_growing(0, 128 << 10, Some(64 << 10)).unwrap());
        assert!(limiter.memory_growing(0, 64 << 10, Some(64 << 10)).unwrap());
        for _ in 0..100 {
            assert!(!limiter.memory_growing(64 << 10, 128 << 10, Some(64 << 10)).unwrap());
            assert!(!limiter.table_growing(0, 1 << 10, Some(10)).unwrap());
        }
        assert!(limiter.table_growing(0, 1 << 10, None).unwrap());
    }

    #[test]
    fn a_second_memory_is_refused_when_something_is_in_it() {
        let mut limiter = MemoryLimiter::new(1 << 20);
        for (current, desired) in [(0, 0), (0, 64 << 10), (64 << 10, 128 << 10), (0, 0)] {
            assert!(limiter.memory_growing(current, desired, None).is_ok());
        }
        assert!(limiter.memory_growing(0, 64 << 10, None).unwrap_err().is::<SecondMemory>());
    }
}
