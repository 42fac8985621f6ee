//! One operation with a batch processor and a slow-query processor: each kind has versions that serve, roll back and go on their own.

use rowmill::model::{NewBatch, NewSchedule, NewVersion, ProcessorKind, RegisteredVersion, ScheduleKey};
use rowmill::store::{StoreError, VersionError, find_served};

use super::build::{batch, query, row, rows, version};
use super::kit::Kit;
use super::scheduled::schedule;
use super::versions::refused;

const BATCH: ProcessorKind = ProcessorKind::Batch;
const QUERY: ProcessorKind = ProcessorKind::SlowQuery;

impl Kit {
    async fn deploy_kind(&self, kind: ProcessorKind, digest: &str) -> u32 {
        self.store.put_processor(&version("bank", "post", kind, digest)).await.unwrap().version
    }

    async fn served(&self, kind: ProcessorKind) -> Option<u32> {
        self.store.find_op("bank", "Post", kind).await.unwrap().map(|found| found.version.version)
    }

    async fn both_served(&self) -> [Option<u32>; 2] {
        [self.served(BATCH).await, self.served(QUERY).await]
    }

    async fn roll_back_kind(&self, kind: Option<ProcessorKind>) -> Result<u32, StoreError> {
        self.store.rollback_processor("bank", "Post", kind).await.map(|version| version.version)
    }

    async fn listed(&self) -> Vec<RegisteredVersion> {
        self.store.list_processors(Some("bank")).await.unwrap()
    }
}

pub async fn an_operation_has_a_processor_of_each_kind(kit: Kit) {
    assert_eq!([kit.deploy_kind(BATCH, "rows").await, kit.deploy_kind(QUERY, "queries").await], [1, 2], "one sequence of numbers");
    assert_eq!(kit.both_served().await, [Some(1), Some(2)]);
    assert_eq!(kit.listed().await.iter().map(|listed| listed.active).collect::<Vec<_>>(), [true, true]);
    assert_eq!(kit.deploy_kind(BATCH, "more rows").await, 3);
    assert_eq!(kit.both_served().await, [Some(3), Some(2)]);
    kit.store.activate_processor("bank", "post", 1).await.unwrap();
    assert_eq!(kit.both_served().await, [Some(1), Some(2)]);
    // Other operations are served by nothing of this.
    for kind in [BATCH, QUERY] {
        assert_eq!(kit.store.find_op("bank", "other", kind).await.unwrap(), None);
        assert_eq!(kit.store.find_op("shop", "post", kind).await.unwrap(), None);
    }
}

pub async fn a_kind_that_is_not_served_says_whether_the_other_is(kit: Kit) {
    let sentence = async |op: &str, kind| find_served(&*kit.store, "bank", op, kind).await.unwrap().unwrap_err().to_string();
    let advice = "deploy one and activate it (rowmill deploy --activate)";
    let nothing = format!("app \"bank\" has no batch processor that serves the operation \"post\": {advice}");
    assert_eq!(sentence("Post", BATCH).await, nothing);
    kit.deploy_kind(QUERY, "queries").await;
    let other = "(its slow-query processor does not run batches)";
    assert_eq!(sentence("post", BATCH).await, format!("app \"bank\" has no batch processor that serves the operation \"post\" {other}: {advice}"));
    kit.store.put_processor(&version("bank", "rows", BATCH, "rows")).await.unwrap();
    let other = "(its batch processor does not run slow queries)";
    assert_eq!(
        sentence("rows", QUERY).await,
        format!("app \"bank\" has no slow-query processor that serves the operation \"rows\" {other}: {advice}")
    );
    assert_eq!(find_served(&*kit.store, "bank", "POST", QUERY).await.unwrap().unwrap().version.version, 1);
}

