//! How far it is: a bar on a terminal, a line now and then elsewhere. On stderr.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use crate::model::without_controls;
use crate::status::Progress;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for the bar.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The rate is that of so much time.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Shows the rows that were read so far.
pub(super) struct ReadProgress(ProgressBar);

impl ReadProgress {
    pub(super) fn begin() -> ReadProgress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template("reading: {human_pos} rows").expect("the template is right"));
        ReadProgress(bar)
    }

    pub(super) fn set(&self, rows: u64) {
        self.0.set_position(rows);
    }

    pub(super) fn end(self) {
        self.0.finish_and_clear();
    }
}

/// Shows the progress of a batch until it is done. Never ends before.
pub(super) async fn show(mut progress: watch::Receiver<Progress>) {
    let terminal = std::io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let template = "{wide_bar} {percent}% of {human_len} rows{msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        bar
    });
    let mut rate = Rate::default();
    let mut last_line = Instant::now();
    loop {
        let now = progress.borrow_and_update().clone();
        rate.note(now.counts.success + now.counts.failed);
        if let Some(bar) = &bar {
            bar.set_length(now.counts.rows);
            bar.set_position(now.counts.success + now.counts.failed);
            bar.set_message(details(&now, &rate));
        } else if last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            say!("{} of {} rows{}", HumanCount(now.counts.success + now.counts.failed), HumanCount(now.counts.rows), details(&now, &rate));
        }
        if now.done {
            break;
        }
        tokio::select! {
            // A sender that is gone has said the last it knew.
            _ = progress.wait_for(|progress| progress.done) => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn details(now: &Progress, rate: &Rate) -> String {
    let mut details = format!(", {} failed", HumanCount(now.counts.failed));
    let left = now.counts.rows.saturating_sub(now.counts.success + now.counts.failed + now.counts.aborted);
    if let Some(per_second) = rate.per_second().filter(|per_second| *per_second > 0) {
        details.push_str(&format!(", {} rows/s", HumanCount(per_second)));
        if left > 0 {
            details.push_str(&format!(", {} left", HumanDuration(Duration::from_secs(left / per_second))));
        }
    }
    if left == 0 && now.counts.rows > 0 && !now.done {
        details.push_str(", joining output files");
    }
    if let Some((percent, text)) = &now.said {
        details.push_str(&format!(", {percent}% {}", without_controls(text)));
    }
    details
}

/// Rows per second over the last moments.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn note(&mut self, rows: u64) {
        let now = Instant::now();
        self.0.push_back((now, rows));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.0.pop_front();
        }
    }

    fn per_second(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (*self.0.front()?, *self.0.back()?);
        let millis = u64::try_from((to - from).as_millis()).ok().filter(|millis| *millis > 0)?;
        Some((after - before) * 1_000 / millis)
    }
}
