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
    pub(crate) fn new(number: u32, of: u32) -> Self {
        debug_assert!(number < of, "slots count from 0");
        Self { number, of }
    }

    /// Whether the stream is in this slot.
    pub(crate) fn holds(self, stream: &StreamId) -> bool {
        self.of == 1 || slot_of(stream, self.of) == self.number
    }
}

/// In which of `slots` slots the stream is, from 0: see [`StreamProjection::slots`](crate::StreamProjection::slots). Beside
/// [`SlotStatus`](crate::SlotStatus) it says whether this process has the row of a stream in its hands.
///
/// ```
/// use annals_eventstore::{StreamId, Tenant};
///
/// let order = StreamId::new(Tenant::default(), "order", "o-17")?;
/// assert!(annals_projections::slot_of(&order, 4) < 4);
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[must_use]
pub fn slot_of(stream: &StreamId, slots: u32) -> u32 {
    let slot = (u128::from(hash(stream)) * u128::from(slots)) >> 64;
    u32::try_from(slot).expect("it is below the number of slots")
}

/// The hash of a stream's name: FNV-1a of 64 bits over the UTF-8 bytes of tenant, aggregate type and aggregate id, with a byte 0
/// behind each of the first two, which no part can hold; then the finalizer of MurmurHash3, as the last bytes do not reach
/// the high bits of FNV-1a, and these choose the slot.
pub(crate) fn hash(stream: &StreamId) -> u64 {
    let parts = [stream.tenant().as_str(), "\0", stream.aggregate_type(), "\0", stream.aggregate_id()];
    let mut hash = parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
