//! Read-only statements to a PostgreSQL database that the operator named.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::encode::IsNull;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgTypeInfo};
use sqlx::query::QueryScalar;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Postgres, Row};
use tokio::sync::Semaphore;

use super::seldom::Seldom;
use crate::model::SqlGrant;
use crate::sandbox::{Sql, SqlFailure, SqlValue};

/// Connections of one app to one database at the same time, in this process; further statements wait.
const AT_ONCE: usize = 4;
/// A file that names a database has so many bytes at most.
const URL_BYTES_MAX: u64 = 4 << 10;
/// The SQLSTATE of a statement that was cancelled, here by its timeout.
const CANCELLED: &str = "57014";
/// The type of a parameter whose type the statement decides.
const UNKNOWN: Oid = Oid(705);

/// Brings the rights with which a statement that only reads could still do harm: as these roles it could read and write the server's files, run programs there, and end the connections of others.
/// What the role could become (`SET ROLE`, which is a function, too) counts as what it is.
const TOO_MUCH: &str = "SELECT string_agg(rolname::text, ', ' ORDER BY rolname) FROM pg_catalog.pg_roles
    WHERE (rolsuper OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend'))
        AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')";

/// Places for connections, of each app to each database.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<(String, String), Arc<Semaphore>>>);

impl Places {
    fn of(&self, app: &str, database: &str) -> Arc<Semaphore> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry((app.to_owned(), database.to_owned())).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
    }
}

/// One database, with what one app may ask of it. Each statement has a connection of its own: nothing of a session outlives it, and none can be left behind by another.
pub(super) struct PgDatabase {
    name: String,
    options: PgConnectOptions,
    grant: SqlGrant,
    places: Arc<Semaphore>,
    told: Seldom,
}

