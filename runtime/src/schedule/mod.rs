//! Schedules: when the ticks of a cron line are, which of them count, and who submits them.
//!
//! Every process that works has a [`Ticker`]. It looks which ticks are due, decides what becomes of each, and asks the store to do it: the store submits the
//! batch and moves the schedule on in one transaction, and refuses whoever comes second. So tickers need to know nothing of each other.

mod cron;
mod plan;
mod ticker;
mod wall;

pub use self::cron::{CronLine, ScheduleError};
pub use self::plan::{LATE, MISSED_MAX, batch_id};
pub use self::ticker::Ticker;
