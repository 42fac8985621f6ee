//! Real servers for the tests. Each has its own port and its own temporary directory, is ended by its own pid when it is dropped, and dies with the
//! process that started it, whatever ends that one. `make servers` installs what they need.
//!
//! A PostgreSQL server takes about a second to start, so most tests share one, which `with-servers` starts before all of them; a test has a
//! [`Database`] of its own in it. Tests that kill or restart a server start their own.

mod account;
mod database;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod redis;
mod s3;
mod smtp;
mod spawner;
mod worker;

pub use database::{Database, shared_postgres};
pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions};
pub use redis::Redis;
pub use s3::S3;
pub use smtp::Smtp;
pub use worker::WorkerProcess;

/// Where a test finds the URL of the PostgreSQL server that it shares with others.
pub const SHARED_POSTGRES: &str = "ROWMILL_TEST_POSTGRES";
