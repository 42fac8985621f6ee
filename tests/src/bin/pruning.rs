//! What pruning costs a batch that runs: `with-servers -- pruning --old-rows 5000000 --rows 1000000`.
//!
//! Old batches are written straight into a fresh database. Then `rowmill bench` runs in turn with everything kept for ever, and with the old batches due, which its
//! worker prunes meanwhile; all the while who waits for a lock is looked at every ten milliseconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rowmill_tests::built::Built;
use rowmill_tests::servers::Database;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Parser)]
#[command(about = "Measures how fast a batch runs while old ones are pruned beside it, and who waits for a lock meanwhile")]
struct Args {
    /// Rows of old batches
    #[arg(long, default_value_t = 5_000_000)]
    old_rows: i64,
    /// Old batches that have them
    #[arg(long, default_value_t = 50)]
    old_batches: i64,
    /// Rows of each batch that runs
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// So many batches with, and as many without
    #[arg(long, default_value_t = 2)]
    rounds: u32,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    old_rows: i64,
    rows: u32,
    /// Rows per second from the release to the last output file, in turn.
    without: Vec<f64>,
    with: Vec<f64>,
    /// The mean with, by that without.
    ratio: f64,
    /// Old rows that went meanwhile.
    pruned_beside: Vec<i64>,
    /// The longest that anybody was seen to wait for a lock, in milliseconds.
    longest_wait_without: f64,
    longest_wait_with: f64,
    /// The same, where it was one of pruning.
    longest_wait_for_pruning: f64,
    /// What was left goes with `rowmill prune`, when nothing else runs.
    rest_rows: i64,
    rest_seconds: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (built, database, directory) = (Built::find()?, Database::create()?, tempfile::tempdir()?);
    let site = Site { built, url: database.url(), directory: directory.path().to_owned() };
    site.rowmill(&["migrate"], "forever").await?;
    let mut db = PgConnection::connect(&site.url).await?;
    seed(&mut db, &args).await?;
    eprintln!("{} old rows are there", args.old_rows);
    let processor = site.built.guest("bank-transactions")?.display().to_string();
    let bench = ["bench", "--processor", &processor, "--rows", &args.rows.to_string()];
    let mut report = Report { old_rows: args.old_rows, rows: args.rows, ..Report::default() };
    for round in 0..args.rounds * 2 {
        let keep = if round % 2 == 0 { "forever" } else { "1h" };
        let (before, stop) = (old_rows(&mut db).await?, CancellationToken::new());
        let watching = tokio::spawn(watch_locks(site.url.clone(), stop.clone()));
        let spoken = site.rowmill(&bench, keep).await;
        stop.cancel();
        let waits = watching.await??;
        let bench: serde_json::Value = serde_json::from_str(spoken?.trim())?;
        let rate = bench["process"]["rows_per_second"].as_f64().context("bench told no rate")?;
        eprintln!("kept {keep}: {rate} rows/s; longest wait {:.1} ms, for pruning {:.1} ms", waits.longest, waits.for_pruning);
        if keep == "forever" {
            report.without.push(rate);
            report.longest_wait_without = report.longest_wait_without.max(waits.longest);
        } else {
            report.with.push(rate);
            report.pruned_beside.push(before - old_rows(&mut db).await?);
            report.longest_wait_with = report.longest_wait_with.max(waits.longest);
            report.longest_wait_for_pruning = report.longest_wait_for_pruning.max(waits.for_pruning);
        }
    }
    report.ratio = report.with.iter().sum::<f64>() / report.without.iter().sum::<f64>();
    report.rest_rows = old_rows(&mut db).await?;
    let began = Instant::now();
    // What was left in the middle is another's for a minute.
    sqlx::query("UPDATE rowmill.batches SET pruning_until = 0 WHERE pruning <> 0").execute(&mut db).await?;
    site.rowmill(&["prune"], "1h").await?;
    report.rest_seconds = began.elapsed().as_secs_f64();
    ensure!(old_rows(&mut db).await? == 0, "not all of it was pruned");
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

struct Site {
    built: Built,
    url: String,
    directory: PathBuf,
}

impl Site {
    /// What a command printed, which succeeded.
    async fn rowmill(&self, arguments: &[&str], keep: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.built.program());
        command.args(arguments).current_dir(&self.directory).kill_on_drop(true);
        command.env("ROWMILL_STORE_URL", &self.url).env("ROWMILL_OBJECTS_URL", "file:objects").env("ROWMILL_KEEP_BATCHES", keep);
        command.env("ROWMILL_CACHE_DIR", self.built.cache());
        let output = command.output().await.context("cannot start rowmill")?;
        ensure!(output.status.success(), "rowmill {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Batches of the app `old` that were done a day ago.
async fn seed(db: &mut PgConnection, args: &Args) -> anyhow::Result<()> {
    let rows = args.old_rows / args.old_batches.max(1);
    sqlx::query(
        "INSERT INTO rowmill.batches (batch_id, app, op, kind, processor_version, processor_digest, context, attempts_max, status, step, row_count, next_row, line_last,
            success, submitted_at, started_at, finished_at)
         SELECT gen_random_uuid(), 'old', 'old', 'batch', 1, '', '{}', 3, 'success', 'done', $2, $2 + 1, $2, $2, t.at + b, t.at + b, t.at + b
         FROM generate_series(1, $1) b, (SELECT rowmill.now_ms() - 86400000 AS at) t",
    )
    .bind(i32::try_from(args.old_batches)?)
    .bind(i32::try_from(rows)?)
    .execute(&mut *db)
    .await?;
    for statement in [
        "INSERT INTO rowmill.rows (batch_key, line, row_no, input)
         SELECT b.batch_key, n, n, '{\"id\":\"T' || n || '\",\"account\":\"DE9710027535\",\"amount\":\"10.25\",\"currency\":\"EUR\",\"date\":\"2026-01-31\",\"type\":\"deposit\"}'
         FROM rowmill.batches b, generate_series(1, b.row_count) n WHERE b.app = 'old' ORDER BY b.batch_key, n",
        "INSERT INTO rowmill.outcomes (batch_key, fuel, row_no, attempt, failed, output, piece_files, pieces)
         SELECT b.batch_key, 20000, n, 1, false, '{\"id\":\"T' || n || '\",\"cents\":1025}', '0', 'T' || n || ',DE9710027535,10.25,EUR'
         FROM rowmill.batches b, generate_series(1, b.row_count) n WHERE b.app = 'old' ORDER BY b.batch_key, n",
        "ANALYZE rowmill.rows, rowmill.outcomes, rowmill.batches",
        "CHECKPOINT",
    ] {
        sqlx::query(statement).execute(&mut *db).await?;
    }
    Ok(())
}

/// Rows of old batches that are there.
async fn old_rows(db: &mut PgConnection) -> anyhow::Result<i64> {
    let left = "SELECT coalesce(sum(row_count - pruned_rows), 0)::bigint FROM rowmill.batches WHERE app = 'old'";
    Ok(sqlx::query_scalar(left).fetch_one(db).await?)
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    longest: f64,
    for_pruning: f64,
}

/// Looks who waits for a lock, until it is stopped.
async fn watch_locks(url: String, stop: CancellationToken) -> anyhow::Result<Waits> {
    let mut db = PgConnection::connect(&url).await?;
    let mut waits = Waits::default();
    while !stop.is_cancelled() {
        let (longest, for_pruning): (f64, f64) = sqlx::query_as(
            "SELECT coalesce(max(w.ms), 0), coalesce(max(w.ms) FILTER (WHERE w.for_pruning), 0) FROM (
                SELECT extract(epoch FROM clock_timestamp() - l.waitstart)::float8 * 1000 AS ms, EXISTS (
                    SELECT FROM unnest(pg_blocking_pids(l.pid)) p (pid) JOIN pg_stat_activity b ON b.pid = p.pid WHERE b.query ~ 'rowmill.(begin_prune|resume_prune|prune_rows|forget_objects|list_done_ops)') AS for_pruning
                FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()) w",
        )
        .fetch_one(&mut db)
        .await?;
        waits = Waits { longest: waits.longest.max(longest), for_pruning: waits.for_pruning.max(for_pruning) };
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(waits)
}
