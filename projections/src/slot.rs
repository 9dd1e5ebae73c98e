//! Slots: shares of all streams, so that several owners can fold one stream projection side by side.

use annals_eventstore::StreamId;

/// One of `of` shares of all streams. A stream is in exactly one of them, for ever.
///
/// The streams are shared by ranges of a hash of their names: [`hash`] of all streams is spread over 64 bits, and slot `n` of `of`
/// has those whose hash times `of`, divided by 2^64, is `n`. Stored checkpoints of slots rely on that; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Which one, from 0.
    number: u32,
    /// How many there are.
    of: u32,
}

impl Slot {
    /// All streams.
    pub(crate) const WHOLE: Self = Self { number: 0, of: 1 };

    /// Slot `number` of `of`, which is greater.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn new(number: u32, of: u32) -> Self {
        debug_assert!(number < of, "slots count from 0");
        Self { number, of }
    }

    /// Whether the stream is in this slot.
    pub(crate) fn holds(self, stream: &StreamId) -> bool {
        self.of == 1 || slot_of(stream, self.of) == self.number
    }
}

/// In which of `slots` slots the stream is.
pub(crate) fn slot_of(stream: &StreamId, slots: u32) -> u32 {
    let slot = (u128::from(hash(stream)) * u128::from(slots)) >> 64;
    u32::try_from(slot).expect("it is below the number of slots")
}

/// The hash of a stream's name: FNV-1a of 64 bits over the UTF-8 bytes of tenant, aggregate type and aggregate id, with a byte 0
/// behind each of the first two, which no part can hold; then the finalizer of MurmurHash3, as the last bytes do not reach
/// the high bits of FNV-1a, and these choose the slot.
fn hash(stream: &StreamId) -> u64 {
    let parts = [stream.tenant().as_str(), "\0", stream.aggregate_type(), "\0", stream.aggregate_id()];
    let mut hash = parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use annals_eventstore::{StreamId, Tenant};

    use super::{hash, slot_of};

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
}
