//! What the tests fold: accounts that are opened, paid into, linked and closed, and everything that can go wrong with them.

use annals_eventstore::{DecodeError, Event, EventShape, Invalid, Payload, Recorded};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Column, ColumnError, ColumnSpec, ColumnType, ColumnValue, IndexSpec, Projection, ProjectionError, ReadModel, Rows,
    TableSpec,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    /// A new row, put in without a look at the old one.
    Opened,
    /// Changes the row, or makes one.
    Paid(i64),
    /// Changes two rows.
    Moved { to: String, cents: i64 },
    /// The row names another one.
    Linked(String),
    /// Goes from row to row along the links and pays into the last: one lookup names the next.
    PaidAtTheEnd(i64),
    /// Removes the row without a look at it.
    Closed,
    /// Removes the row if it holds nothing.
    ClosedIfEmpty,
    /// Looks another row up, ignores the error, and opens an account of its own when the row is not there.
    Careless(String),
    /// Cannot be applied.
    Refused,
    /// Makes `apply` panic.
    Panicking,
    /// Makes a row that no table can hold.
    NotANumber,
    /// Gives the row another key.
    Rekeyed(String),
    /// Looks up a row whose key no table can hold.
    LooksUp(String),
    /// Pays into an account that must be there.
    PaidStrictly(i64),
}

const fn shape(name: &'static str) -> EventShape {
    EventShape { name, version: 1, rust_name: name }
}

impl Event for AccountEvent {
    const SHAPES: &'static [EventShape] = &[
        shape("opened"),
        shape("paid"),
        shape("moved"),
        shape("linked"),
        shape("paid_at_the_end"),
        shape("closed"),
        shape("closed_if_empty"),
        shape("careless"),
        shape("refused"),
        shape("panicking"),
        shape("not_a_number"),
        shape("rekeyed"),
        shape("looks_up"),
        shape("paid_strictly"),
    ];

    fn shape(&self) -> &'static EventShape {
        &Self::SHAPES[match self {
            Self::Opened => 0,
            Self::Paid(_) => 1,
            Self::Moved { .. } => 2,
            Self::Linked(_) => 3,
            Self::PaidAtTheEnd(_) => 4,
            Self::Closed => 5,
            Self::ClosedIfEmpty => 6,
            Self::Careless(_) => 7,
            Self::Refused => 8,
            Self::Panicking => 9,
            Self::NotANumber => 10,
            Self::Rekeyed(_) => 11,
            Self::LooksUp(_) => 12,
            Self::PaidStrictly(_) => 13,
        }]
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        Payload::of(self)
    }

    fn decode(_: &str, _: u32, payload: &Payload) -> Result<Self, DecodeError> {
        payload.read().map_err(|source| DecodeError::Payload { source })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) cents: i64,
    pub(crate) share: f64,
    pub(crate) next: Option<String>,
    pub(crate) touched: Timestamp,
}

impl ReadModel for Account {
    type Key = String;
    const TABLE: &'static TableSpec = &TableSpec {
        name: "accounts",
        columns: &[
            ColumnSpec { name: "id", column_type: ColumnType::Text, nullable: false },
            ColumnSpec { name: "cents", column_type: ColumnType::Integer, nullable: false },
            ColumnSpec { name: "share", column_type: ColumnType::Real, nullable: false },
            ColumnSpec { name: "next", column_type: ColumnType::Text, nullable: true },
            ColumnSpec { name: "touched", column_type: ColumnType::Timestamp, nullable: false },
        ],
        key: &["id"],
        indexes: &[IndexSpec { columns: &["cents"] }],
        per_tenant: false,
    };

    fn key(&self) -> String {
        self.id.clone()
    }

    fn to_columns(&self) -> Vec<ColumnValue> {
        vec![
            self.id.to_column(),
            self.cents.to_column(),
            self.share.to_column(),
            self.next.to_column(),
            self.touched.to_column(),
        ]
    }

    fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, ColumnError> {
        let mut next = |name| crate::column::next_column(columns, name);
        Ok(Self {
            id: Column::from_column(next("id")?)?,
            cents: Column::from_column(next("cents")?)?,
            share: Column::from_column(next("share")?)?,
            next: Column::from_column(next("next")?)?,
            touched: Column::from_column(next("touched")?)?,
        })
    }
}

impl Account {
    pub(crate) fn new(id: &str, cents: i64, touched: Timestamp) -> Self {
        Self { id: id.to_owned(), cents, share: 0.0, next: None, touched }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounts;

impl Projection for Accounts {
    type Event = AccountEvent;
    type Row = Account;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        let id = event.stream.aggregate_id().to_owned();
        let at = event.recorded_at;
        match &event.event {
            AccountEvent::Opened => rows.upsert(Account::new(&id, 0, at)),
            AccountEvent::Paid(cents) => {
                let row = rows.get_or_insert_with(&id, || Account::new(&id, 0, at))?;
                row.cents += cents;
                row.touched = at;
            }
            AccountEvent::Moved { to, cents } => {
                if let Some(row) = rows.get_mut(&id)? {
                    row.cents -= cents;
                }
                rows.get_or_insert_with(to, || Account::new(to, 0, at))?.cents += cents;
            }
            AccountEvent::Linked(to) => {
                rows.get_or_insert_with(&id, || Account::new(&id, 0, at))?.next = Some(to.clone());
            }
            AccountEvent::PaidAtTheEnd(cents) => {
                let mut last = id;
                for _ in 0..50 {
                    match rows.get(&last)?.and_then(|row| row.next.clone()) {
                        Some(next) => last = next,
                        None => break,
                    }
                }
                rows.get_or_insert_with(&last, || Account::new(&last, 0, at))?.cents += cents;
            }
            AccountEvent::Closed => rows.remove(&id),
            AccountEvent::ClosedIfEmpty => {
                if rows.get(&id)?.is_some_and(|row| row.cents == 0) {
                    rows.remove(&id);
                }
            }
            AccountEvent::Careless(other) => match rows.contains(other) {
                Ok(true) => {}
                Ok(false) | Err(_) => rows.upsert(Account::new(&id, -1, at)),
            },
            AccountEvent::Refused => {
                rows.upsert(Account::new("half-done", 1, at));
                return Err(ProjectionError::new("the domain says no"));
            }
            AccountEvent::Panicking => {
                rows.upsert(Account::new("half-done", 1, at));
                panic!("the fold has a fault");
            }
            AccountEvent::NotANumber => {
                rows.get_or_insert_with(&id, || Account::new(&id, 0, at))?.share = f64::NAN;
            }
            AccountEvent::Rekeyed(to) => {
                rows.get_or_insert_with(&id, || Account::new(&id, 0, at))?.id = to.clone();
            }
            AccountEvent::LooksUp(key) => {
                rows.get(key)?;
            }
            AccountEvent::PaidStrictly(cents) => {
                rows.get_mut(&id)?.ok_or_else(|| ProjectionError::new("there is no such account"))?.cents += cents;
            }
        }
        Ok(())
    }
}
