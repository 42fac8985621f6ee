//! Names that are stored as they were given, from before names were composed.

use std::borrow::Cow;

use super::{JobError, JobManager};
use crate::model::{BatchFilter, canonical_name};

impl JobManager {
    /// Returns the name of an app that is there: as it is stored today, which is composed, or exactly as it was given
    /// if an app has that name from before. An app is not renamed, since its name is also part of the
    /// names of its objects and of its keys in Redis. A manager of one app alone knows composed names only.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub(super) async fn find_app<'a>(&self, app: &'a str) -> Result<Cow<'a, str>, JobError> {
        let canonical = self.check_app(app)?;
        let is_old = *canonical != *app && self.only_app.is_none() && self.knows_exactly(app).await?;
        Ok(if is_old { Cow::Borrowed(app) } else { canonical })
    }

    /// Returns true if an app, a version, a batch or a schedule has exactly this name.
    async fn knows_exactly(&self, app: &str) -> Result<bool, JobError> {
        let store = &self.shared.store;
        Ok(store.read_app(app).await?.is_some()
            || !store.list_processors(Some(app)).await?.is_empty()
            || !store.list_batches(&BatchFilter::of(app), None, 1).await?.batches.is_empty()
            || !store.list_schedules(Some(app), None, 1).await?.is_empty())
    }

    /// The same for a group of an app.
    pub(super) async fn find_group<'a>(&self, app: &str, name: &'a str) -> Result<Cow<'a, str>, JobError> {
        let canonical = canonical_name(name);
        let is_old = *canonical != *name && self.shared.store.read_group(app, name).await?.is_some();
        Ok(if is_old { Cow::Borrowed(name) } else { canonical })
    }
}
