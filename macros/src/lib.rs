//! The derives of annals: [`Event`](macro@Event), [`Aggregate`](macro@Aggregate) and [`ReadModel`](macro@ReadModel).
//!
//! A derive checks the type that it is on, and reports every mistake at once, each at the wrong word and with the correction.
//!
//! The derived code uses the name that your Cargo.toml gives annals: the crate `annals`, or one of its parts if you depend
//! only on that. If this is not enough, for example because another crate re-exports annals, name the path:
//! `#[event(crate = path::to::annals)]`, and likewise `#[aggregate(crate = ..)]` and `#[read_model(crate = ..)]`.

mod ast;
mod attr;
mod derive;
mod expand;
mod fallback;
mod lints;
mod mistakes;
mod root;
mod serde_words;
mod validate;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Gives facts their stored names, so that Rust code can be renamed while stored events stay readable.
///
/// For an enum whose variants are events, or a struct that is one event, together with serde's derives:
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
/// - `name = "order.placed"`, required: the stored event name. 1 to 200 bytes without control characters, not beginning
///   with `$` or `__`, different for each variant. Never change it; it is not derived from the Rust name.
/// - `version = 2`: the schema version of the payload, from 1, which is the default. It distinguishes payloads of
///   different shapes. Raise it when the shape changes, with a step from each older version:
/// - `upcast(PlacedV1, PlacedV2)`: the types of the versions before `version`, the oldest first; one for each. A stored payload
///   is read as the type of its version and converted to the next one, by `From` or `TryFrom`, and at last to the field of a variant
///   with a single unnamed field, otherwise to the enum or struct itself.
///
/// On the enum or the struct: `upcasters = STEPS`, a const list of `JsonUpcaster`s, for events that were renamed, split or dropped.
/// With it, `upcast` may leave out the oldest versions if steps of the list begin there. `Event::READS` has every name and version
/// that is read; a chain of steps with a hole or without an end does not compile.
///
/// ```
/// # mod annals { pub use annals_eventstore::*; pub use annals_macros::Event; }
/// use annals::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct PlacedV1 {
///     item: String,
/// }
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// enum OrderEvent {
///     #[event(name = "order.placed", version = 2, upcast(PlacedV1))]
///     Placed { items: Vec<String> },
/// }
///
/// impl From<PlacedV1> for OrderEvent {
///     fn from(old: PlacedV1) -> Self {
///         Self::Placed { items: vec![old.item] }
///     }
/// }
///
/// let stored = annals::Payload::from_json(r#"{"item": "cup"}"#)?;
/// let read = OrderEvent::read("order.placed", 1, &stored)?;
/// assert_eq!(read.as_slice(), [OrderEvent::Placed { items: vec!["cup".into()] }]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// On every variant of an enum that only wraps other event types: `transparent`. It has one unnamed field, the event type;
/// names, schema versions, steps and payloads are those of the wrapped type, and serde's derives are not needed. With such an enum a
/// projection, or another reader, reads several aggregate types. If two variants have the same stored name, the enum does not
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
/// On the enum or the struct: `of = "order"`, the aggregate type whose events these are. Projections and reactors of this type then pass
/// over events with the same stored names in streams of other aggregates; without it they read them as this type. Two types that share a stored
/// name cannot be in one transparent enum, as their names are compared while it compiles: a projection over both reads two types.
///
/// On the enum or the struct: `crate = path::to::annals`, see the page of the crate.
///
/// # What is stored
/// The payload is the content of the variant alone, as serde writes it: an object for named fields, an array for a tuple,
/// the value itself for one unnamed field. serde's attributes on fields work as usual. The variant is chosen by its
/// stored name. So the names of the enum and its variants, and `#[serde(rename)]` on a variant, may change; the names of
/// fields are stored.
///
/// # Refused
/// - `#[serde(tag, content, untagged)]` on the enum, which would write the Rust name into the content or leave out the
///   variant, and `#[serde(from, try_from, into, remote, transparent)]`, with which serde writes another type than this
///   enum;
/// - `#[serde(tag)]` on a struct, for the same reason;
/// - `#[serde(skip, skip_serializing, skip_deserializing, other, untagged)]` on a variant: what can be stored must always
///   be readable, and an unknown event is an error that names it;
/// - generic types, unions, and enums without variants.
///
/// # When it is read
/// A stored name or schema version that this build does not read is an error that lists the known ones. It is never
/// skipped or replaced by a default.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    derive::event(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a state an aggregate: its stored name, its id, its events, and when snapshots are taken.
///
/// For a struct or an enum with `Default`, the state before the first event, and `Clone`. You implement `Evolve`, which
/// applies an event to the state:
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
/// #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
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
/// - `name = "order"`, required: the stored name of the aggregate type, under the same rules as event names. Never change
///   it.
/// - `id = OrderId`, required: the type of the ids. It needs `Display`, whose text is stored, under the same rules;
///   `text_id!` makes such types.
/// - `event = OrderEvent`, required: the type of its events, with `#[derive(Event)]` and `Clone`.
/// - `snapshot(every = 100)`: save the state after each such number of events of a stream, from 1, so that a load reads only
///   what follows; `snapshot(after = "order.delivered")` or `snapshot(after("order.delivered", "order.cancelled"))`: save it
///   after these events; or `snapshot(never)`, the default. With a policy the state needs serde's `Serialize` and
///   `Deserialize`, and `PartialEq`. A state that is another one after it was written as JSON and read back is not saved.
/// - `fold = 2`: the number of the fold, from 1, which is the default. Increase it when the same events lead to another state, or
///   to one that serde writes as other JSON, so that snapshots of the old fold are ignored; `schema_lock!` notices it. A changed
///   list of events needs no new number.
/// - `crate = path::to::annals`, see the page of the crate.
///
/// # Refused
/// - generic types and unions;
/// - with snapshots, `#[serde(skip, skip_serializing, skip_deserializing)]` on a field or variant, whose content a load
///   would lose; and `after` with a name that no event has.
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    derive::aggregate(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct the row of a table that a projection fills, on every database.
///
/// For a struct with named fields and `Clone`; each field is a column.
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
/// - `table = "order_list"`, required: the name under which the table is queried.
/// - `key = "order_id"`, or `key("customer", "day")` for up to six columns, required: the primary key. The key's type in
///   code is the type of its column, or a tuple of their types in this order. Key columns are never null and implement
///   `Column` themselves.
/// - `per_tenant`: each row belongs to the tenant of the events that it was made of. The table has a first column `tenant`, which
///   is also first in the key and in each index, and is filled from the event; the struct does not have it.
/// - `index = "status"`, or `index("customer", "placed_at")`: a further index. Each index makes every write slower.
/// - `crate = path::to::annals`, see the page of the crate.
///
/// # Words on a field
/// - `#[column(name = "total_cents")]`: the name of the column; the default is the name of the field.
/// - `#[column(text)]`: for a type that serde writes as a string, such as an enum without content; the column has the
///   plain text.
/// - `#[column(json)]`: for every type that serde can write; the column has JSON, under the rules of event payloads.
///
/// `None` of an `Option` is NULL in the column. What else serde writes as null is not: with `json` it is the JSON `null`, which comes
/// back as what it was, and with `text` it stops the projection.
///
/// Without `text` or `json` the field's type must implement `Column`, as integers, `bool`, `f64`, `String`, timestamps,
/// UUIDs and bytes do, and an `Option` of each, which may be null.
///
/// # Refused
/// - names of tables and columns that are not made of lower-case letters, digits and `_`, a letter first, at most 48
///   characters, or that begin with `annals_`, `sqlite_` or `pg_`: SQL is built from them;
/// - columns called as one that PostgreSQL adds to every table: `ctid`, `xmin`, `xmax`, `cmin`, `cmax`, `tableoid`;
/// - with `per_tenant`, a column called `tenant`, and `tenant` in a key or an index;
/// - keys and indexes of columns that do not exist, and an index of what is indexed already;
/// - a key column that may be null, or has `text` or `json`: implement `Column` for its type, for example by `text_column!`;
/// - more than 100 columns, or none; enums, unions, tuple structs and generic types.
#[proc_macro_derive(ReadModel, attributes(read_model, column))]
pub fn read_model(input: TokenStream) -> TokenStream {
    derive::read_model(&parse_macro_input!(input as DeriveInput)).into()
}
