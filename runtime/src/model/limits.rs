use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one call of a processor may use. Each limit that fires is an [`super::Ending`] with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Fuel for one row. One unit is about one WebAssembly instruction, or one byte moved by a bulk instruction.
    pub fuel: u64,
    /// And so much more for each KiB of its input, begun ones included.
    pub fuel_per_kib: u64,
    /// Wall time for one row, host calls included.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// The same for a slow query.
    #[serde(rename = "query_timeout_ms", with = "millis")]
    pub query_timeout: Duration,
    /// Memory of the whole instance: all its memories and tables together.
    pub memory_bytes: u64,
    /// Output, messages and pieces of one row together, as text.
    pub output_bytes: u64,
    /// Messages of one row.
    pub messages: u32,
    /// Pieces for output files of one row.
    pub pieces: u32,
    /// Log, stdout and stderr of one row together.
    pub log_bytes: u32,
}

impl Limits {
    /// Starting an instance (its start function, `init`, `begin`) may use this many times the fuel and time of a row.
    pub const START_FACTOR: u32 = 10;
    /// An instance cannot be given more memory: the sandbox reserves so much for each.
    pub const MEMORY_MAX_BYTES: u64 = 256 << 20;

    /// Fuel for a row with an input of so many bytes.
    pub fn fuel_for(&self, input_bytes: usize) -> u64 {
        let kib = u64::try_from(input_bytes.div_ceil(1 << 10)).unwrap_or(u64::MAX);
        self.fuel.saturating_add(self.fuel_per_kib.saturating_mul(kib))
    }

    /// Each of them, but no more than here.
    #[must_use]
    pub fn at_most(&self, most: &Limits) -> Limits {
        Limits {
            fuel: self.fuel.min(most.fuel),
            fuel_per_kib: self.fuel_per_kib.min(most.fuel_per_kib),
            timeout: self.timeout.min(most.timeout),
            query_timeout: self.query_timeout.min(most.query_timeout),
            memory_bytes: self.memory_bytes.min(most.memory_bytes),
            output_bytes: self.output_bytes.min(most.output_bytes),
            messages: self.messages.min(most.messages),
            pieces: self.pieces.min(most.pieces),
            log_bytes: self.log_bytes.min(most.log_bytes),
        }
    }

    /// Limits that nothing is over.
    pub fn most() -> Limits {
        let day = Duration::from_secs(24 * 60 * 60);
        Limits {
            fuel: 1_000_000_000_000_000,
            fuel_per_kib: 1_000_000_000_000,
            timeout: day,
            query_timeout: day,
            memory_bytes: Limits::MEMORY_MAX_BYTES,
            output_bytes: 16 << 20,
            messages: 10_000,
            pieces: 10_000,
            log_bytes: 1 << 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 1_000_000_000,
            fuel_per_kib: 0,
            timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(60),
            memory_bytes: 64 << 20,
            output_bytes: 1 << 20,
            messages: 100,
            pieces: 100,
            log_bytes: 8 << 10,
        }
    }
}

/// Durations as whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// The same where there may be none; the field is left out then.
pub(super) mod some_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<u64>::deserialize(deserializer).map(|millis| millis.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gets_fuel_for_each_kib_that_its_input_begins() {
        let limits = Limits { fuel: 100, fuel_per_kib: 7, ..Limits::default() };
        assert_eq!([0, 1, 1_024, 1_025].map(|bytes| limits.fuel_for(bytes)), [100, 107, 107, 114]);
        assert_eq!(Limits { fuel_per_kib: u64::MAX, ..limits }.fuel_for(5_000), u64::MAX);
    }
}
