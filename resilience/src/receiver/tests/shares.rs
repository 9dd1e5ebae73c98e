//! Room for keys, of which each caller and each group of callers has a share.

use super::*;

fn of(group: &str, caller: &str, key: &str) -> RecordId {
    RecordId { caller: Caller::new(caller).of_group(group), key: IdempotencyKey::new(key).unwrap() }
}

async fn claim(records: &MemoryRecords, id: &RecordId) -> Result<Found<MemoryClaim>, RecordsError> {
    records.claim(id, &print()).await
}

async fn store(records: &MemoryRecords, id: &RecordId) {
    let Ok(Found::New(claim)) = claim(records, id).await else { panic!("{id:?} is not new") };
    claim.keep(answer(1)).await.unwrap();
}

/// Ten callers of one tenant filled the memory of all, after which no tenant could write for a day.
#[tokio::test(start_paused = true)]
async fn callers_of_one_group_leave_room_for_others_and_are_told_when_there_is_room_again() {
    let settings = MemorySettings {
        retention: Duration::from_secs(100),
        keys: 5,
        keys_of_a_group: 3,
        keys_of_a_caller: 2,
        ..MemorySettings::default()
    };
    let records = MemoryRecords::new(settings).unwrap();
    let refused = async |id: &RecordId| match claim(&records, id).await {
        Err(error @ RecordsError::Full { share, free_in }) => (share, free_in, error.to_string()),
        found => panic!("{found:?}"),
    };
    let text = |whose: &str| format!("no room for another idempotency key{whose}");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (group, caller, key) in [("a", "ann", "k1"), ("a", "ann", "k2"), ("a", "bob", "k1")] {
        store(&records, &of(group, caller, key)).await;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(refused(&of("a", "ann", "k3")).await, (Share::Caller, seconds(70), text(" of this caller")));
    assert_eq!(refused(&of("a", "bob", "k2")).await, (Share::Group, seconds(70), text(" of this caller's group")));
    // A caller of the same name in another group is another one.
    store(&records, &of("b", "ann", "k1")).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let running = claim(&records, &of("b", "bob", "k1")).await.unwrap();
    assert_eq!(refused(&of("c", "eve", "k1")).await, (Share::All, seconds(60), text("")));
    assert_eq!(refused(&id("k1")).await.0, Share::All, "one of no group");
    // Room that is given back is there for the group again: of a claim that was dropped, and of answers that have expired.
    drop(running);
    store(&records, &of("b", "bob", "k1")).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    store(&records, &of("a", "bob", "k2")).await;
    assert_eq!(refused(&of("a", "cem", "k1")).await.0, Share::Group);
    assert_eq!(records.keys(), 5);
    // While all are in flight nobody knows.
    let settings = MemorySettings { keys_of_a_group: 1, ..MemorySettings::default() };
    let records = MemoryRecords::new(settings).unwrap();
    let running = claim(&records, &of("a", "ann", "k1")).await.unwrap();
    let full = claim(&records, &of("a", "bob", "k1")).await;
    assert!(matches!(full, Err(RecordsError::Full { share: Share::Group, free_in: None })), "{full:?}");
    drop(running);
}

#[tokio::test]
async fn who_finds_no_room_is_asked_to_come_back_when_there_is_some() {
    for (retention, wait) in [(3_600, 3_590..=3_600), (1, 2..=2)] {
        let memory = MemorySettings { retention: Duration::from_secs(retention), keys: 1, ..MemorySettings::default() };
        let settings = ReceiverSettings { retry_after: Duration::from_secs(2), ..ReceiverSettings::default() };
        let shop = Shop::with(settings, memory).await;
        assert_eq!(shop.send("POST /orders", "ann", "k1", "X").await.status, 201);
        let refused = shop.send("POST /orders", "ann", "k2", "X").await;
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(refused.status == 503 && wait.contains(&seconds), "{refused:?}");
    }
}

/// A refusal was repeated for a day by the process that had made it, also after another process had done what was asked.
#[tokio::test]
async fn refusals_are_decided_anew_and_take_no_room_where_they_are_not_kept() {
    let settings = ReceiverSettings { keep_refusals: false, ..ReceiverSettings::default() };
    let shop = Shop::with(settings, MemorySettings { keys: 1, ..MemorySettings::default() }).await;
    for (run, status) in (1..).zip([409, 409, 404, 422]) {
        let refused = shop.send(&format!("POST /status/{status}"), "ann", "k1", "X").await;
        assert_eq!((refused.status, refused.body.as_str()), (status, &*format!("run {run}")));
        assert_eq!(refused.header("idempotent-replayed"), None);
    }
    assert_eq!(shop.records.keys(), 0);
    for replayed in [None, Some("true")] {
        let done = shop.send("POST /status/201", "ann", "k1", "X").await;
        assert_eq!((done.status, done.header("idempotent-replayed")), (201, replayed));
    }
    assert_eq!(shop.send("POST /status/409", "ann", "k1", "X").await.status, 422, "what was done keeps its key");
}
