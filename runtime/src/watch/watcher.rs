//! The watcher: looks, claims, and lets files be taken beside each other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::error::TakeError;
use super::look::{Looks, Mark, Ripe};
use super::take::Taking;
use super::{FileReport, FileType, Outcome, Patterns, Places, WatchError};
use crate::intake::InflateLimits;
use crate::jobs::JobManager;

/// Between two looks at a directory: as long as a file has to be unchanged, and within these.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// After a failure that is not the file's nothing is taken for so long; twice as long after each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A watched directory: where files come, and what they are.
pub struct Inbox {
    pub places: Places,
    /// A file is taken when it has not changed for so long.
    pub age: Duration,
    /// Names that are left alone.
    pub ignored: Patterns,
    /// The first whose pattern a name matches counts.
    pub types: Vec<FileType>,
    patterns: Patterns,
}

impl Inbox {
    /// # Errors
    /// [`super::BadPattern`] for the pattern of a type, also when it would never get a file.
    pub fn new(places: Places, age: Duration, ignored: Patterns, types: Vec<FileType>) -> Result<Inbox, super::BadPattern> {
        let patterns = Patterns::of_types(types.iter().map(|file_type| file_type.pattern.as_str()), &ignored)?;
        Ok(Inbox { places, age, ignored, types, patterns })
    }

    pub(super) fn find_type(&self, name: &str) -> Option<&FileType> {
        self.types.get(self.patterns.first_match(name)?)
    }
}

/// How files are taken.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Files that are taken at the same time.
    pub files_at_once: usize,
    /// How long they may go on when the watcher is to stop.
    pub grace: Duration,
    pub inflate: InflateLimits,
    /// End when everything was taken that was there, and old enough.
    pub once: bool,
}

/// Hears of each file that was taken or refused.
type Listener = Arc<dyn Fn(&FileReport) + Send + Sync>;

/// Takes files from directories.
pub struct Watcher {
    jobs: JobManager,
    inboxes: Vec<Arc<Inbox>>,
    settings: Arc<WatchSettings>,
    listener: Listener,
}

/// What the tasks of a watcher know together.
struct Tasks {
    tasks: JoinSet<Result<(), ()>>,
    places: Arc<Semaphore>,
    /// Stops guests, when the grace is over.
    cancel: CancellationToken,
}

impl Watcher {
    /// # Errors
    /// [`WatchError::WatchedTwice`].
    pub fn new(
        jobs: JobManager,
        inboxes: Vec<Inbox>,
        settings: WatchSettings,
        listener: impl Fn(&FileReport) + Send + Sync + 'static,
    ) -> Result<Watcher, WatchError> {
        let mut known = HashSet::new();
        for inbox in &inboxes {
            let path = inbox.places.paths.incoming.clone();
            let identity = inbox.places.identity().map_err(|source| WatchError::Unusable { path: path.clone(), source })?;
            if !known.insert(identity) {
                return Err(WatchError::WatchedTwice { path });
            }
        }
        let inboxes = inboxes.into_iter().map(Arc::new).collect();
        Ok(Watcher { jobs, inboxes, settings: Arc::new(settings), listener: Arc::new(listener) })
    }

    /// Takes files until it is to stop, or once. Files that are being taken then may come to their end, for the grace; what is left of them is for the next one.
    ///
    /// # Errors
    /// [`WatchError::FilesLeft`], where it ends by itself. Else it outlasts what fails, and says so in the log.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), WatchError> {
        let places = Arc::new(Semaphore::new(self.settings.files_at_once));
        let mut tasks = Tasks { tasks: JoinSet::new(), places, cancel: CancellationToken::new() };
        let mut looks: Vec<Looks> = self.inboxes.iter().map(|_| Looks::default()).collect();
        let mut pause = PAUSE_MIN;
        let mut all_seen: Option<Instant> = None;
        // What failed before is tried again by each look, the last one too.
        let left = loop {
            // When everything that was seen by the first look is old enough, another is the last one.
            let is_old = |seen: Instant| self.inboxes.iter().all(|inbox| seen.elapsed() >= inbox.age);
            let is_last = self.settings.once && all_seen.is_some_and(is_old);
            for (inbox, looks) in self.inboxes.iter().zip(&mut looks) {
                self.look(inbox, looks, &mut tasks, &stop).await;
            }
            all_seen.get_or_insert_with(Instant::now);
            let mut wait = self.inboxes.iter().map(|inbox| inbox.age.clamp(LOOK_MIN, LOOK_MAX)).min().unwrap_or(LOOK_MAX);
            let (mut succeeded, mut failed) = (false, 0);
            while let Some(ended) = if is_last { tasks.tasks.join_next().await } else { tasks.tasks.try_join_next() } {
                match ended {
                    Ok(Ok(())) => succeeded = true,
                    Ok(Err(())) => failed += 1,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                }
            }
            if stop.is_cancelled() || is_last {
                break failed;
            }
            if failed > 0 && !succeeded && !self.settings.once {
                wait = pause;
                pause = (pause * 2).min(PAUSE_MAX);
            } else if succeeded {
                pause = PAUSE_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        };
        self.end(tasks).await;
        if self.settings.once && left > 0 { Err(WatchError::FilesLeft { files: left }) } else { Ok(()) }
    }

