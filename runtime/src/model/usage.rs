use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RowResult, RowStatus, Timestamp, Verdict};

/// What the recorded rows of one version of a processor used in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    pub op: String,
    pub version: u32,
    /// When the hour began.
    pub hour: Timestamp,
    #[serde(flatten)]
    pub meter: Meter,
}

/// Sums over recorded results. They equal the sums over outcomes, but for retries, which have none and are counted apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    pub success: u64,
    pub failed: u64,
    /// Fuel of the attempts that ended rows.
    pub fuel: u64,
    /// The most that one of them used.
    pub fuel_max: u64,
    /// Attempts that were recorded and asked for another.
    pub retries: u64,
    /// Their fuel.
    pub retry_fuel: u64,
    /// Time in which rows ran, retries included.
    pub micros: u64,
    /// Bytes of the inputs of rows that ended.
    pub input_bytes: u64,
    /// Bytes of their outputs.
    pub output_bytes: u64,
    /// Bytes of their pieces for output files.
    pub file_bytes: u64,
    /// Rows that ended with a code of the runtime: limits that fired among them.
    pub codes: BTreeMap<String, u64>,
}

/// The codes of the runtime, by which rows are counted.
const CODES: [&str; 10] =
    ["out_of_fuel", "deadline", "memory", "trap", "bad_output", "configerror", "processing_error", "attempts_exhausted", "bad_row", "quarantined"];

/// Those of them with which a row ends that its processor answered by itself.
const ANSWERED: [&str; 2] = ["processing_error", "attempts_exhausted"];

impl Meter {
    /// What results that took so long used, and the fuel of each that ended its row.
    pub fn of(results: &[RowResult], micros: u64) -> (Meter, FuelHistogram) {
        let (mut meter, mut histogram) = (Meter { micros, ..Meter::default() }, FuelHistogram::default());
        let mut counts = [0_u32; FuelHistogram::BUCKETS];
        for result in results {
            let Verdict::Final { status, output, messages, pieces } = &result.verdict else {
                meter.retries += 1;
                meter.retry_fuel = meter.retry_fuel.saturating_add(result.fuel);
                continue;
            };
            meter.fuel = meter.fuel.saturating_add(result.fuel);
            meter.input_bytes += u64::from(result.input_bytes);
            meter.output_bytes += output.as_ref().map_or(0, |output| output.len() as u64);
            meter.file_bytes += pieces.iter().filter(|piece| !piece.is_blank()).map(|piece| piece.text.len() as u64).sum::<u64>();
            let code = match status {
                RowStatus::Success => {
                    meter.success += 1;
                    None
                }
                _ => {
                    meter.failed += 1;
                    messages.iter().find(|message| message.id == 0).and_then(|message| CODES.into_iter().find(|code| *code == message.code))
                }
            };
            if let Some(code) = code {
                *meter.codes.entry(code.to_owned()).or_default() += 1;
            }
            // A row that was stopped says how far it came, and not how much it needs.
            if code.is_none_or(|code| ANSWERED.contains(&code)) && result.fuel > 0 {
                meter.fuel_max = meter.fuel_max.max(result.fuel);
                counts[FuelHistogram::bucket(result.fuel)] += 1;
            }
        }
        histogram.0.extend(counts.into_iter().zip(0_u16..).filter(|(count, _)| *count > 0).map(|(count, bucket)| (bucket, u64::from(count))));
        (meter, histogram)
    }

    /// Adds another's sums.
    pub fn add(&mut self, other: &Meter) {
        self.success += other.success;
        self.failed += other.failed;
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.fuel_max = self.fuel_max.max(other.fuel_max);
        self.retries += other.retries;
        self.retry_fuel = self.retry_fuel.saturating_add(other.retry_fuel);
        self.micros = self.micros.saturating_add(other.micros);
        self.input_bytes += other.input_bytes;
        self.output_bytes += other.output_bytes;
        self.file_bytes += other.file_bytes;
        for (code, rows) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += rows;
        }
    }
}

/// How many rows used how much fuel: in buckets that are an eighth of their octave wide, so that what is read from it is at most an eighth too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuelHistogram(pub BTreeMap<u16, u64>);

impl FuelHistogram {
    /// Of fuel up to 2^64.
    pub const BUCKETS: usize = 62 * 8;

    fn bucket(fuel: u64) -> usize {
        let bucket = match fuel.checked_ilog2() {
            Some(octave @ 3..) => u64::from(octave - 2) * 8 + ((fuel >> (octave - 3)) & 7),
            _ => fuel,
        };
        usize::try_from(bucket).expect("there are some hundred buckets")
    }

