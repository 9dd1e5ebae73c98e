//! The derives of annals: [`Event`](macro@Event), [`Aggregate`](macro@Aggregate) and [`ReadModel`](macro@ReadModel).
//!
//! A derive reads the type it stands on, checks it against rules that each have a reason, and reports every mistake at
//! once, at the word that is wrong and with what to write instead.
//!
//! The derived code finds annals by the name that your Cargo.toml gives it: the crate `annals`, or one of its parts if
//! that is all you depend on. Where that is not enough, because annals is re-exported by another crate say, name it:
//! `#[event(crate = path::to::annals)]`, and likewise `#[aggregate(crate = ..)]` and `#[read_model(crate = ..)]`.

mod ast;
mod attr;
mod derive;
mod expand;
mod fallback;
mod mistakes;
mod root;
mod serde_words;
mod validate;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Gives facts their stored names, so that Rust code can be renamed while stored events stay readable.
///
/// It stands on an enum whose variants are events, or on a struct that is one event, beside serde's derives:
///
/// ```
/// # mod annals { pub use annals_eventstore::*; pub use annals_macros::Event; }
/// use annals::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// enum OrderEvent {
///     #[event(name = "order.placed", version = 2)]
///     Placed { customer: String, items: Vec<String> },
///     #[event(name = "order.paid")]
///     Paid(u64),
///     #[event(name = "order.closed")]
///     Closed,
/// }
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "stock.counted")]
/// struct StockCounted {
///     amount: u32,
/// }
///
/// let paid = OrderEvent::Paid(995);
/// assert_eq!(paid.shape().name, "order.paid");
/// assert_eq!(paid.encode()?.as_str(), "995");
/// assert_eq!(OrderEvent::decode("order.paid", 1, &paid.encode()?)?, paid);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Words
/// On each variant, or on the struct:
/// - `name = "order.placed"`, always: what is stored as the event's type. 1 to 200 bytes without control characters, not
///   beginning with `$` or `__`, different for each variant. Choose it once; it is never made from the Rust name.
/// - `version = 2`: the schema version of the payload, from 1, which is the default. It tells payloads of one shape
///   from those of another. Events that are stored in another version than this cannot be read: there are no upcasters
///   yet. So while events are kept, leave it as it is; give a new field `#[serde(default)]`, or begin a new name.
///
/// On every variant of an enum that only wraps other event types: `transparent`. It has one unnamed field, the event type;
/// names, schema versions and payloads are those of the wrapped type, and serde's derives are not needed. So a projection, or
/// another reader of several kinds of aggregates, names an enum of two lines. A stored name that is reached twice does not
/// compile.
///
/// ```
/// # mod annals { pub use annals_eventstore::*; pub use annals_macros::Event; }
/// # use annals::Event;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum OrderEvent {
/// #     #[event(name = "order.paid")]
/// #     Paid(u64),
/// # }
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # #[event(name = "stock.counted")]
/// # struct StockCounted { amount: u32 }
/// #[derive(Event, Debug, PartialEq)]
/// enum ShopEvent {
///     #[event(transparent)]
///     Order(OrderEvent),
///     #[event(transparent)]
///     Stock(StockCounted),
/// }
///
/// let paid = OrderEvent::Paid(995).encode()?;
/// assert_eq!(ShopEvent::decode("order.paid", 1, &paid)?, ShopEvent::Order(OrderEvent::Paid(995)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// On the enum or the struct: `crate = path::to::annals`, see the crate's own page.
///
/// # What is stored
/// The payload is the content of the variant alone, as serde writes it: an object for named fields, an array for a tuple,
/// the value itself for one unnamed field. serde's attributes on fields work as usual. The variant is picked by its
/// stored name, so the names of the enum and its variants are free to change, and so is `#[serde(rename)]` on a variant;
/// the names of fields are stored.
///
/// # Refused
/// - `#[serde(tag, content, untagged)]` on the enum, which would write the Rust name into the content or leave out what
///   tells variants apart, and `#[serde(from, try_from, into, remote, transparent)]`, with which serde no longer writes
///   this enum but something else;
/// - `#[serde(tag)]` on a struct, for the same reason;
/// - `#[serde(skip, skip_serializing, skip_deserializing, other, untagged)]` on a variant: what can be stored must be
///   readable for ever, and an unknown event is an error that names it;
/// - generic types, unions, and enums without variants.
///
/// # When it is read
/// A stored name or schema version that this build does not know is an error that says which are known, never a
/// default and never skipped.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    derive::event(&parse_macro_input!(input as DeriveInput)).into()
}

