//! The algorithm of Alya Jobs (`github.com/remiges-tech/alya/jobs`), to measure ours against: blocks of ten rows are claimed with `FOR UPDATE … SKIP LOCKED`
//! and an update per row, each result is an update of its own, each row tells Redis its batch's status, and after each block its batches are looked at
//! whether they are complete.
//!
//! It is the algorithm and not the program: it is kinder than Alya in that it never sleeps, logs nothing, keeps no output files, and has the indexes that later
//! versions added. What is done with a row is trivial, so the figures are those of the algorithm alone.

mod worker;

use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use redis::aio::MultiplexedConnection;
use rowmill_tests::servers::{Database, Redis};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use worker::Worker;

#[derive(Parser)]
#[command(name = "alya-algorithm", about = "Runs the algorithm of Alya Jobs over rows, and prints its figures as JSON")]
struct Args {
    /// The PostgreSQL database to use, which has no schema `alya` yet. Without it: one of its own in the server that tests share, dropped at the end
    #[arg(long)]
    url: Option<String>,
    /// The Redis to use. Without it: one of its own
    #[arg(long)]
    redis: Option<String>,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i32).range(1..))]
    rows: i32,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    batches: i32,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    workers: i32,
}

#[derive(Serialize)]
struct Figures {
    rows: i32,
    batches: i32,
    workers: i32,
    /// From the first claim to the last summary.
    seconds: f64,
    rows_per_second: f64,
    /// Statements to PostgreSQL, BEGIN and COMMIT included.
    statements_per_row: f64,
    wal_bytes_per_row: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Held to the end: they go when they are dropped.
    let database = if args.url.is_none() { Some(Database::create()?) } else { None };
    let redis_server = if args.redis.is_none() { Some(Redis::start()?) } else { None };
    let url = args.url.clone().or(database.as_ref().map(Database::url)).context("there is a URL or a database")?;
    let redis_url = args.redis.clone().or(redis_server.as_ref().map(Redis::url)).context("there is a URL or a server")?;
    let figures = run(&args, &url, &redis_url).await?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn run(args: &Args, url: &str, redis_url: &str) -> anyhow::Result<Figures> {
    let mut db = PgConnection::connect(url).await.context("the database cannot be reached")?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut db).await.context("Alya's tables cannot be made")?;
    submit(&mut db, args.rows, args.batches).await?;
    let redis = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await.context("Redis cannot be reached")?;
    let mut workers = Vec::new();
    for number in 1..=args.workers {
        workers.push(Worker::new(number, PgConnection::connect(url).await?, MultiplexedConnection::clone(&redis)));
    }
    let (log_before, start) = (log_position(&mut db).await?, Instant::now());
    let mut running: JoinSet<_> = workers.into_iter().map(Worker::work).collect();
    let (mut rows, mut statements) = (0, 0);
    while let Some(done) = running.join_next().await {
        let done = done??;
        rows += done.rows;
        statements += done.statements;
    }
    let (seconds, log_after) = (start.elapsed().as_secs_f64(), log_position(&mut db).await?);
    check(&mut db, args, rows).await?;
    let each = f64::from(args.rows);
    Ok(Figures {
        rows: args.rows,
        batches: args.batches,
        workers: args.workers,
        seconds,
        rows_per_second: each / seconds,
        statements_per_row: f64::from(statements) / each,
        wal_bytes_per_row: (log_after - log_before) / each,
    })
}

/// Each batch gets its share of the rows, which are transactions of about 120 bytes.
async fn submit(db: &mut PgConnection, rows: i32, batches: i32) -> anyhow::Result<()> {
    sqlx::raw_sql("ANALYZE").execute(&mut *db).await?;
    for batch in 0..batches {
        let (before, after) = (i64::from(rows) * i64::from(batch) / i64::from(batches), i64::from(rows) * i64::from(batch + 1) / i64::from(batches));
        sqlx::query(
            "WITH b AS (INSERT INTO alya.batches (app, op, context, status, reqat) VALUES ('bank', 'post', '{}', 'queued', now()) RETURNING id)
             INSERT INTO alya.batchrows (batch, line, input, status, reqat)
             SELECT b.id, n, jsonb_build_object('id', 'TX' || n, 'account', 'DE8937040044' || n % 100000, 'amount', n % 5000, 'currency', 'EUR', 'type', 'deposit'),
                'queued', now()
             FROM b, generate_series(1, $1::int) n",
        )
        .bind(i32::try_from(after - before)?)
        .execute(&mut *db)
        .await
        .context("rows cannot be submitted")?;
    }
    Ok(())
}

async fn log_position(db: &mut PgConnection) -> anyhow::Result<f64> {
    Ok(sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8").fetch_one(db).await?)
}

async fn check(db: &mut PgConnection, args: &Args, ran: u32) -> anyhow::Result<()> {
    let (done, summed, open): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM alya.batchrows WHERE status = 'success'), (SELECT sum(nsuccess) FROM alya.batches),
            (SELECT count(*) FROM alya.batches WHERE status <> 'success' AND EXISTS (SELECT FROM alya.batchrows r WHERE r.batch = id))",
    )
    .fetch_one(db)
    .await?;
    let rows = i64::from(args.rows);
    ensure!(
        (i64::from(ran), done, summed, open) == (rows, rows, rows, 0),
        "{ran} rows ran, {done} are done, {summed} were summed up, {open} batches are open"
    );
    Ok(())
}