pub async fn the_same_code_is_the_newest_version_of_its_kind(kit: Kit) {
    assert_eq!([kit.deploy_kind(BATCH, "rows").await, kit.deploy_kind(QUERY, "queries").await], [1, 2]);
    assert_eq!([kit.deploy_kind(BATCH, "rows").await, kit.deploy_kind(QUERY, "queries").await], [1, 2], "they are there already");
    // A note that is given takes the place of the note; without one it stays.
    let again = async |note: Option<&str>| {
        let new = NewVersion { note: note.map(str::to_owned), activate: false, ..version("bank", "post", BATCH, "rows") };
        assert_eq!(kit.store.put_processor(&new).await.unwrap().version, 1);
        kit.listed().await.into_iter().map(|listed| listed.note).collect::<Vec<_>>()
    };
    assert_eq!(again(Some("rounds\0half up")).await, [Some("rounds\0half up".to_owned()), None]);
    assert_eq!(again(None).await, [Some("rounds\0half up".to_owned()), None]);
    assert_eq!(again(Some("")).await, [Some(String::new()), None]);
    assert_eq!(kit.both_served().await, [Some(1), Some(2)]);
}

pub async fn a_rollback_is_of_one_kind(kit: Kit) {
    refused!(kit.roll_back_kind(None).await, VersionError::NothingBefore { kind: None, .. });
    assert_eq!([kit.deploy_kind(BATCH, "rows 1").await, kit.deploy_kind(BATCH, "rows 2").await], [1, 2]);
    let said = refused!(kit.roll_back_kind(Some(QUERY)).await, VersionError::NothingBefore { .. });
    assert_eq!(
        said,
        "app \"bank\" has no version of a slow-query processor for the operation \"post\" that was active before and is still there: activate one \
         (rowmill activate)"
    );
    assert_eq!(kit.roll_back_kind(None).await.unwrap(), 1, "one kind serves: it need not be named");
    kit.store.activate_processor("bank", "post", 2).await.unwrap();
    assert_eq!([kit.deploy_kind(QUERY, "queries 3").await, kit.deploy_kind(QUERY, "queries 4").await], [3, 4]);
    let said = refused!(kit.roll_back_kind(None).await, VersionError::BothServe { batch: 2, query: 4, .. });
    assert_eq!(
        said,
        "app \"bank\" has a batch processor (version 2) and a slow-query processor (version 4) that serve the operation \"post\": say which one to roll \
         back (rowmill rollback --kind batch, or --kind query)"
    );
    assert_eq!(kit.both_served().await, [Some(2), Some(4)], "nothing was rolled back");
    assert_eq!(kit.roll_back_kind(Some(BATCH)).await.unwrap(), 1);
    assert_eq!(kit.both_served().await, [Some(1), Some(4)]);
    refused!(kit.roll_back_kind(Some(BATCH)).await, VersionError::NothingBefore { kind: Some(BATCH), .. });
    assert_eq!(kit.roll_back_kind(Some(QUERY)).await.unwrap(), 3);
    assert_eq!(kit.both_served().await, [Some(1), Some(3)]);
}

pub async fn many_activations_of_one_kind_leave_the_other(kit: Kit) {
    assert_eq!([kit.deploy_kind(BATCH, "rows 1").await, kit.deploy_kind(BATCH, "rows 2").await], [1, 2]);
    assert_eq!([kit.deploy_kind(QUERY, "queries 3").await, kit.deploy_kind(QUERY, "queries 4").await], [3, 4]);
    // Far more than are kept.
    for _ in 0..60 {
        for version in [3, 4] {
            kit.store.activate_processor("bank", "post", version).await.unwrap();
        }
    }
    assert_eq!(kit.both_served().await, [Some(2), Some(4)]);
    assert_eq!(kit.roll_back_kind(Some(BATCH)).await.unwrap(), 1);
}