/// Says what kind of thing a state belongs to: its stored name, its id, its events, and when snapshots are taken.
///
/// It stands on a struct or an enum with `Default`, the state before the first event, and `Clone`. How events change
/// the state is yours to write, as `Evolve`:
///
/// ```
/// # mod annals { pub use annals_eventstore::*; pub use annals_macros::{Aggregate, Event}; }
/// use annals::{Aggregate, Event, Evolve, SnapshotPolicy};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum OrderEvent {
///     #[event(name = "order.placed")]
///     Placed { items: u32 },
///     #[event(name = "order.closed")]
///     Closed,
/// }
///
/// #[derive(Aggregate, Default, Clone)]
/// #[aggregate(name = "order", id = u64, event = OrderEvent, snapshot(every = 100))]
/// struct Order {
///     items: u32,
///     closed: bool,
/// }
///
/// impl Evolve for Order {
///     fn evolve(&mut self, event: &OrderEvent) {
///         match event {
///             OrderEvent::Placed { items } => self.items += items,
///             OrderEvent::Closed => self.closed = true,
///         }
///     }
/// }
///
/// assert_eq!(Order::TYPE, "order");
/// assert_eq!(Order::SNAPSHOT, SnapshotPolicy::Every(100));
///
/// let mut order = Order::default();
/// order.evolve(&OrderEvent::Placed { items: 2 });
/// order.evolve(&OrderEvent::Closed);
/// assert!(order.items == 2 && order.closed);
/// ```
///
/// # Words
/// - `name = "order"`, always: the stored name of the kind, under the same rule as the names of events. Choose it once.
/// - `id = OrderId`, always: the type of what names one aggregate. It needs `Display`, whose text is stored, under the
///   same rule; `text_id!` makes such types.
/// - `event = OrderEvent`, always: the type of its events, with `#[derive(Event)]` and `Clone`.
/// - `snapshot(every = 100)`: keep the state after every so many events of a stream, from 1; or `snapshot(never)`, the
///   default. Snapshots are not taken yet, so this says only what is wanted.
/// - `fold = 2`: the number of the fold, from 1, which is the default. Raise it whenever `evolve` gives another state for
///   the same events; it is for snapshots of the old fold to be passed over.
/// - `crate = path::to::annals`, see the crate's own page.
///
/// # Refused
/// Generic types and unions.
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    derive::aggregate(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct the row of a table that a projection fills, on every database.
///
/// It stands on a struct with named fields and `Clone`; each field is a column.
///
/// ```
/// # mod annals {
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mirror.rs"));
/// #     pub(crate) use annals_macros::ReadModel;
/// # }
/// # type OrderId = i64;
/// # type Timestamp = i64;
/// use annals::ReadModel;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Clone)]
/// enum Status {
///     Open,
///     Shipped,
/// }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "order_list", key = "order_id", index = "status", index("customer", "placed_at"))]
/// # #[read_model(crate = annals)]
/// struct OrderRow {
///     order_id: OrderId,
///     customer: String,
///     #[column(text)]
///     status: Status,
///     placed_at: Timestamp,
///     shipped_at: Option<Timestamp>,
///     #[column(json)]
///     items: Vec<String>,
///     #[column(name = "total_cents")]
///     total: i64,
/// }
///
/// assert_eq!(OrderRow::TABLE.key, ["order_id"]);
/// assert_eq!(OrderRow::TABLE.columns[6].name, "total_cents");
/// assert!(OrderRow::TABLE.columns[4].nullable);
/// # let _ = (Status::Open, Status::Shipped);
/// ```
///
/// # Words on the struct
/// - `table = "order_list"`, always: the name under which the table is queried.
/// - `key = "order_id"`, or `key("customer", "day")` for up to six columns, always: what names a row. The key's type in
///   code is the type of its column, or a tuple of their types in this order. Key columns are never null and implement
///   `Column` themselves.
/// - `index = "status"`, or `index("customer", "placed_at")`: a further index; as many as queries need, for each costs
///   every write.
/// - `crate = path::to::annals`, see the crate's own page.
///
/// # Words on a field
/// - `#[column(name = "total_cents")]`: the name of the column, else it is the field's.
/// - `#[column(text)]`: for a type that serde writes as a string, such as an enum without content; the column holds the
///   bare text.
/// - `#[column(json)]`: for anything that serde can write; the column holds JSON, under the rules of event payloads.
///
/// What serde writes as null in either of them, such as `None`, is null in the column, which an `Option` allows.
///
/// Without `text` or `json` the field's type must implement `Column`, as integers, `bool`, `f64`, `String`, timestamps,
/// UUIDs and bytes do, and an `Option` of each, which may be null.
///
/// # Refused
/// - names of tables and columns that are not made of lower-case letters, digits and `_`, a letter first, at most 48
///   characters, or that begin with `annals_`, `sqlite_` or `pg_`: SQL is built from them;
/// - keys and indexes of columns that do not exist, and an index of what is indexed already;
/// - a key column that may be null, or has `text` or `json`: implement `Column` for its type, by `text_column!` say;
/// - more than 100 columns, or none; enums, unions, tuple structs and generic types.
#[proc_macro_derive(ReadModel, attributes(read_model, column))]
pub fn read_model(input: TokenStream) -> TokenStream {
    derive::read_model(&parse_macro_input!(input as DeriveInput)).into()
}
