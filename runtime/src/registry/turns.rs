//! Who may compile now: so many uploads at a time, and of one app one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Uploads of one app that are compiled at the same time: who uploads much waits for himself.
const OF_ONE_APP: usize = 1;

/// Turns to compile.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    apps: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Held while something is compiled.
pub(super) struct Turn(#[expect(dead_code, reason = "they are held")] [OwnedSemaphorePermit; 2]);

impl Turns {
    pub fn new(at_once: usize) -> Turns {
        Turns { all: Arc::new(Semaphore::new(at_once.max(1))), apps: Mutex::default() }
    }

    /// Waits for its turn: first within the app, so that one who waits for its own takes nobody's place.
    pub async fn take(&self, app: &str) -> Turn {
        let own = Arc::clone(self.apps().entry(app.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_APP))));
        let own = own.acquire_owned().await.expect("it is never closed");
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("it is never closed");
        // Those that nobody holds or waits for are known here alone.
        self.apps().retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        Turn([own, of_all])
    }

    fn apps(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_app_has_one_turn_at_a_time_and_all_together_so_many() {
        let turns = Turns::new(2);
        let first = turns.take("a").await;
        assert!(turns.take("a").now_or_never().is_none(), "an app has one");
        let second = turns.take("b").await;
        assert!(turns.take("c").now_or_never().is_none(), "two at a time");
        drop(first);
        assert!(turns.take("b").now_or_never().is_none());
        let third = turns.take("a").await;
        drop((second, third));
        drop(turns.take("c").await);
        assert!(turns.apps().len() <= 1, "apps are forgotten");
    }
}
