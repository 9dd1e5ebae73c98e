//! Saved states: found as they were saved, or not at all.

use std::sync::Arc;

use super::case::{Case, tenant, version};
use crate::error::ReadError;
use crate::payload::Payload;
use crate::position::Position;
use crate::snapshot::{Snapshot, SnapshotStore, StoredSnapshot};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// The store's snapshots; `None` if it has no place for them, as it declares.
fn of(case: &Case) -> Option<&dyn SnapshotStore> {
    let snapshots = case.store.snapshots();
    assert_eq!(snapshots.is_some(), case.has_snapshots(), "it has snapshots, or not, other than it declares");
    snapshots
}

/// A snapshot of the stream's state at a version that it has.
async fn at(case: &Case, stream: &StreamId, key: &str, at: i64, body: &str) -> Snapshot {
    let event = case.load(stream).await.into_iter().find(|event| event.version.get() == at).unwrap();
    Snapshot::new(stream.clone(), key.into(), event.version, event.event_id, Payload::from_json(body).unwrap())
}

async fn latest(snapshots: &dyn SnapshotStore, stream: &StreamId, key: &str, below: i64) -> Option<StoredSnapshot> {
    snapshots.load_snapshot(stream, key, StreamVersion::new(below).unwrap()).await.unwrap()
}

fn in_log(snapshot: &Snapshot) -> Option<StoredSnapshot> {
    Some(StoredSnapshot { snapshot: snapshot.clone(), is_in_log: true })
}

pub(super) async fn a_saved_snapshot_is_found_at_its_version_and_above(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 7).await;
    let stream = case.stream("a");
    let body = r#"{"b": [1.50, "\u0001\"é𝄞", null], "aa": {"": true}}"#;
    let (second, fifth) = (at(&case, &stream, "1.k", 2, body).await, at(&case, &stream, "1.k", 5, "7").await);
    snapshots.save_snapshots(&[fifth.clone(), second.clone()]).await.unwrap();
    for (below, expected) in [(0, None), (1, None), (2, in_log(&second)), (4, in_log(&second)), (5, in_log(&fifth))] {
        assert_eq!(latest(snapshots, &stream, "1.k", below).await, expected, "{below}");
    }
    let found = latest(snapshots, &stream, "1.k", i64::MAX).await;
    assert_eq!(found, in_log(&fifth));
    assert!(
        found.unwrap().snapshot.is_intact() && latest(snapshots, &stream, "1.k", 3).await.unwrap().snapshot.is_intact()
    );
}

pub(super) async fn a_snapshot_as_of_a_position_is_of_an_event_up_to_there(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    for _ in 0..3 {
        case.append("other", ExpectedVersion::Any, 2).await;
        case.append("a", ExpectedVersion::Any, 2).await;
    }
    let stream = case.stream("a");
    let (second, fifth) = (at(&case, &stream, "1.k", 2, "2").await, at(&case, &stream, "1.k", 5, "5").await);
    let of_other_key = at(&case, &stream, "2.k", 3, "3").await;
    let of_other_stream = at(&case, &case.stream("other"), "1.k", 1, "1").await;
    snapshots.save_snapshots(&[fifth.clone(), second.clone(), of_other_key, of_other_stream]).await.unwrap();
    let positions: Vec<i64> = case.load(&stream).await.iter().map(|event| event.position.get()).collect();
    for position in 0..=positions[5] + 2 {
        let expected = match position {
            before if before < positions[1] => None,
            before if before < positions[4] => in_log(&second),
            _ => in_log(&fifth),
        };
        let found = snapshots.load_snapshot_as_of(&stream, "1.k", Position::new(position).unwrap()).await.unwrap();
        assert_eq!(found, expected, "position {position}");
    }
}

pub(super) async fn a_snapshot_of_an_event_that_the_log_does_not_have_is_not_saved(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 3).await;
    case.append("b", ExpectedVersion::Any, 3).await;
    let (stream, other) = (case.stream("a"), case.stream("b"));
    let sound = at(&case, &stream, "1.k", 2, "1").await;
    let of_other = at(&case, &other, "1.k", 2, "1").await.event_id;
    let wrong = [
        Snapshot { version: version(3), ..sound.clone() },
        Snapshot { version: version(4), ..sound.clone() },
        Snapshot { event_id: case.id(), ..sound.clone() },
        Snapshot { event_id: of_other, ..sound.clone() },
        Snapshot { stream: other.clone(), ..sound.clone() },
        Snapshot { stream: StreamId::new(tenant("t"), "order", "a").unwrap(), ..sound },
    ];
    snapshots.save_snapshots(&wrong).await.unwrap();
    for stream in [&stream, &other] {
        assert_eq!(latest(snapshots, stream, "1.k", i64::MAX).await, None);
    }
}

