//! When the next claim may find something.

use std::time::Duration;

use rowmill::model::{BatchStep, ClaimRequest};

use super::build::{MILLISECOND, SECOND, TTL, request, retry, success};
use super::kit::Kit;

async fn due(kit: &Kit) -> Option<Duration> {
    kit.store.next_due(None).await.unwrap()
}

pub async fn nothing_is_due_when_nothing_is_leased_or_retried(kit: Kit) {
    assert_eq!(due(&kit).await, None);
    kit.hold(1).await;
    assert_eq!(due(&kit).await, None);
    let id = kit.submit(1).await;
    kit.abort(id).await;
    kit.finish_all().await;
    assert_eq!(due(&kit).await, None);
}

pub async fn a_lease_is_due_when_it_ends(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    assert_eq!(due(&kit).await, Some(TTL));
    kit.pass(SECOND);
    assert_eq!(due(&kit).await, Some(TTL - SECOND));
    kit.store.renew_leases(&[lease.key], TTL).await.unwrap();
    assert_eq!(due(&kit).await, Some(TTL));
    kit.pass(TTL * 2);
    assert_eq!(due(&kit).await, Some(Duration::ZERO));
    let lease = kit.claim_rows(1).await;
    kit.store.give_back_lease(lease.key).await.unwrap();
    assert_eq!(due(&kit).await, Some(Duration::ZERO));
}

pub async fn a_retry_is_due_at_its_time(kit: Kit) {
    kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    kit.record_each(&lease, |row| retry(row, SECOND * row.row_no)).await;
    assert_eq!(due(&kit).await, Some(SECOND));
    kit.pass(MILLISECOND);
    assert_eq!(due(&kit).await, Some(SECOND - MILLISECOND));
    kit.pass(SECOND);
    assert_eq!(due(&kit).await, Some(Duration::ZERO));
    // While it runs its lease counts, and the other retry.
    kit.claim_rows(1).await;
    assert_eq!(due(&kit).await, Some(SECOND - MILLISECOND));
    kit.pass(SECOND);
    kit.claim_rows(1).await;
    assert_eq!(due(&kit).await, Some(TTL - SECOND));
}

pub async fn a_batch_to_be_finished_is_due_at_once_or_when_its_lease_ends(kit: Kit) {
    kit.submit(1).await;
    kit.run_rows().await;
    for step in [BatchStep::Join, BatchStep::Mark] {
        assert_eq!(due(&kit).await, Some(Duration::ZERO));
        let given_back = kit.claim_finish().await;
        assert_eq!((given_back.step, due(&kit).await), (step, Some(TTL)));
        kit.store.give_back_finish(&given_back, Duration::ZERO).await.unwrap();
        assert_eq!(due(&kit).await, Some(Duration::ZERO));
        let lease = kit.claim_finish().await;
        kit.pass(SECOND);
        assert_eq!(due(&kit).await, Some(TTL - SECOND));
        match step {
            BatchStep::Join => kit.store.record_files(&lease, &[]).await.unwrap(),
            _ => kit.store.record_mark_done(&lease, None).await.unwrap(),
        }
    }
    assert_eq!(due(&kit).await, None);
}

pub async fn the_first_of_many_is_due(kit: Kit) {
    kit.submit(4).await;
    for seconds in [40, 10, 20] {
        kit.claim(&ClaimRequest { rows_max: 1, ttl: SECOND * seconds, ..request() }).await;
    }
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| retry(row, SECOND * 15)).await;
    for seconds in [10, 5, 5, 20] {
        let wait = due(&kit).await.unwrap();
        assert_eq!(wait, SECOND * seconds);
        kit.pass(wait - MILLISECOND);
        kit.claim_nothing().await;
        kit.pass(MILLISECOND);
        let lease = kit.claim_rows(1).await;
        kit.record_each(&lease, success).await;
    }
}

pub async fn what_an_abort_removes_is_not_due(kit: Kit) {
    let id = kit.submit(3).await;
    kit.claim_rows(1).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| retry(row, SECOND)).await;
    let lease = kit.claim_rows(1).await;
    kit.store.give_back_lease(lease.key).await.unwrap();
    kit.abort(id).await;
    kit.finish_all().await;
    assert_eq!(due(&kit).await, None);
}
