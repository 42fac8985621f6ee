//! The loop of one worker.

use std::collections::BTreeSet;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sqlx::PgConnection;
use uuid::Uuid;

const ROWS_PER_BLOCK: i64 = 10;
const CACHE_SECONDS: u64 = 60;

pub struct Worker {
    number: i32,
    db: PgConnection,
    redis: MultiplexedConnection,
    done: Done,
}

#[derive(Clone, Copy, Default)]
pub struct Done {
    pub rows: u32,
    pub statements: u32,
}

#[derive(sqlx::FromRow)]
struct Row {
    rowid: i64,
    batch: Uuid,
    line: i32,
    input: String,
    batch_status: String,
}

impl Worker {
    pub fn new(number: i32, db: PgConnection, redis: MultiplexedConnection) -> Worker {
        Worker { number, db, redis, done: Done::default() }
    }

    /// Works until no rows are queued.
    pub async fn work(mut self) -> anyhow::Result<Done> {
        loop {
            let block = self.claim_block().await?;
            if block.is_empty() {
                return Ok(self.done);
            }
            for row in &block {
                self.run_row(row).await?;
            }
            // One transaction for all batches of the block.
            self.command("BEGIN").await?;
            let batches: BTreeSet<Uuid> = block.iter().map(|row| row.batch).collect();
            for batch in batches {
                self.summarise(batch).await?;
            }
            self.command("COMMIT").await?;
        }
    }

    async fn command(&mut self, statement: &'static str) -> anyhow::Result<()> {
        self.done.statements += 1;
        sqlx::raw_sql(statement).execute(&mut self.db).await?;
        Ok(())
    }

    async fn claim_block(&mut self) -> anyhow::Result<Vec<Row>> {
        self.command("BEGIN").await?;
        self.done.statements += 1;
        let mut block: Vec<Row> = sqlx::query_as(
            "SELECT r.rowid, r.batch, r.line, r.input::text AS input, b.status::text AS batch_status
             FROM alya.batchrows r JOIN alya.batches b ON b.id = r.batch
             WHERE r.status = 'queued' AND b.status <> 'wait' LIMIT $1 FOR UPDATE OF r SKIP LOCKED",
        )
        .bind(ROWS_PER_BLOCK)
        .fetch_all(&mut self.db)
        .await?;
        // Batches are locked in the same order as by summaries.
        block.sort_by_key(|row| row.batch);
        for row in &block {
            self.done.statements += 1;
            sqlx::query("UPDATE alya.batchrows SET status = 'inprog' WHERE rowid = $1").bind(row.rowid).execute(&mut self.db).await?;
            if row.batch_status == "queued" {
                self.done.statements += 1;
                sqlx::query("UPDATE alya.batches SET status = 'inprog' WHERE id = $1 AND status = 'queued'")
                    .bind(row.batch)
                    .execute(&mut self.db)
                    .await?;
            }
        }
        self.command("COMMIT").await?;
        Ok(block)
    }

    async fn run_row(&mut self, row: &Row) -> anyhow::Result<()> {
        let result = format!(r#"{{"line":{},"bytes":{}}}"#, row.line, row.input.len());
        self.done.statements += 1;
        self.done.rows += 1;
        sqlx::query(
            "UPDATE alya.batchrows SET status = 'success', doneat = now(), res = $2::jsonb, doneby = $3 WHERE rowid = $1 AND status = 'inprog'",
        )
        .bind(row.rowid)
        .bind(result)
        .bind(format!("worker {}", self.number))
        .execute(&mut self.db)
        .await?;
        self.tell(row.batch, "inprog", CACHE_SECONDS).await
    }

    async fn tell(&mut self, batch: Uuid, status: &str, seconds: u64) -> anyhow::Result<()> {
        let () = self.redis.set_ex(format!("ALYA_{{{batch}}}_STATUS"), status, seconds).await?;
        Ok(())
    }

    /// Looks whether a batch is complete, with the whole batch locked, and reads all of it when it is.
    async fn summarise(&mut self, batch: Uuid) -> anyhow::Result<()> {
        self.done.statements += 2;
        let done: bool =
            sqlx::query_scalar("SELECT doneat IS NOT NULL FROM alya.batches WHERE id = $1 FOR UPDATE").bind(batch).fetch_one(&mut self.db).await?;
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM alya.batchrows WHERE batch = $1 AND status IN ('queued', 'inprog')")
            .bind(batch)
            .fetch_one(&mut self.db)
            .await?;
        if done || open > 0 {
            return Ok(());
        }
        self.done.statements += 2;
        let statuses: Vec<(i64, String, Option<String>)> =
            sqlx::query_as("SELECT rowid, status::text, res::text FROM alya.batchrows WHERE batch = $1 ORDER BY line FOR UPDATE")
                .bind(batch)
                .fetch_all(&mut self.db)
                .await?;
        sqlx::query(
            "UPDATE alya.batches SET status = 'success', doneat = now(), outputfiles = '{}', nsuccess = $2, nfailed = 0, naborted = 0 WHERE id = $1",
        )
        .bind(batch)
        .bind(i32::try_from(statuses.iter().filter(|(_, status, _)| status == "success").count())?)
        .execute(&mut self.db)
        .await?;
        self.tell(batch, "success", 100 * CACHE_SECONDS).await
    }
}