pub(super) async fn snapshots_of_other_keys_streams_and_tenants_are_kept_apart(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    let streams = [("default", "order", "a"), ("default", "order", "b"), ("default", "bill", "a"), ("t", "order", "a")];
    let streams = streams.map(|(owner, kind, id)| StreamId::new(tenant(owner), kind, id).unwrap());
    assert_eq!(*streams[0].tenant(), Tenant::default());
    let mut saved = Vec::new();
    for stream in &streams {
        case.append_named(stream, "n").await;
        for key in ["1.k", "2.k"] {
            saved.push(at(&case, stream, key, 1, &saved.len().to_string()).await);
        }
    }
    snapshots.save_snapshots(&saved).await.unwrap();
    for snapshot in &saved {
        assert_eq!(latest(snapshots, &snapshot.stream, &snapshot.key, 1).await, in_log(snapshot));
    }
    assert_eq!(latest(snapshots, &streams[0], "1", 1).await, None);
    snapshots.delete_snapshots(&streams[0]).await.unwrap();
    for snapshot in &saved {
        let expected = if snapshot.stream == streams[0] { None } else { in_log(snapshot) };
        assert_eq!(latest(snapshots, &snapshot.stream, &snapshot.key, 1).await, expected);
    }
}

pub(super) async fn a_snapshot_saved_again_replaces_the_first(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 2).await;
    let stream = case.stream("a");
    let (first, second) = (at(&case, &stream, "1.k", 2, "1").await, at(&case, &stream, "1.k", 2, "2").await);
    snapshots.save_snapshots(&[first]).await.unwrap();
    snapshots.save_snapshots(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(latest(snapshots, &stream, "1.k", 2).await, in_log(&second));
    assert_eq!(latest(snapshots, &stream, "1.k", 1).await, None);
}

pub(super) async fn snapshots_of_a_stream_are_bounded_and_the_latest_of_each_key_stays(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 40).await;
    let stream = case.stream("a");
    for key in ["1.k", "2.k"] {
        for n in 1..=40 {
            let snapshot = at(&case, &stream, key, n, "1").await;
            snapshots.save_snapshots(std::slice::from_ref(&snapshot)).await.unwrap();
            assert_eq!(latest(snapshots, &stream, key, i64::MAX).await, in_log(&snapshot));
        }
    }
    for key in ["1.k", "2.k"] {
        let (mut kept, mut below) = (Vec::new(), i64::MAX);
        while let Some(next) = latest(snapshots, &stream, key, below).await {
            below = next.snapshot.version.get() - 1;
            kept.push(below + 1);
        }
        assert!(kept[0] == 40 && (2..20).contains(&kept.len()) && kept[kept.len() - 1] < 39, "{key}: {kept:?}");
    }
}

/// They are a cache beside the log.
pub(super) async fn nothing_of_the_log_changes_with_snapshots(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 2).await;
    let before = case.everything().await;
    snapshots.save_snapshots(&[at(&case, &case.stream("a"), "1.k", 2, "1").await]).await.unwrap();
    snapshots.save_snapshots(&[]).await.unwrap();
    snapshots.delete_snapshots(&case.stream("never")).await.unwrap();
    assert_eq!(case.everything().await, before);
}

pub(super) async fn snapshots_are_there_again_for_another_handle(case: Case) {
    let Some(snapshots) = of(&case) else { return };
    case.append("a", ExpectedVersion::Any, 2).await;
    let (stream, key): (_, Arc<str>) = (case.stream("a"), "1.k".into());
    let snapshot = at(&case, &stream, &key, 2, "1").await;
    snapshots.save_snapshots(std::slice::from_ref(&snapshot)).await.unwrap();
    let Some(again) = case.reopened().await else { return };
    assert_eq!(latest(of(&again).unwrap(), &stream, &key, 2).await, in_log(&snapshot));
    let closed = case.store.load_page(&stream, StreamVersion::NONE, 1).await;
    assert!(matches!(closed, Err(ReadError::Closed)));
    assert!(snapshots.load_snapshot(&stream, &key, version(2)).await.is_err(), "the handle is closed");
}
