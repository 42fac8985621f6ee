use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one call of a processor may use. Each limit that fires is an [`super::Ending`] with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Fuel for one row. One unit is about one WebAssembly instruction, or one byte moved by a bulk instruction.
    pub fuel: u64,
    /// Wall time for one row, host calls included.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
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
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 1_000_000_000,
            timeout: Duration::from_secs(5),
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
