//! How many rows a lease takes.

use std::time::Duration;

/// What a lease size is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseSizing {
    /// Time per row, when there is one.
    pub row_micros: Option<u64>,
    /// It is this batch's own, and not that of the batches before it.
    pub measured: bool,
    /// Rows that no lease has taken yet.
    pub remaining: u64,
    pub slots: u32,
    pub target: Duration,
    pub rows_max: u32,
}

/// Rows of the first leases of a batch, whose own speed is not known yet: enough to measure it, few enough for slow ones.
const UNKNOWN_ROWS: u64 = 100;
/// Less work than this is not worth a lease of its own, which costs about 0.7 ms.
const LEAST_MICROS: u64 = 10_000;

/// About `target` of work, at most `rows_max`, and at most a fair part of what remains, so that ten slow rows spread over ten slots and the last rows
/// of a large batch keep all slots busy. At least 1.
pub(super) fn lease_rows(sizing: LeaseSizing) -> u32 {
    let share = sizing.remaining.div_ceil(u64::from(sizing.slots.max(1)));
    let rows = match sizing.row_micros {
        None => share,
        Some(row_micros) => {
            let row_micros = row_micros.max(1);
            let target = u64::try_from(sizing.target.as_micros()).unwrap_or(u64::MAX) / row_micros;
            target.min(share.max(LEAST_MICROS / row_micros))
        }
    };
    let rows = if sizing.measured { rows } else { rows.min(UNKNOWN_ROWS) };
    let rows = rows.min(u64::from(sizing.rows_max)).min(sizing.remaining).max(1);
    u32::try_from(rows).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(row_micros: Option<u64>, remaining: u64) -> u32 {
        lease_rows(LeaseSizing {
            row_micros,
            measured: row_micros.is_some(),
            remaining,
            slots: 10,
            target: Duration::from_millis(250),
            rows_max: 5_000,
        })
    }

    #[test]
    fn ten_rows_of_unknown_speed_spread_over_ten_slots() {
        assert_eq!(size(None, 10), 1);
    }

    #[test]
    fn fast_rows_fill_a_lease_to_the_maximum() {
        assert_eq!(size(Some(5), 1_000_000), 5_000);
    }

    #[test]
    fn the_speed_of_batches_before_shapes_the_first_leases_but_they_stay_small() {
        let size = |row_micros, remaining| {
            let target = Duration::from_millis(250);
            lease_rows(LeaseSizing { row_micros: Some(row_micros), measured: false, remaining, slots: 10, target, rows_max: 5_000 })
        };
        assert_eq!((size(5, 80), size(5, 1_000_000), size(100_000, 80)), (80, 100, 2));
    }

    #[test]
    fn slow_rows_make_small_leases() {
        assert_eq!(size(Some(100_000), 1_000_000), 2);
        assert_eq!(size(Some(10_000_000), 1_000_000), 1);
    }

    #[test]
    fn the_last_rows_are_shared_but_not_crumbled() {
        assert_eq!(size(Some(100), 1_000), 100);
        assert_eq!(size(Some(5), 1_000), 1_000);
    }
}
