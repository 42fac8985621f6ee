//! As the guest `chronicle`, for slow queries. Its line is 0.

#[path = "../../chronicle/src/deed.rs"]
mod deed;

use deed::{Deed, Memory, Said};
use rowmill_guest::{AppInfo, Failure, Outcome, Query, SlowQueryProcessor, Summary, host};

struct ChronicleQuery;

impl SlowQueryProcessor for ChronicleQuery {
    type Context = Memory;
    type Input = Deed;
    type Output = Said;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn run(&mut self, query: Query<Memory, Deed>) -> Result<Outcome<Said>, Failure> {
        host::progress(50, "half of it");
        query.input.act(0, query.attempt)
    }

    fn mark_done(&mut self, summary: &Summary<Memory>) -> Result<(), Failure> {
        deed::remember(summary)
    }
}

rowmill_guest::export_slow_query_processor!(ChronicleQuery);
