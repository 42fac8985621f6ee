//! Read-only statements to a PostgreSQL database that the operator named.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::query::QueryScalar;
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres, SqlSafeStr};
use tokio::sync::Semaphore;

use crate::model::SqlGrant;
use crate::sandbox::{Sql, SqlFailure, SqlValue};

/// Statements of one app to one database at the same time, in this process; others wait.
const AT_ONCE: usize = 4;
/// A file that names a database has so many bytes at most.
const URL_BYTES_MAX: u64 = 4 << 10;
/// The SQLSTATE of a statement that was cancelled, here by its timeout.
const CANCELLED: &str = "57014";

/// One database, with what one app may ask of it. Each statement has a connection of its own: nothing of a session outlives it, and none can be left behind by another.
pub(super) struct PgDatabase {
    options: PgConnectOptions,
    grant: SqlGrant,
    at_once: Arc<Semaphore>,
}

impl PgDatabase {
    /// Reads where the database is from the file of its name. Does not connect.
    ///
    /// # Errors
    /// A sentence that holds nothing of the URL, in which a password stands.
    pub fn open(directory: &Path, name: &str, grant: &SqlGrant) -> Result<PgDatabase, String> {
        let path = directory.join(name);
        let shown = path.display();
        let length = std::fs::metadata(&path).map(|metadata| metadata.len());
        let url = length
            .and_then(|length| if length <= URL_BYTES_MAX { std::fs::read_to_string(&path) } else { Err(std::io::ErrorKind::FileTooLarge.into()) });
        let url = url.map_err(|error| format!("where the database {name:?} is cannot be read from {shown}: {error}"))?;
        // The error may repeat the URL.
        let options = PgConnectOptions::from_str(url.trim()).map_err(|_| format!("what {shown} holds is no URL of PostgreSQL (postgres://…)"))?;
        let options = options.options([("default_transaction_read_only", "on")]).application_name("rowmill guest");
        Ok(PgDatabase { options, grant: grant.clone(), at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    async fn ask(&self, statement: &str, parameters: Vec<SqlValue>, within: Duration) -> Result<Vec<String>, SqlFailure> {
        let unavailable = |error: sqlx::Error| match error {
            sqlx::Error::Database(error) => SqlFailure::Unavailable(format!("the database cannot be asked: {}", error.message())),
            _ => SqlFailure::Unavailable("the database cannot be reached at the moment".to_owned()),
        };
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(unavailable)?;
        let millis = within.as_millis().max(1);
        // It ends by itself at its time, should nobody be there any more to cancel it; from version 14 on it ends within a second when the connection does.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis};
             SELECT set_config('client_connection_check_interval', '1s', true) FROM pg_settings WHERE name = 'client_connection_check_interval'"
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(unavailable)?;
        // By itself it must be one whole statement: then it cannot close the parentheses that it gets.
        connection.prepare(AssertSqlSafe(statement.to_owned()).into_sql_str()).await.map_err(refused)?;
        let rows = self.read(&mut connection, statement, parameters).await?;
        // Whatever it left behind goes with the connection.
        let _ = connection.close().await;
        Ok(rows)
    }

    async fn read(&self, connection: &mut PgConnection, statement: &str, parameters: Vec<SqlValue>) -> Result<Vec<String>, SqlFailure> {
        let (rows_max, bytes_max) = (self.grant.rows_max as usize, usize::try_from(self.grant.bytes_max).unwrap_or(usize::MAX));
        // What is too large stays in the database.
        let bounded = format!(
            "SELECT CASE WHEN octet_length(o.row) <= {bytes_max} THEN o.row END FROM (SELECT row_to_json(r)::text AS row FROM (\n{statement}\n) r) o LIMIT {}",
            rows_max.saturating_add(1)
        );
        let asked = sqlx::query_scalar(AssertSqlSafe(bounded)).persistent(false);
        let mut found = parameters.into_iter().fold(asked, bind).fetch(connection);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = found.try_next().await.map_err(refused)? {
            let row: String = row.ok_or_else(|| SqlFailure::TooLarge(format!("a row alone has more than {bytes_max} bytes")))?;
            bytes += row.len();
            if bytes > bytes_max {
                return Err(SqlFailure::TooLarge(format!("the rows have more than {bytes_max} bytes")));
            }
            if rows.len() == rows_max {
                return Err(SqlFailure::TooLarge(format!("there are more than {rows_max} rows")));
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

type Asked<'q> = QueryScalar<'q, Postgres, Option<String>, PgArguments>;

fn bind(asked: Asked<'_>, value: SqlValue) -> Asked<'_> {
    match value {
        SqlValue::Null => asked.bind(None::<String>),
        SqlValue::Boolean(value) => asked.bind(value),
        SqlValue::Integer(value) => asked.bind(value),
        SqlValue::Number(value) => asked.bind(value),
        SqlValue::Text(value) => asked.bind(value),
    }
}

fn refused(error: sqlx::Error) -> SqlFailure {
    match error {
        sqlx::Error::Database(error) => {
            let state = error.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
            if state == CANCELLED {
                return SqlFailure::Timeout;
            }
            let text = error.try_downcast_ref::<PgDatabaseError>().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            SqlFailure::Refused { state, text }
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => SqlFailure::Unavailable("the database cannot be reached at the moment".to_owned()),
        error => SqlFailure::Refused { state: String::new(), text: error.to_string() },
    }
}

#[async_trait]
impl Sql for PgDatabase {
    async fn rows(&self, statement: &str, parameters: Vec<SqlValue>, within: Duration) -> Result<Vec<String>, SqlFailure> {
        let within = within.min(self.grant.timeout);
        let asked = async {
            // It is never closed.
            let _place = self.at_once.acquire().await;
            self.ask(statement, parameters, within).await
        };
        tokio::time::timeout(within, asked).await.unwrap_or(Err(SqlFailure::Timeout))
    }
}
