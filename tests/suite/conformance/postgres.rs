//! PostgreSQL: the suite, and what it promises beyond the trait since it has many processes.

use std::sync::Arc;

use async_trait::async_trait;
use rowmill::model::Clock;
use rowmill::store::{PgSettings, PgStore, Pooler, Store, StoreError};

use super::conformance;
use super::kit::Harness;

/// A database of its own.
pub struct PgHarness(String);

#[async_trait]
impl Harness for PgHarness {
    async fn fresh() -> PgHarness {
        let server = std::env::var("ROWMILL_TEST_POSTGRES").unwrap();
        let name = format!("t_{}", rowmill::model::BatchId::generate().to_string().replace('-', ""));
        let status = std::process::Command::new("psql").args(["-q", "-d", &server, "-c", &format!("CREATE DATABASE {name}")]).status().unwrap();
        assert!(status.success());
        let url = server.replace("/postgres?", &format!("/{name}?"));
        PgStore::migrate(&settings(&url)).await.unwrap();
        PgHarness(url)
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(PgStore::connect(&settings(&self.0)).await?.with_clock(clock)))
    }
}

fn settings(url: &str) -> PgSettings {
    PgSettings { url: url.to_owned(), connections: 8, pooler: Pooler::None }
}

conformance!(PgHarness);
