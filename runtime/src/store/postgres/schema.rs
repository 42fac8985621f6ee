//! The schema and its versions.

use std::fmt;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::connect::PgSettings;
use crate::model::Pooler;
use crate::store::StoreError;
use crate::store::columns::failed;

const TABLE: &str = "rowmill.schema_migrations";

fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/postgres");
    migrations.create_schema("rowmill");
    migrations.dangerous_set_table_name(TABLE);
    migrations
}

/// How a database's schema stands to this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    Current,
    /// There is none.
    Missing,
    Older {
        version: i64,
        program: i64,
    },
    Newer {
        version: i64,
        program: i64,
    },
    /// A migration failed half-way.
    Broken {
        version: i64,
    },
}

impl fmt::Display for SchemaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaState::Current => write!(f, "the database's schema is this program's"),
            SchemaState::Missing => write!(f, "the database has no schema of Rowmill's: run `rowmill migrate`"),
            SchemaState::Older { version, program } => {
                write!(f, "the database's schema has version {version}, this program needs {program}: run `rowmill migrate`")
            }
            SchemaState::Newer { version, program } => {
                write!(f, "the database's schema has version {version}, newer than this program's, {program}: use a newer program")
            }
            SchemaState::Broken { version } => {
                write!(f, "migration {version} of the database's schema failed half-way: restore the database, or mend the schema by hand")
            }
        }
    }
}

pub(super) async fn read_state(db: &mut PgConnection) -> Result<SchemaState, StoreError> {
    let reading = failed("read the version of its schema");
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('rowmill.schema_migrations') IS NOT NULL")
        .persistent(false)
        .fetch_one(&mut *db)
        .await
        .map_err(reading)?;
    if !exists {
        return Ok(SchemaState::Missing);
    }
    let (version, broken): (Option<i64>, Option<i64>) =
        sqlx::query_as("SELECT max(version), min(version) FILTER (WHERE NOT success) FROM rowmill.schema_migrations")
            .persistent(false)
            .fetch_one(&mut *db)
            .await
            .map_err(reading)?;
    let program = migrations().iter().map(|migration| migration.version).max().unwrap_or(0);
    Ok(match (version, broken) {
        (_, Some(version)) => SchemaState::Broken { version },
        (None, None) => SchemaState::Missing,
        (Some(version), None) if version < program => SchemaState::Older { version, program },
        (Some(version), None) if version > program => SchemaState::Newer { version, program },
        _ => SchemaState::Current,
    })
}

pub(super) async fn look(settings: &PgSettings) -> Result<SchemaState, StoreError> {
    let mut db = connect(settings).await?;
    let mut transaction = db.begin().await.map_err(failed("begin a transaction"))?;
    read_state(&mut transaction).await
}

pub(super) async fn migrate(settings: &PgSettings) -> Result<(), StoreError> {
    if settings.pooler == Pooler::Transaction {
        let why = "migrations need a session, which a pooler in transaction mode does not give: run them against the database itself";
        return Err(StoreError::Invalid(why.to_owned()));
    }
    let state = look(settings).await?;
    if matches!(state, SchemaState::Newer { .. } | SchemaState::Broken { .. }) {
        return Err(StoreError::Invalid(state.to_string()));
    }
    let mut db = connect(settings).await?;
    migrations().run_direct(None, &mut db, false).await.map_err(|error| match error {
        MigrateError::VersionMismatch(version) => {
            StoreError::Invalid(format!("migration {version} of the database's schema is another than this program's: they are of different builds"))
        }
        error => failed("migrate its schema")(error),
    })
}

async fn connect(settings: &PgSettings) -> Result<PgConnection, StoreError> {
    PgConnection::connect_with(&settings.options()?).await.map_err(failed("connect to its database"))
}
