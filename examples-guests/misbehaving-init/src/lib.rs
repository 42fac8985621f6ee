//! Does not get past `init`, for tests of the runtime. How depends on the operation it is registered for: `error` returns an error, `loop` never ends,
//! any other panics.

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Empty, Failure, Outcome, Row};

struct MisbehavingInit;

impl BatchProcessor for MisbehavingInit {
    type Context = Empty;
    type Input = Empty;
    type Output = Empty;

    fn init(app: &AppInfo) -> Result<Self, String> {
        match app.op.as_str() {
            "error" => Err("the configuration is wrong on purpose".into()),
            "loop" => loop {
                std::hint::black_box(());
            },
            _ => panic!("init panics on purpose"),
        }
    }

    fn process_row(&mut self, _: &Batch<Empty>, _: Row<Empty>) -> Result<Outcome<Empty>, Failure> {
        unreachable!("init never succeeds")
    }
}

rowmill_guest::export_batch_processor!(MisbehavingInit);
