//! The status of batches, in the process and through a real Redis.

use std::time::{Duration, Instant};

use rowmill::model::{BatchCounts, BatchId, BatchStatus, ProcessorKind};
use rowmill::status::{QueryAnswer, RedisSettings, Snapshot, StatusBoard};
use rowmill_tests::servers::Redis;

/// A bound for what should take milliseconds. Redis is left alone for some seconds after a failure.
const SOON: Duration = Duration::from_secs(60);

fn snapshot(id: BatchId, status: BatchStatus, rows: u64, success: u64) -> Snapshot {
    Snapshot {
        id,
        app: "bank".to_owned(),
        op: "statement".to_owned(),
        kind: ProcessorKind::Batch,
        round: 1,
        status,
        counts: BatchCounts { rows, success, failed: 0, aborted: 0 },
        said: None,
        files: Vec::new(),
        done: false,
        answer: None,
    }
}

fn done(id: BatchId) -> Snapshot {
    Snapshot { done: true, ..snapshot(id, BatchStatus::Success, 10, 10) }
}

fn board(url: &str) -> StatusBoard {
    StatusBoard::with_redis(&RedisSettings { url: url.to_owned(), cache: Duration::from_secs(60) }).unwrap()
}

/// Asks again and again until it is so.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < SOON, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Another process's view.
async fn reads(board: &StatusBoard, wanted: &Snapshot) {
    until("the other board reads it", async || board.read(wanted.id).await.filter(|read| read == wanted)).await;
}

async fn redis_client(redis: &Redis) -> Client {
    Client(tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap())
}

/// Speaks to Redis without the crate that is tested.
struct Client(tokio::net::TcpStream);

impl Client {
    async fn ask(&mut self, command: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 << 10];
        let length = self.0.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    async fn milliseconds_left(&mut self, id: BatchId) -> u64 {
        let answer = self.ask(&format!("PTTL rowmill:{{{id}}}:status")).await;
        answer.trim_start_matches(':').trim().parse().unwrap()
    }
}

const STATES: [(BatchStatus, u64, u64); 8] = [
    (BatchStatus::Wait, 0, 0),
    (BatchStatus::Wait, 5, 0),
    (BatchStatus::Wait, 10, 0),
    (BatchStatus::Queued, 10, 0),
    (BatchStatus::Inprog, 10, 0),
    (BatchStatus::Inprog, 10, 2),
    (BatchStatus::Inprog, 10, 10),
    (BatchStatus::Success, 10, 10),
];

#[tokio::test]
async fn an_older_state_never_takes_the_place_of_a_newer_one() {
    let redis = Redis::start().unwrap();
    let reader = board(&redis.url());
    for (newer, newest) in STATES.iter().enumerate() {
        let id = BatchId::generate();
        let state = |at: usize| snapshot(id, STATES[at].0, STATES[at].1, STATES[at].2);
        let here = board(&redis.url());
        here.publish(state(newer));
        here.flush(SOON).await;
        for older in 0..newer {
            // By the same process, and by one that knows nothing of the newer state.
            here.publish(state(older));
            let other = board(&redis.url());
            other.publish(state(older));
            other.flush(SOON).await;
        }
        here.flush(SOON).await;
        assert_eq!(reader.read(id).await, Some(state(newer)), "{newest:?}");
    }
    let id = BatchId::generate();
    let here = board(&redis.url());
    here.publish(done(id));
    here.flush(SOON).await;
    let other = board(&redis.url());
    other.publish(snapshot(id, BatchStatus::Success, 10, 10));
    other.flush(SOON).await;
    assert_eq!(reader.read(id).await, Some(done(id)));
}

/// A batch that is retried begins another round: nothing of the one before is newer, though more of it had ended.
#[tokio::test]
async fn a_round_that_has_ended_never_takes_the_place_of_the_next() {
    let redis = Redis::start().unwrap();
    let (here, reader) = (board(&redis.url()), board(&redis.url()));
    let id = BatchId::generate();
    let counts = |success, failed| BatchCounts { rows: 10, success, failed, aborted: 0 };
    let ended = Snapshot { done: true, counts: counts(6, 4), ..snapshot(id, BatchStatus::Failed, 10, 6) };
    here.publish(ended.clone());
    here.flush(SOON).await;
    reads(&reader, &ended).await;
    // By a process that knows the round before, and by counts alone.
    let queued = Snapshot { round: 2, ..snapshot(id, BatchStatus::Queued, 10, 6) };
    here.publish(queued.clone());
    here.publish_counts(id, 1, counts(6, 4));
    here.publish(ended.clone());
    board(&redis.url()).publish(ended.clone());
    here.flush(SOON).await;
    reads(&reader, &queued).await;
    let mut watching = reader.watch(id);
    here.publish_counts(id, 2, counts(7, 0));
    let running = Snapshot { round: 2, ..snapshot(id, BatchStatus::Inprog, 10, 7) };
    reads(&reader, &running).await;
    tokio::time::timeout(SOON, watching.wait_for(|progress| progress.round == 2 && progress.counts.success == 7)).await.unwrap().unwrap();
    let other = board(&redis.url());
    other.publish(ended);
    other.publish_counts(id, 2, counts(8, 0));
    assert_eq!(other.read(id).await, Some(Snapshot { counts: counts(8, 0), ..running.clone() }));
}

