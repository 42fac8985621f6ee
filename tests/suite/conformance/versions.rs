//! Versions of processors: which there are, which one serves, and which can go.

use std::time::Duration;

use rowmill::model::{CodeQuota, FoundOp, NewBatch, NewVersion, PartialTerms, Policy, ProcessorKind};
use rowmill::store::{StoreError, VersionError};

use super::build::{batch, held, query, row, rows, version};
use super::kit::{Kit, is_invalid, is_missing};

/// Whoever removes code from the object store has died after this time.
const REMOVAL_TIME: Duration = Duration::from_secs(300);

/// The sentence of a refusal that is about versions.
macro_rules! refused {
    ($result:expr, $kind:pat) => {
        match $result {
            Err(StoreError::Version(error @ $kind)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
}
pub(super) use refused;

fn of_bank(digest: &str) -> NewVersion {
    version("bank", "post", ProcessorKind::Batch, digest)
}

fn not_active(digest: &str) -> NewVersion {
    NewVersion { activate: false, ..of_bank(digest) }
}

impl Kit {
    async fn register(&self, new: NewVersion) -> u32 {
        self.store.put_processor(&new).await.unwrap().version
    }

    /// The version that serves.
    async fn serving(&self) -> Option<u32> {
        self.store.find_op("bank", "POST", ProcessorKind::Batch).await.unwrap().map(|found| found.version.version)
    }

    async fn activate(&self, version: u32) {
        assert_eq!(self.store.activate_processor("bank", "Post", version).await.unwrap().version, version);
        assert_eq!(self.serving().await, Some(version));
    }

    async fn roll_back(&self) -> u32 {
        let version = self.store.rollback_processor("bank", "Post", None).await.unwrap().version;
        assert_eq!(self.serving().await, Some(version));
        version
    }

    async fn remove(&self, version: u32) -> Result<Vec<String>, StoreError> {
        self.store.remove_processor("bank", "Post", version).await
    }

    async fn versions(&self) -> Vec<u32> {
        self.store.list_processors(Some("bank")).await.unwrap().iter().map(|listed| listed.version.version).collect()
    }
}

pub async fn a_new_code_is_a_new_version(kit: Kit) {
    let put = async |digest: &str| kit.store.put_processor(&version("a", "Op", ProcessorKind::Batch, digest)).await.unwrap().version;
    assert_eq!(kit.store.find_op("a", "op", ProcessorKind::Batch).await.unwrap(), None);
    assert_eq!([put("one").await, put("one").await, put("two").await, put("one").await], [1, 1, 2, 3]);
    kit.register(version("b", "op", ProcessorKind::SlowQuery, "one")).await;
    let newest = kit.store.find_op("a", "OP", ProcessorKind::Batch).await.unwrap().unwrap().version;
    assert_eq!((newest.op.as_str(), newest.version, newest.digest.as_str(), newest.kind), ("op", 3, "one", ProcessorKind::Batch));
    let listed =
        |versions: Vec<rowmill::model::RegisteredVersion>| versions.into_iter().map(|v| (v.version.app, v.version.version)).collect::<Vec<_>>();
    let of_a = listed(kit.store.list_processors(Some("a")).await.unwrap());
    assert_eq!(of_a, [1, 2, 3].map(|version| ("a".to_owned(), version)));
    assert_eq!(listed(kit.store.list_processors(None).await.unwrap()).len(), 4);
    is_invalid(kit.store.put_processor(&version(&"n".repeat(256), "op", ProcessorKind::Batch, "one")).await);
    is_invalid(kit.store.put_processor(&NewVersion { note: Some("n".repeat(1_001)), ..of_bank("one") }).await);
}

pub async fn a_version_serves_when_it_is_active_and_no_other(kit: Kit) {
    assert_eq!(kit.register(not_active("one")).await, 1);
    assert_eq!(kit.serving().await, None, "it is only registered");
    kit.activate(1).await;
    assert_eq!(kit.register(not_active("two")).await, 2);
    assert_eq!(kit.serving().await, Some(1), "the old one serves on");
    kit.activate(2).await;
    kit.activate(1).await;
    kit.activate(1).await;
    // The newest version again, and now it shall serve.
    assert_eq!(kit.register(of_bank("two")).await, 2);
    assert_eq!(kit.serving().await, Some(2));
    let said = refused!(kit.store.activate_processor("bank", "post", 3).await, VersionError::Missing { .. });
    assert!(said.starts_with("app \"bank\" has no version 3 of a processor for the operation \"post\""), "{said}");
    refused!(kit.store.activate_processor("shop", "post", 1).await, VersionError::Missing { .. });
    refused!(kit.store.activate_processor("bank", "post", 0).await, VersionError::Missing { .. });
    assert_eq!(kit.serving().await, Some(2));
}

pub async fn a_rollback_goes_back_through_what_was_active(kit: Kit) {
    refused!(kit.store.rollback_processor("bank", "post", None).await, VersionError::NothingBefore { .. });
    for digest in ["one", "two", "three", "four"] {
        kit.register(of_bank(digest)).await;
    }
    kit.activate(2).await;
    kit.activate(2).await;
    assert_eq!([kit.roll_back().await, kit.roll_back().await], [4, 3]);
    kit.activate(1).await;
    assert_eq!(kit.roll_back().await, 3, "what was rolled back is not come back to");
    assert_eq!([kit.roll_back().await, kit.roll_back().await], [2, 1]);
    refused!(kit.store.rollback_processor("bank", "post", None).await, VersionError::NothingBefore { .. });
    assert_eq!(kit.serving().await, Some(1));
    // Other operations and apps have their own.
    kit.register(version("bank", "other", ProcessorKind::Batch, "one")).await;
    kit.register(version("shop", "post", ProcessorKind::Batch, "one")).await;
    refused!(kit.store.rollback_processor("bank", "post", None).await, VersionError::NothingBefore { .. });
    // Far more activations than are kept.
    for _ in 0..120 {
        kit.activate(3).await;
        kit.activate(4).await;
    }
    assert_eq!([kit.roll_back().await, kit.roll_back().await], [3, 4]);
}

pub async fn a_version_that_was_removed_is_gone_and_its_number_with_it(kit: Kit) {
    for digest in ["one", "two", "three"] {
        kit.register(of_bank(digest)).await;
    }
    let said = refused!(kit.remove(3).await, VersionError::Active { version: 3 });
    assert_eq!(said, "version 3 serves what is submitted: activate another version of its kind first, or deactivate this one (rowmill deactivate)");
    kit.remove(2).await.unwrap();
    assert_eq!(kit.versions().await, [1, 3]);
    refused!(kit.store.activate_processor("bank", "post", 2).await, VersionError::Missing { .. });
    assert_eq!(kit.roll_back().await, 1, "not to the one that is gone");
    kit.remove(3).await.unwrap();
    assert_eq!(kit.versions().await, [1]);
    assert_eq!(kit.register(of_bank("four")).await, 4);
    refused!(kit.remove(9).await, VersionError::Missing { .. });
    refused!(kit.store.remove_processor("shop", "post", 1).await, VersionError::Missing { .. });
}

pub async fn a_version_in_use_is_not_removed(kit: Kit) {
    kit.register(of_bank("one")).await;
    kit.register(of_bank("two")).await;
    let in_use = async |kit: &Kit, batches: u32| {
        let said = refused!(kit.remove(1).await, VersionError::InUse { version: 1, .. });
        assert_eq!(said, format!("version 1 is used by {batches} batches or queries that have not ended: wait for them, or abort them"));
    };
    let (waiting, asked) = (held(), query());
    let id = waiting.id;
    kit.store.submit_batch(waiting, rows(1)).await.unwrap();
    kit.store.submit_batch(asked, vec![row(0)]).await.unwrap();
    kit.submit(3).await;
    in_use(&kit, 3).await;
    kit.run_rows().await;
    in_use(&kit, 3).await;
    kit.finish_all().await;
    in_use(&kit, 1).await;
    kit.abort(id).await;
    in_use(&kit, 1).await;
    kit.finish_all().await;
    kit.remove(1).await.unwrap();
    // What has ended is there all the same.
    assert_eq!(kit.batch(id).await.processor_version, 1);
    // Another version's batches are not in the way, nor another operation's.
    let other = NewBatch { op: "other".to_owned(), ..batch() };
    kit.store.submit_batch(other, rows(1)).await.unwrap();
    kit.activate(2).await;
    kit.register(of_bank("three")).await;
    kit.remove(2).await.unwrap();
}

pub async fn nothing_is_submitted_with_a_version_that_was_removed(kit: Kit) {
    kit.register(of_bank("one")).await;
    let before = kit.submit(1).await;
    kit.run_rows().await;
    kit.finish_all().await;
    kit.register(of_bank("two")).await;
    kit.remove(1).await.unwrap();
    let late = batch();
    let id = late.id;
    let said = refused!(kit.store.submit_batch(late, rows(2)).await, VersionError::Removed { version: 1 });
    assert_eq!(said, "version 1 was removed while this was submitted: submit it again");
    super::kit::is_missing(kit.store.read_batch(id).await, id);
    // What is there already is found as ever.
    let again = NewBatch { id: before, ..batch() };
    assert!(matches!(kit.store.submit_batch(again, rows(1)).await, Err(StoreError::Exists(id)) if id == before));
    let two = NewBatch { processor_version: 2, ..batch() };
    kit.store.submit_batch(two, rows(1)).await.unwrap();
}

pub async fn code_goes_with_the_last_version_that_has_it(kit: Kit) {
    kit.register(of_bank("shared")).await;
    kit.register(of_bank("own")).await;
    kit.register(of_bank("shared")).await;
    kit.register(version("shop", "sell", ProcessorKind::Batch, "shared")).await;
    kit.register(of_bank("last")).await;
    assert_eq!(kit.remove(2).await.unwrap(), ["own"]);
    assert_eq!(kit.remove(1).await.unwrap(), [""; 0], "others have it");
    assert_eq!(kit.remove(3).await.unwrap(), [""; 0], "another app has it");
    // Until it is gone nobody registers it: it would be removed under him.
    refused!(kit.store.put_processor(&of_bank("own")).await, VersionError::CodeBeingRemoved);
    assert_eq!(kit.versions().await, [4]);
    kit.store.forget_code("own").await.unwrap();
    assert_eq!(kit.register(of_bank("own")).await, 5);
    kit.register(version("shop", "sell", ProcessorKind::Batch, "else")).await;
    assert_eq!(kit.store.remove_processor("shop", "sell", 1).await.unwrap(), ["shared"]);
}

pub async fn a_removal_that_died_is_taken_over_by_the_next(kit: Kit) {
    for digest in ["one", "two", "three"] {
        kit.register(of_bank(digest)).await;
    }
    assert_eq!(kit.remove(1).await.unwrap(), ["one"]);
    // Nobody says that it is gone.
    kit.pass(REMOVAL_TIME);
    let mut codes = kit.remove(2).await.unwrap();
    codes.sort();
    assert_eq!(codes, ["one", "two"]);
    // Nor now: whoever comes with it is not held up for ever.
    kit.pass(REMOVAL_TIME);
    assert_eq!(kit.register(of_bank("one")).await, 4);
    kit.register(of_bank("five")).await;
    assert_eq!(kit.remove(3).await.unwrap().len(), 2, "that of version 2 and its own, but not the one that is there again");
    // Removed again by one who did not hear that it was.
    assert_eq!(kit.remove(3).await.unwrap(), [""; 0]);
}

pub async fn an_app_keeps_no_more_versions_and_code_than_it_may(kit: Kit) {
    let quota = CodeQuota { versions_max: 3, bytes_max: 3_500 };
    let small = |digest: &str| NewVersion { quota, ..of_bank(digest) };
    for digest in ["one", "two"] {
        kit.register(small(digest)).await;
    }
    let large = NewVersion { size_bytes: 1_501, ..small("large") };
    let said = refused!(kit.store.put_processor(&large).await, VersionError::TooMuchCode { bytes: 3_501, max: 3_500, .. });
    assert!(said.starts_with("app \"bank\" would keep 3501 bytes of code in its versions, and may keep 3500"), "{said}");
    kit.register(NewVersion { size_bytes: 1_500, ..small("large") }).await;
    let said = refused!(
        kit.store.put_processor(&NewVersion { op: "other".to_owned(), ..small("four") }).await,
        VersionError::TooManyVersions { versions: 3, .. }
    );
    assert!(said.starts_with("app \"bank\" keeps 3 versions, as many as it may"), "{said}");
    assert_eq!(kit.register(small("large")).await, 3, "what is there already is no more");
    kit.register(NewVersion { app: "shop".to_owned(), ..small("one") }).await;
    kit.remove(1).await.unwrap();
    assert_eq!(kit.register(small("four")).await, 4);
    assert_eq!(kit.versions().await, [2, 3, 4]);
}

pub async fn versions_are_listed_with_the_batches_that_use_them(kit: Kit) {
    kit.register(NewVersion { note: Some("the first".to_owned()), ..of_bank("one") }).await;
    kit.register(NewVersion { size_bytes: 77, ..not_active("two") }).await;
    kit.register(version("shop", "sell", ProcessorKind::SlowQuery, "one")).await;
    kit.submit(1).await;
    kit.submit(1).await;
    let listed = kit.store.list_processors(Some("bank")).await.unwrap();
    let [one, two] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((one.version.version, one.size_bytes, one.note.as_deref(), one.active, one.batches), (1, 1_000, Some("the first"), true, Some(2)));
    assert_eq!((two.version.version, two.size_bytes, two.note.as_deref(), two.active, two.batches), (2, 77, None, false, Some(0)));
    assert_eq!(one.version.created_at, super::kit::START);
    let all = kit.store.list_processors(None).await.unwrap();
    assert_eq!(all.iter().map(|listed| (listed.active, listed.batches)).collect::<Vec<_>>(), [(true, None), (false, None), (true, None)]);
    assert_eq!(kit.store.list_processors(Some("nobody")).await.unwrap(), []);
}

pub async fn a_note_may_be_any_text(kit: Kit) {
    for (number, note) in ["", "äöü €", "a\0b", "\\u0000 \\N", "line\nline"].into_iter().enumerate() {
        kit.register(NewVersion { note: Some(note.to_owned()), ..not_active(&number.to_string()) }).await;
        let listed = kit.store.list_processors(Some("bank")).await.unwrap();
        assert_eq!(listed.last().unwrap().note.as_deref(), Some(note));
    }
}

pub async fn what_was_found_out_of_date_is_not_submitted(kit: Kit) {
    kit.register(of_bank("one")).await;
    kit.register(of_bank("two")).await;
    let found = async || kit.store.find_op("bank", "post", ProcessorKind::Batch).await.unwrap().unwrap();
    let submit = async |found: &FoundOp| {
        let new = NewBatch { processor_version: found.version.version, as_found: Some(found.stamp.clone()), ..batch() };
        let id = new.id;
        match kit.store.submit_batch(new, rows(1)).await {
            Ok(()) => true,
            Err(StoreError::Version(VersionError::Changed)) => {
                is_missing(kit.store.read_batch(id).await, id);
                false
            }
            Err(error) => panic!("{error}"),
        }
    };
    let terms = |attempts| PartialTerms { attempts_max: Some(attempts), ..PartialTerms::default() };
    let mut before = found().await;
    assert!(submit(&before).await);
    kit.store.set_paused("bank", Some("post"), true).await.unwrap();
    assert!(submit(&before).await, "a pause changes nothing of what is submitted");
    kit.store.activate_processor("bank", "post", 1).await.unwrap();
    for step in 0..4 {
        assert!(!submit(&before).await, "step {step}");
        before = found().await;
        assert!(submit(&before).await, "step {step}");
        match step {
            0 => kit.store.put_policy(&Policy { terms: terms(2), ..Policy::of("bank", None) }).await.unwrap(),
            1 => kit.store.put_policy(&Policy { terms: terms(3), ..Policy::of("bank", Some("post")) }).await.unwrap(),
            _ => assert!(kit.store.remove_policy("bank", None).await.unwrap() == (step == 2)),
        }
        if step == 2 {
            kit.store.rollback_processor("bank", "post", None).await.unwrap();
        }
    }
}
