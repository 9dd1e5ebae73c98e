//! Which slot a stream is in: for ever the same, and every slot has its share.

use annals_eventstore::{StreamId, Tenant};

use crate::slot::{hash, slot_of};

fn stream(tenant: &str, aggregate_type: &str, aggregate_id: &str) -> StreamId {
    StreamId::new(Tenant::new(tenant).unwrap(), aggregate_type, aggregate_id).unwrap()
}

/// Another hash would move streams to slots whose checkpoints are elsewhere: events would be lost, or applied twice.
#[test]
fn the_hash_of_a_stream_never_changes() {
    let streams = [
        ("default", "order", "o-1"),
        ("default", "order", "o-2"),
        ("default", "ordero", "-2"),
        ("north", "order", "o-1"),
        ("nörd", "Bestellung", "Ä/1 ☂"),
        ("a", "b", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ];
    let vectors: Vec<String> = streams
        .iter()
        .map(|(tenant, aggregate_type, id)| {
            let stream = stream(tenant, aggregate_type, id);
            let slots: Vec<u32> = [2, 3, 16, 64].map(|slots| slot_of(&stream, slots)).into();
            format!("{stream}: {:016x}, slots of 2, 3, 16 and 64: {slots:?}", hash(&stream))
        })
        .collect();
    insta::assert_snapshot!("slots", vectors.join("\n"));
}

#[test]
fn streams_with_ids_in_sequence_are_spread_over_all_slots() {
    for slots in [2, 3, 4, 16, 64] {
        let mut streams = vec![0_u32; slots as usize];
        for id in 0..slots * 100 {
            streams[slot_of(&stream("default", "order", &format!("o-{id}")), slots) as usize] += 1;
        }
        assert!(streams.iter().all(|count| (60..140).contains(count)), "{slots}: {streams:?}");
    }
}