#[tokio::test]
async fn a_status_expires_and_a_final_one_a_hundred_times_later() {
    let redis = Redis::start().unwrap();
    let mut client = redis_client(&redis).await;
    let (running, ended) = (BatchId::generate(), BatchId::generate());
    let here = board(&redis.url());
    here.publish(snapshot(running, BatchStatus::Inprog, 10, 1));
    here.publish(done(ended));
    here.flush(SOON).await;
    let (running_left, ended_left) = (client.milliseconds_left(running).await, client.milliseconds_left(ended).await);
    assert!((1..=60_000).contains(&running_left), "{running_left}");
    assert!((60_001..=6_000_000).contains(&ended_left), "{ended_left}");

    let short = StatusBoard::with_redis(&RedisSettings { url: redis.url(), cache: Duration::from_millis(50) }).unwrap();
    let gone = BatchId::generate();
    short.publish(snapshot(gone, BatchStatus::Inprog, 10, 1));
    short.flush(SOON).await;
    let reader = board(&redis.url());
    until("it has expired", async || reader.read(gone).await.is_none().then_some(())).await;
    assert!(reader.read(ended).await.is_some());
}

#[tokio::test]
async fn the_answer_of_a_slow_query_is_read_without_the_database() {
    let redis = Redis::start().unwrap();
    let id = BatchId::generate();
    let answer = QueryAnswer { output: Some(r#"{"sum":"ä\"}"}"#.to_owned()), messages: Vec::new(), abort_reason: None };
    let asked = Snapshot { kind: ProcessorKind::SlowQuery, said: Some((50, "half".to_owned())), ..done(id) }.with_answer(Some(answer));
    let here = board(&redis.url());
    here.publish(asked.clone());
    here.flush(SOON).await;
    assert_eq!(board(&redis.url()).read(id).await, Some(asked));
}

#[tokio::test]
async fn a_redis_that_was_killed_comes_back_into_use() {
    let mut redis = Redis::start().unwrap();
    let (here, there) = (board(&redis.url()), board(&redis.url()));
    let id = BatchId::generate();
    let mut watching = there.watch(id);
    here.publish(snapshot(id, BatchStatus::Inprog, 10, 1));
    reads(&there, &snapshot(id, BatchStatus::Inprog, 10, 1)).await;
    redis.kill();
    here.publish(snapshot(id, BatchStatus::Inprog, 10, 5));
    until("the other process knows nothing", async || there.read(id).await.is_none().then_some(())).await;
    here.publish(done(id));
    redis.restart().unwrap();
    // The final state waited, and whoever watches hears of it.
    reads(&there, &done(id)).await;
    tokio::time::timeout(SOON, watching.wait_for(|progress| progress.done)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() {
    let redis = Redis::start().unwrap();
    let (here, there) = (board(&redis.url()), board(&redis.url()));
    let id = BatchId::generate();
    here.publish(snapshot(id, BatchStatus::Inprog, 10, 1));
    reads(&there, &snapshot(id, BatchStatus::Inprog, 10, 1)).await;
    redis.flush().unwrap();
    assert_eq!(there.read(id).await, None);
    here.publish_counts(id, 1, BatchCounts { rows: 10, success: 2, failed: 0, aborted: 0 });
    reads(&there, &snapshot(id, BatchStatus::Inprog, 10, 2)).await;
}

#[tokio::test]
async fn a_redis_that_is_down_from_the_start_costs_nothing() {
    let mut redis = Redis::start().unwrap();
    redis.kill();
    let here = board(&redis.url());
    let (running, ended) = (BatchId::generate(), BatchId::generate());
    let watching = here.watch(running);
    here.publish(snapshot(running, BatchStatus::Inprog, 10, 1));
    here.publish(done(ended));
    // What this process did it knows, and what others did it asks the store.
    assert_eq!(here.read(ended).await, Some(done(ended)));
    assert_eq!(watching.borrow().counts.success, 1);
    let start = Instant::now();
    for _ in 0..10_000 {
        assert_eq!(here.read(BatchId::generate()).await, None);
    }
    assert!(start.elapsed() < SOON, "10,000 reads took {:?}", start.elapsed());
    here.flush(Duration::from_millis(10)).await;
    assert_eq!(here.pending(), 2, "it waits for Redis");
}

/// A server that takes connections and never answers.
#[tokio::test]
async fn a_redis_that_hangs_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = board(&format!("redis://{}", silent.local_addr().unwrap()));
    let start = Instant::now();
    for _ in 0..10_000 {
        assert_eq!(here.read(BatchId::generate()).await, None);
    }
    assert!(start.elapsed() < SOON, "10,000 reads took {:?}", start.elapsed());
    here.publish(done(BatchId::generate()));
}

#[tokio::test]
async fn watchers_hear_of_what_another_process_does() {
    let redis = Redis::start().unwrap();
    let (here, there) = (board(&redis.url()), board(&redis.url()));
    let id = BatchId::generate();
    here.publish(snapshot(id, BatchStatus::Inprog, 10, 1));
    here.flush(SOON).await;
    // What is known already is told to a watcher that comes late,
    let mut watching = there.watch(id);
    tokio::time::timeout(SOON, watching.wait_for(|progress| progress.counts.success == 1)).await.unwrap().unwrap();
    // and then whatever comes.
    here.publish_counts(id, 1, BatchCounts { rows: 10, success: 5, failed: 1, aborted: 0 });
    tokio::time::timeout(SOON, watching.wait_for(|progress| progress.counts.failed == 1)).await.unwrap().unwrap();
    here.publish_said(id, 60, "sorting".to_owned());
    tokio::time::timeout(SOON, watching.wait_for(|progress| progress.said == Some((60, "sorting".to_owned())))).await.unwrap().unwrap();
    here.publish(done(id));
    let last = tokio::time::timeout(SOON, watching.wait_for(|progress| progress.done)).await.unwrap().unwrap().clone();
    assert_eq!((last.status, last.counts.success), (Some(BatchStatus::Success), 10));
}

#[tokio::test]
async fn a_hundred_thousand_states_do_not_pile_up() {
    let redis = Redis::start().unwrap();
    let mut client = redis_client(&redis).await;
    let here = board(&redis.url());
    let id = BatchId::generate();
    for success in 0..100_000 {
        here.publish(snapshot(id, BatchStatus::Inprog, 100_000, success));
        // One waits, and the one before it may be on its way.
        assert!(here.pending() <= 2);
        if success % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    here.publish(Snapshot { done: true, ..snapshot(id, BatchStatus::Success, 100_000, 100_000) });
    here.flush(SOON).await;
    let statistics = client.ask("INFO commandstats").await;
    let calls: u64 = statistics.split("cmdstat_eval:calls=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls < 1_000, "{calls} writes for 100,000 states");
    assert_eq!(board(&redis.url()).read(id).await.unwrap().counts.success, 100_000);
}

#[tokio::test]
async fn states_of_many_batches_do_not_pile_up_while_redis_is_down() {
    let mut redis = Redis::start().unwrap();
    redis.kill();
    let here = board(&redis.url());
    for _ in 0..50_000 {
        here.publish(snapshot(BatchId::generate(), BatchStatus::Inprog, 10, 1));
        here.publish(done(BatchId::generate()));
    }
    assert!(here.pending() <= 40_000, "{} wait", here.pending());
}

#[tokio::test]
async fn without_redis_the_process_knows_what_it_did() {
    let here = StatusBoard::in_process();
    let id = BatchId::generate();
    assert_eq!(here.read(id).await, None);
    let mut watching = here.watch(id);
    here.publish(snapshot(id, BatchStatus::Queued, 10, 0));
    here.publish_counts(id, 1, BatchCounts { rows: 10, success: 4, failed: 0, aborted: 0 });
    // Late: it was recorded before.
    here.publish_counts(id, 1, BatchCounts { rows: 10, success: 3, failed: 0, aborted: 0 });
    here.publish(snapshot(id, BatchStatus::Queued, 10, 0));
    assert_eq!(watching.borrow_and_update().counts.success, 4);
    here.publish(done(id));
    assert!(watching.borrow_and_update().done);
    assert_eq!(here.read(id).await, Some(done(id)));
    // Who comes after the end learns of it at once.
    assert!(here.watch(id).borrow().done);
}

#[test]
fn a_url_that_is_none_is_refused_without_its_password() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let Err(refused) = StatusBoard::with_redis(&RedisSettings { url: "postgres://:hunter2@x".to_owned(), cache: SOON }) else { panic!() };
    assert!(!format!("{refused} {refused:?}").contains("hunter2"), "{refused:?}");
}