    /// The most fuel of a bucket.
    fn upper(bucket: u16) -> u64 {
        if bucket < 8 {
            return bucket.into();
        }
        let (shift, part) = (u32::from(bucket / 8 - 1), u64::from(bucket % 8));
        ((9 + u128::from(part)) << shift).saturating_sub(1).try_into().unwrap_or(u64::MAX)
    }

    pub fn rows(&self) -> u64 {
        self.0.values().sum()
    }

    /// So many percent of the rows used no more than this. None without rows.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let wanted = (self.rows().saturating_mul(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        self.0
            .iter()
            .find(|(_, rows)| {
                seen += **rows;
                seen >= wanted
            })
            .map(|(bucket, _)| FuelHistogram::upper(*bucket))
    }
}

/// How much fuel the rows of one version used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuelProfile {
    pub op: String,
    pub version: u32,
    pub histogram: FuelHistogram,
    /// The most that a row used.
    pub max: u64,
}

impl FuelProfile {
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        Some(self.histogram.percentile(percent)?.min(self.max))
    }

    /// A limit that rows like these do not reach, and one that loops does: ten times what 99 % of them use, and twice what the largest used, in two digits.
    pub fn suggested_limit(&self) -> Option<u64> {
        let wanted = self.percentile(99)?.saturating_mul(10).max(self.max.saturating_mul(2)).max(1_000);
        let unit = 10_u64.pow(wanted.ilog10() - 1);
        Some(wanted.div_ceil(unit).saturating_mul(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    #[test]
    fn each_fuel_has_a_bucket_that_holds_it_and_is_at_most_an_eighth_too_large() {
        let near = |power: u32| [-1_i128, 0, 1].map(|off| u64::try_from((1_i128 << power) + off).unwrap_or(u64::MAX));
        for fuel in (0..5_000).chain((3..64).flat_map(near)) {
            let bucket = FuelHistogram::bucket(fuel);
            assert!(bucket < FuelHistogram::BUCKETS);
            let upper = FuelHistogram::upper(u16::try_from(bucket).unwrap());
            assert!(upper >= fuel && upper - fuel <= fuel / 8, "{fuel} is in a bucket that ends with {upper}");
            assert!(bucket == 0 || FuelHistogram::upper(u16::try_from(bucket - 1).unwrap()) < fuel);
        }
    }

    #[test]
    fn percentiles_are_those_of_the_rows() {
        let profile = |fuels: &[u64]| {
            let mut histogram = FuelHistogram::default();
            for fuel in fuels {
                *histogram.0.entry(u16::try_from(FuelHistogram::bucket(*fuel)).unwrap()).or_default() += 1;
            }
            FuelProfile { op: "op".to_owned(), version: 1, histogram, max: fuels.iter().copied().max().unwrap_or(0) }
        };
        let fuels: Vec<u64> = (1..=1_000).map(|row| row * 100).collect();
        let found = profile(&fuels);
        assert!((50_000..=56_250).contains(&found.percentile(50).unwrap()) && (99_000..=100_000).contains(&found.percentile(99).unwrap()));
        assert_eq!(found.percentile(100), Some(100_000));
        assert_eq!(found.suggested_limit(), Some(1_000_000));
        assert_eq!(profile(&[]).suggested_limit(), None);
        assert_eq!(profile(&[7]).suggested_limit(), Some(1_000));
    }

    /// A version whose rows were all stopped says nothing about how much they need.
    #[test]
    fn only_rows_that_their_processor_answered_are_in_the_profile() {
        let failed = |code: &str, fuel| {
            let messages = vec![Message { id: 0, code: code.to_owned(), field: None, values: Vec::new() }];
            let verdict = Verdict::Final { status: RowStatus::Failed, output: None, messages, pieces: Vec::new() };
            RowResult { row_no: 1, attempt: 1, fuel, input_bytes: 2, log: None, verdict }
        };
        let stops = ["out_of_fuel", "deadline", "memory", "trap", "bad_output", "configerror", "bad_row", "quarantined"];
        let (meter, histogram) = Meter::of(&stops.map(|code| failed(code, 1_000)), 0);
        assert_eq!((meter.fuel, meter.fuel_max, histogram.rows()), (8_000, 0, 0));
        let profile = FuelProfile { op: "op".to_owned(), version: 1, histogram, max: meter.fuel_max };
        assert_eq!(profile.suggested_limit(), None);
        let answers = ["processing_error", "attempts_exhausted", "the processor's own"];
        let (meter, histogram) = Meter::of(&answers.map(|code| failed(code, 1_000)), 0);
        assert_eq!((meter.fuel_max, histogram.rows()), (1_000, 3));
    }
}