pub async fn a_version_is_deactivated_and_the_other_kind_serves_on(kit: Kit) {
    assert_eq!([kit.deploy_kind(BATCH, "rows 1").await, kit.deploy_kind(QUERY, "queries").await, kit.deploy_kind(BATCH, "rows 3").await], [1, 2, 3]);
    let deactivate = async |version| kit.store.deactivate_processor("bank", "Post", version).await.map(|version| version.version);
    let said = refused!(deactivate(1).await, VersionError::NotActive { version: 1 });
    assert_eq!(said, "version 1 does not serve: rowmill processors shows the active versions");
    refused!(deactivate(4).await, VersionError::Missing { version: 4, .. });
    for version in [2, 3] {
        let said = refused!(kit.store.remove_processor("bank", "post", version).await, VersionError::Active { .. });
        assert_eq!(
            said,
            format!(
                "version {version} serves what is submitted: activate another version of its kind first, or deactivate this one (rowmill deactivate)"
            )
        );
    }
    assert_eq!(deactivate(3).await.unwrap(), 3);
    assert_eq!(kit.both_served().await, [None, Some(2)], "version 1 does not come back");
    refused!(deactivate(3).await, VersionError::NotActive { version: 3 });
    refused!(kit.roll_back_kind(Some(BATCH)).await, VersionError::NothingBefore { .. });
    kit.store.remove_processor("bank", "post", 3).await.unwrap();
    assert_eq!(deactivate(2).await.unwrap(), 2);
    assert_eq!(kit.both_served().await, [None, None]);
    refused!(kit.roll_back_kind(None).await, VersionError::NothingBefore { .. });
    kit.store.activate_processor("bank", "post", 1).await.unwrap();
    assert_eq!(kit.both_served().await, [Some(1), None]);
}

pub async fn a_schedule_holds_the_kind_that_it_submits_to(kit: Kit) {
    assert_eq!(kit.deploy_kind(BATCH, "rows").await, 1);
    kit.store.put_schedule(&schedule("nightly"), &rows(1)).await.unwrap();
    assert_eq!(kit.deploy_kind(QUERY, "queries").await, 2, "the schedule is not touched");
    assert_eq!(kit.both_served().await, [Some(1), Some(2)]);
    let deactivate = async |version| kit.store.deactivate_processor("bank", "post", version).await;
    let said = refused!(deactivate(1).await, VersionError::Scheduled { .. });
    assert_eq!(said, "the schedule \"nightly\" submits to the batch processor of the operation \"post\": pause or remove the schedule first");
    assert_eq!(kit.both_served().await, [Some(1), Some(2)]);
    deactivate(2).await.unwrap();
    kit.store.pause_schedule(&ScheduleKey::new("bank", "nightly")).await.unwrap();
    deactivate(1).await.unwrap();
    kit.store.activate_processor("bank", "post", 2).await.unwrap();
    kit.store.put_schedule(&NewSchedule { kind: QUERY, ..schedule("report") }, &[row(0)]).await.unwrap();
    refused!(deactivate(2).await, VersionError::Scheduled { .. });
}

pub async fn a_version_that_was_found_stays_when_the_other_kind_changes(kit: Kit) {
    assert_eq!([kit.deploy_kind(BATCH, "rows").await, kit.deploy_kind(QUERY, "queries").await], [1, 2]);
    let found = kit.store.find_op("bank", "post", QUERY).await.unwrap().unwrap();
    let submit = async || {
        let new = NewBatch { processor_version: 2, as_found: Some(found.stamp.clone()), ..query() };
        kit.store.submit_batch(new, vec![row(0)]).await
    };
    submit().await.unwrap();
    assert_eq!(kit.deploy_kind(BATCH, "more rows").await, 3);
    submit().await.unwrap();
    // A batch is not submitted with what was found for queries.
    let batch = NewBatch { processor_version: 2, as_found: Some(found.stamp.clone()), ..batch() };
    refused!(kit.store.submit_batch(batch, rows(1)).await, VersionError::Changed);
    kit.store.deactivate_processor("bank", "post", 2).await.unwrap();
    refused!(submit().await, VersionError::Changed);
}