impl PgDatabase {
    /// Reads where the database is from the file of its name. Does not connect.
    ///
    /// # Errors
    /// A sentence that holds nothing of the URL, in which a password stands.
    pub fn open(directory: &Path, name: &str, grant: &SqlGrant, app: &str, places: &Places) -> Result<PgDatabase, String> {
        let path = directory.join(name);
        let shown = path.display();
        let mut url = String::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(URL_BYTES_MAX + 1).read_to_string(&mut url));
        read.map_err(|error| format!("where the database {name:?} is cannot be read from {shown}: {error}"))?;
        if url.len() as u64 > URL_BYTES_MAX {
            return Err(format!("what {shown} holds is longer than {URL_BYTES_MAX} bytes, and no URL"));
        }
        let url = url.trim();
        // The error may repeat the URL.
        let no_url = || format!("what {shown} holds is no URL of PostgreSQL (postgres://…)");
        // sqlx takes any scheme.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(no_url());
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| no_url())?;
        if !is_whole(url) {
            return Err(format!(
                "the URL in {shown} does not name a user, a host and a database: what it leaves out would be taken from the worker's environment"
            ));
        }
        // Guests' statements, with what stands in them, are no business of the host's log.
        let options = options.application_name("rowmill guest").disable_statement_logging();
        Ok(PgDatabase { name: name.to_owned(), options, grant: grant.clone(), places: places.of(app, name), told: Seldom::default() })
    }

    /// Asks, and takes this long at most: then nobody waits for the answer any more.
    async fn ask(&self, statement: &str, parameters: Vec<SqlValue>, until: Instant) -> Result<Vec<String>, SqlFailure> {
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(|error| self.unavailable(&error.to_string()))?;
        self.begin(&mut connection, until).await?;
        // By itself it must be one whole statement, which is one that `PREPARE` takes: then it cannot close the parentheses that it gets.
        let types: Vec<&str> = parameters.iter().map(type_of).collect();
        let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
        let prepare = format!("PREPARE whole{types} AS\n{statement}");
        sqlx::query(AssertSqlSafe(prepare)).persistent(false).execute(&mut connection).await.map_err(|error| self.failure(error))?;
        let rows = self.read(&mut connection, statement, parameters).await?;
        // Whatever it left behind goes with the connection.
        let _ = connection.close().await;
        Ok(rows)
    }

    /// Begins a transaction that reads, and looks whether the role may do more than that.
    async fn begin(&self, connection: &mut PgConnection, until: Instant) -> Result<(), SqlFailure> {
        let millis = until.saturating_duration_since(Instant::now()).as_millis().max(1);
        // A statement ends by itself at its time, should nobody be there any more to cancel it; from version 14 on it ends within a second when the connection does.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis};
             SELECT set_config('client_connection_check_interval', '1s', true) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'; {TOO_MUCH}"
        );
        let found = sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(connection).await.map_err(|error| self.unavailable(&error.to_string()))?;
        let too_much: Option<String> = found.last().and_then(|row| row.try_get(0).ok()).flatten();
        match too_much {
            None => Ok(()),
            Some(roles) => {
                self.tell(&format!("the role in its URL is, or may become, {roles}, and could do more than read: give it one that may read what apps may know, and nothing else"));
                Err(SqlFailure::Unavailable(
                    "the database is not asked, since its role could do more than read; the worker's log says more".to_owned(),
                ))
            }
        }
    }

    /// One statement with a limit, and not a cursor that is read bit by bit: the database makes no more rows than it sends either way, and its timeout, once it is set, is not the guest's to change
    /// (`set_config`) before the next part.
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
        while let Some(row) = found.try_next().await.map_err(|error| self.failure(error))? {
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

    fn failure(&self, error: sqlx::Error) -> SqlFailure {
        match error {
            sqlx::Error::Database(error) => {
                let state = error.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
                if state == CANCELLED {
                    return SqlFailure::Timeout;
                }
                let text = error.try_downcast_ref::<PgDatabaseError>().map_or_else(|| error.to_string(), |error| error.message().to_owned());
                // The connection or the server ended.
                if state.starts_with("08") || state.starts_with("57P") {
                    return self.unavailable(&text);
                }
                SqlFailure::Refused { state, text }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => self.unavailable(&error.to_string()),
            error => SqlFailure::Refused { state: String::new(), text: error.to_string() },
        }
    }

    /// The guest is not told where the database is, and as whom it would have been asked: the operator is.
    fn unavailable(&self, reason: &str) -> SqlFailure {
        self.tell(reason);
        SqlFailure::Unavailable("the database cannot be reached at the moment".to_owned())
    }

    fn tell(&self, reason: &str) {
        if self.told.is_due() {
            tracing::warn!(database = self.name, "a database that apps were granted cannot be asked: {reason}");
        }
    }
}

/// Whether a URL names all that would come from the environment, where it may be that of another database, such as the runtime's own.
fn is_whole(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let given = |name: &str| query.split('&').any(|pair| pair.strip_prefix(name).is_some_and(|value| value.len() > 1 && value.starts_with('=')));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let has_user = !user.is_empty() && !user.starts_with(':');
    (has_user || given("user")) && (!host.is_empty() || given("host")) && (!database.is_empty() || given("dbname"))
}

type Asked<'q> = QueryScalar<'q, Postgres, Option<String>, PgArguments>;

fn bind(asked: Asked<'_>, value: SqlValue) -> Asked<'_> {
    match value {
        SqlValue::Null => asked.bind(Null),
        SqlValue::Boolean(value) => asked.bind(value),
        SqlValue::Integer(value) => asked.bind(value),
        SqlValue::Number(value) => asked.bind(value),
        SqlValue::Text(value) => asked.bind(value),
    }
}

/// As [`bind`] gives them.
fn type_of(value: &SqlValue) -> &'static str {
    match value {
        SqlValue::Null => "unknown",
        SqlValue::Boolean(_) => "boolean",
        SqlValue::Integer(_) => "bigint",
        SqlValue::Number(_) => "double precision",
        SqlValue::Text(_) => "text",
    }
}

/// NULL, of the type that the statement needs where it stands.
struct Null;

impl sqlx::Type<Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UNKNOWN)
    }
}

impl sqlx::Encode<'_, Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        Ok(IsNull::Yes)
    }
}

#[async_trait]
impl Sql for PgDatabase {
    async fn rows(&self, statement: &str, parameters: Vec<SqlValue>, within: Duration) -> Result<Vec<String>, SqlFailure> {
        let within = within.min(self.grant.timeout);
        let until = Instant::now() + within;
        let asked = async {
            // It is never closed.
            let _place = self.places.acquire().await;
            self.ask(statement, parameters, until).await
        };
        tokio::time::timeout(within, asked).await.unwrap_or(Err(SqlFailure::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_user_host_and_database_itself() {
        for url in [
            "postgres://u@h/d",
            "postgresql://u:p@h:5432/d?sslmode=require",
            "postgres://u:p@/d?host=/run/pg",
            "postgres://h/d?user=u",
            "postgres://u@h?dbname=d",
        ] {
            assert!(is_whole(url), "{url}");
        }
        for url in [
            "postgres://",
            "postgres://h/d",
            "postgres://u@/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://:p@h/d",
            "postgres://u@/d?host=",
            "u@h/d",
        ] {
            assert!(!is_whole(url), "{url}");
        }
    }
}
