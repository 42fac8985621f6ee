//! Errors of the database, each of which is told once.

use std::error::Error;
use std::fmt;

/// An error whose sources are left out as far as its own text has theirs: that of sqlx contains
/// the text of the database.
#[derive(Debug)]
pub(super) struct Told(pub(super) Box<dyn Error + Send + Sync>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(said) = cause.filter(|cause| text.contains(&cause.to_string())) {
            cause = said.source();
        }
        cause
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Executor, SqliteConnection};

    use crate::store::columns::failed;

    #[tokio::test]
    async fn a_locked_database_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join("db")).create_if_missing(true);
        let options = options.busy_timeout(std::time::Duration::ZERO);
        let mut one = SqliteConnection::connect_with(&options).await.unwrap();
        one.execute("CREATE TABLE t (a)").await.unwrap();
        one.execute("BEGIN EXCLUSIVE").await.unwrap();
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();
        let error = other.execute("INSERT INTO t VALUES (1)").await.unwrap_err();
        assert!(format!("{:#}", anyhow::anyhow!(error)).matches("locked").count() > 1, "the library repeats itself");
        let migrating = sqlx::migrate!("../migrations/sqlite").run(&mut other).await.unwrap_err();
        let error = failed("insert a row")(other.execute("INSERT INTO t VALUES (1)").await.unwrap_err());
        for error in [error, failed("migrate its database")(migrating)] {
            let text = format!("{:#}", anyhow::Error::new(error));
            assert_eq!(text.matches("locked").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_source_that_says_something_else_is_told() {
        let inner = anyhow::anyhow!("the disk is full").context("cannot write a page");
        let text = format!("{:#}", anyhow::Error::new(failed("write")(std::io::Error::other(inner))));
        assert_eq!(text, "the store failed while it was to write: cannot write a page: the disk is full");
    }
}