    /// Lets what is being taken come to its end.
    async fn end(&self, mut tasks: Tasks) {
        let all = async { while tasks.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.settings.grace, all).await.is_err() {
            tracing::warn!("files that were being taken are left for the next watcher: the grace (watch.grace) is over");
            tasks.cancel.cancel();
            tasks.tasks.shutdown().await;
        }
    }

    /// Begins to take what is there: first what others left behind, then what came in.
    async fn look(&self, inbox: &Arc<Inbox>, looks: &mut Looks, tasks: &mut Tasks, stop: &CancellationToken) {
        let shown = inbox.places.paths.incoming.display();
        let orphans = Claim::list(&inbox.places).unwrap_or_else(|error| {
            tracing::warn!("cannot look into {}: {error}", inbox.places.paths.work.display());
            Vec::new()
        });
        for id in orphans {
            let Some(permit) = tasks.permit(stop).await else { return };
            match Claim::adopt(&inbox.places, id) {
                Ok(Some(claim)) => {
                    tracing::info!("goes on with {:?} in {shown}", claim.name().display());
                    self.start(inbox, claim, None, tasks, permit);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("cannot go on with a claim in {}: {error}", inbox.places.paths.work.display()),
            }
        }
        let ripe = looks.look(&inbox.places.incoming, &inbox.ignored, inbox.age, Instant::now()).unwrap_or_else(|error| {
            tracing::warn!("cannot look into {shown}: {error}");
            Vec::new()
        });
        for ripe in ripe {
            let Some(permit) = tasks.permit(stop).await else { return };
            match Claim::begin(&inbox.places, &ripe) {
                Ok(Some(claim)) => {
                    let Ripe { mark, .. } = ripe;
                    self.start(inbox, claim, Some(mark), tasks, permit);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("cannot claim {:?} in {shown}: {error}", ripe.name.display()),
            }
        }
    }

    fn start(&self, inbox: &Arc<Inbox>, claim: Claim, mark: Option<Mark>, tasks: &mut Tasks, permit: OwnedSemaphorePermit) {
        let (jobs, inbox, settings, listener, cancel) =
            (self.jobs.clone(), Arc::clone(inbox), Arc::clone(&self.settings), Arc::clone(&self.listener), tasks.cancel.clone());
        tasks.tasks.spawn(async move {
            let _permit = permit;
            let name = claim.name().to_owned();
            match (Taking { jobs: &jobs, inbox: &inbox, settings: &settings, cancel: &cancel }).take(claim, mark).await {
                Ok(report) => {
                    match (report.outcome, report.batch, report.reasons.first()) {
                        (Outcome::Submitted, Some(id), _) => tracing::info!(batch = %id, "took {:?}", name.display()),
                        (_, _, reason) => tracing::warn!("refused {:?}: {}", name.display(), reason.map_or("", |reason| reason.text.as_str())),
                    }
                    listener(&report);
                    Ok(())
                }
                Err(TakeError::Stopped) => Ok(()),
                Err(error) => {
                    tracing::warn!("cannot take {:?} now: {}", name.display(), chain(&error));
                    Err(())
                }
            }
        });
    }
}

impl Tasks {
    /// A place for one more file; none when the watcher is to stop.
    async fn permit(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            permit = Arc::clone(&self.places).acquire_owned() => permit.ok(),
        }
    }
}

/// An error with what it came from.
fn chain(error: &TakeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
