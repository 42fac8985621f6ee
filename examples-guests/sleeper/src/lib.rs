//! Sleeps in a host call, for tests of the runtime: it uses no fuel while it does, so only a deadline or an abort can end it.
//!
//! A row tells for how long: `{"ms": 20}`; an hour unless it says.
//!
//! A processor for `wasm32-unknown-unknown` may import more than Rowmill's own world: bindings of its own, from its own `wit` folder, are enough.
//! When the module becomes a component, the imports of both worlds are united.

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Empty, Failure, Outcome, Row, host};
use serde::Deserialize;
use std::time::Duration;

struct Sleeper;

#[derive(Debug, Deserialize)]
struct Nap {
    #[serde(default = "an_hour")]
    ms: u64,
}

const fn an_hour() -> u64 {
    3_600_000
}

impl BatchProcessor for Sleeper {
    type Context = Empty;
    type Input = Nap;
    type Output = Empty;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, _: &Batch<Empty>, row: Row<Nap>) -> Result<Outcome<Empty>, Failure> {
        host::info(format!("sleeping for {} ms", row.input.ms));
        sleep(Duration::from_millis(row.input.ms));
        Ok(Outcome::success(Empty {}))
    }
}

#[cfg(target_arch = "wasm32")]
fn sleep(time: Duration) {
    mod bindings {
        wit_bindgen::generate!({ path: "wit", generate_all });
    }
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    bindings::wasi::clocks::monotonic_clock::subscribe_duration(nanoseconds).block();
}

#[cfg(not(target_arch = "wasm32"))]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

rowmill_guest::export_batch_processor!(Sleeper);
