//! Who follows hears what happens, in order, and goes on where it was.

use futures_util::{StreamExt, TryStreamExt};
use rowmill::jobs::{BatchRequest, EventsFrom, JobError};
use rowmill::model::{BatchEvent, EventKind, EventPosition, EventsOf};

use super::{SOON, Site, on_each_store, refused, row, transaction};

on_each_store! {
    who_follows_a_batch_hears_it_to_its_end
    who_follows_all_goes_on_behind_what_it_heard
    an_app_hears_its_own_events_only
}

const FOLLOW: EventsFrom = EventsFrom { after: EventPosition { transaction: 0, number: 0 }, follow: true };

fn kinds(events: &[BatchEvent]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).filter(|kind| *kind != EventKind::Progress).collect()
}

async fn who_follows_a_batch_hears_it_to_its_end(mut site: Site) {
    let id = site.jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(1), row(2, "{}")]).held()).await.unwrap();
    let there: Vec<BatchEvent> = site.jobs.events(EventsOf::Batch(id), EventsFrom::default()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(kinds(&there), [EventKind::Submitted]);
    let jobs = site.jobs.clone();
    let following = tokio::spawn(async move { jobs.events(EventsOf::Batch(id), FOLLOW).await.unwrap().try_collect::<Vec<_>>().await.unwrap() });
    site.begin_work();
    site.jobs.release(id).await.unwrap();
    let heard = tokio::time::timeout(SOON, following).await.unwrap().unwrap();
    let wanted = [EventKind::Submitted, EventKind::Released, EventKind::Started, EventKind::RowFailed, EventKind::Finished, EventKind::Summarised];
    assert_eq!(kinds(&heard), wanted);
    let failure = heard.iter().find(|event| event.kind == EventKind::RowFailed).unwrap();
    assert_eq!((failure.line, failure.failures), (Some(2), Some(1)));
    assert!(!failure.messages.is_empty());
    assert!(heard.iter().map(|event| event.seq).eq(1..=u32::try_from(heard.len()).unwrap()));
    site.end_work().await;
}

async fn who_follows_all_goes_on_behind_what_it_heard(mut site: Site) {
    site.begin_work();
    let mut heard: Vec<BatchEvent> = Vec::new();
    for _ in 0..2 {
        let id = site.submit("validate", vec![transaction(1)]).await;
        let after = heard.last().map_or(EventPosition::default(), |event| event.position);
        let mut events = site.jobs.events(EventsOf::All, EventsFrom { after, follow: true }).await.unwrap();
        // As one who stops with the end of a batch, and begins anew.
        loop {
            let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap();
            let last = event.batch == id && event.kind == EventKind::Summarised;
            heard.push(event);
            if last {
                break;
            }
        }
    }
    let wanted = [EventKind::Submitted, EventKind::Started, EventKind::Finished, EventKind::Summarised];
    assert_eq!(kinds(&heard), [wanted, wanted].concat());
    site.end_work().await;
}

async fn an_app_hears_its_own_events_only(site: Site) {
    let bank = site.jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)])).await.unwrap();
    let shop = site.jobs.restricted_to("shop");
    refused!(shop.events(EventsOf::Batch(bank), FOLLOW).await, JobError::NoBatch { .. });
    refused!(shop.events(EventsOf::App("bank".to_owned()), FOLLOW).await, JobError::OtherApp { .. });
    let heard: Vec<BatchEvent> = shop.events(EventsOf::All, EventsFrom::default()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(heard, []);
    let mut own = site.jobs.restricted_to("bank").events(EventsOf::All, FOLLOW).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, own.next()).await.unwrap().unwrap().unwrap().batch, bank);
}
