//! Every message as people see it: a golden file, so that a worse one shows in review.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    BackendError, DatabaseError, DecodeError, ErrorFamily, Event, EventShape, Incarnation, Invalid, OpenError, Payload,
    Position, ReadError, Recorded, StreamId, StreamVersion, Tenant,
};

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Counts, Fixed, Fixture, said};
use crate::builder::ProjectionsBuilder;
use crate::changes::{check_columns, check_key};
use crate::serde_column::{json_from_column, json_to_column, text_from_column, text_to_column};
use crate::{
    Column, ColumnError, ColumnSpec, ColumnType, ColumnValue, ControlError, EffectKey, EventPlace, IndexSpec,
    Projection, ProjectionError, ProjectionProgress, QueryError, Reactor, ReactorError, ReadModel, RowError, Rows,
    SpecError, StartError, StopCause, Stopped, StreamProjection, StreamRow, TableSpec, WaitError,
};

fn position(n: i64) -> Position {
    Position::new(n).unwrap()
}

fn stream() -> StreamId {
    StreamId::new(Tenant::default(), "account", "a-17").unwrap()
}

fn engine() -> BackendError {
    BackendError::new("what the engine said")
}

/// Declares a projection of [`AccountEvent`]s, or of others, that does nothing.
macro_rules! idle {
    ($type:ident, $event:ty, $name:expr, $version:expr) => {
        struct $type;

        impl Projection for $type {
            type Event = $event;
            type Row = Account;
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;

            fn apply(&self, _: &Recorded<$event>, _: &mut Rows<Account>) -> Result<(), ProjectionError> {
                Ok(())
            }
        }
    };
}

/// Declares a stream projection that does nothing.
macro_rules! idle_stream {
    ($type:ident, $aggregates:expr) => {
        struct $type;

        impl StreamProjection for $type {
            type Event = AccountEvent;
            type Row = Account;
            const AGGREGATES: &'static [&'static str] = $aggregates;

            fn apply(&self, _: &Recorded<AccountEvent>, _: &mut StreamRow<'_, Account>) -> Result<(), ProjectionError> {
                Ok(())
            }
        }
    };
}

/// Declares a type of events by hand that has these names.
macro_rules! events {
    ($type:ident, $shapes:expr) => {
        struct $type;

        impl Event for $type {
            const SHAPES: &'static [EventShape] = $shapes;

            fn shape(&self) -> &'static EventShape {
                unreachable!("nobody makes one")
            }

            fn encode(&self) -> Result<Payload, Invalid> {
                unreachable!("nobody makes one")
            }

            fn decode(_: &str, _: u32, _: &Payload) -> Result<Self, DecodeError> {
                unreachable!("nobody appends one")
            }
        }
    };
}

events!(NoEvents, &[]);
events!(BadlyNamedEvents, &[EventShape { name: "$paid", version: 1, rust_name: "BadlyNamedEvents" }]);
idle!(BadName, AccountEvent, "Bad \"name\"", 1);
idle!(VersionZero, AccountEvent, "accounts", 0);
idle!(SameTable, AccountEvent, "other_accounts", 1);
idle!(WithoutEvents, NoEvents, "accounts", 1);
idle_stream!(NoAggregates, &[]);
idle_stream!(TwoAggregates, &["account", "loan"]);
idle_stream!(OneAggregate, &["account"]);
idle!(WithBadEvents, BadlyNamedEvents, "accounts", 1);

async fn refused(builder: ProjectionsBuilder) -> StartError {
    builder.start().await.expect_err("it must be refused")
}

async fn declarations() -> Vec<StartError> {
    let shop = Fixture::new();
    vec![
        refused(shop.projections()).await,
        refused(shop.projections().with(BadName)).await,
        refused(shop.projections().with(VersionZero)).await,
        refused(shop.projections().with(Accounts).with(Fixed)).await,
        refused(shop.projections().with(Accounts).with(SameTable)).await,
        refused(shop.projections().with(WithoutEvents)).await,
        refused(shop.projections().with(WithBadEvents)).await,
        refused(shop.projections().with(NoAggregates)).await,
        refused(shop.projections().with(TwoAggregates)).await,
        refused(shop.projections().with(OneAggregate.slots(0))).await,
        refused(shop.projections().with(OneAggregate.dead_letter().slots(65))).await,
    ]
}

fn start_errors() -> Vec<StartError> {
    let taken = |name: &str, taken_by: &str| StartError::NameTaken {
        projection: "order_list",
        name: name.to_owned(),
        taken_by: taken_by.to_owned(),
    };
    vec![
        StartError::ReactorRewound {
            reactor: "mailer",
            source: ReadError::StoreRewound {
                position: position(40),
                incarnation: annals_eventstore::Incarnation(uuid::Uuid::from_u128(7)),
            },
        },
        StartError::ReactorTenantChanged { reactor: "mailer", stored: Some("north".to_owned()), declared: None },
        StartError::ShapeChanged {
            projection: "order_list",
            version: 2,
            stored: "order_list(id text; key id)".to_owned(),
            declared: "order_list(id text, cents integer; key id)".to_owned(),
        },
        StartError::EventsChanged {
            projection: "bills",
            version: 1,
            new: vec!["bill.credited".to_owned(), "bill.voided".to_owned()],
            missing: vec!["bill.paid".to_owned()],
        },
        StartError::TenantChanged { projection: "bills", version: 1, stored: None, declared: Some("north".to_owned()) },
        StartError::ColumnsLost {
            projection: "order_list",
            version: 3,
            read_model: "order_list",
            shown: 2,
            lost: vec!["`note` is gone".to_owned(), "`cents` was integer and is text".to_owned()],
        },
        taken("order_list", "is a table that annals did not make"),
        taken("order_list", "is the read model of projection `orders`"),
        taken("order_list_v1", "is a table without a checkpoint"),
        StartError::Rewound {
            projection: "order_list",
            version: 2,
            source: ReadError::AheadOfLog { after: position(9), head: position(4) },
        },
        StartError::Store(ReadError::Unavailable { source: engine() }),
        StartError::Database { projection: "order_list", source: DatabaseError::Unavailable { source: engine() } },
        StartError::SetUp { projection: "customer_totals", version: 2, source: "there is no such dictionary".into() },
        StartError::Migrate(OpenError::Refused { path: "shop.db".to_owned(), source: engine() }),
    ]
}

const ID: ColumnSpec = ColumnSpec { name: "id", column_type: ColumnType::Text, nullable: false };
const GOOD: TableSpec = TableSpec { name: "orders", columns: &[ID], key: &["id"], indexes: &[], per_tenant: false };

fn table_errors() -> Vec<SpecError> {
    let many = vec![ID; 101].leak();
    let specs = [
        TableSpec { name: "Orders", ..GOOD },
        TableSpec { name: "annals_orders", ..GOOD },
        TableSpec { columns: many, ..GOOD },
        TableSpec { columns: &[ColumnSpec { name: "order id", ..ID }], ..GOOD },
        TableSpec { columns: &[ID, ID], ..GOOD },
        TableSpec { key: &[], ..GOOD },
        TableSpec { key: &["other"], ..GOOD },
        TableSpec { columns: &[ColumnSpec { nullable: true, ..ID }], ..GOOD },
        TableSpec { key: &["id", "id"], ..GOOD },
        TableSpec { indexes: &[IndexSpec { columns: &[] }], ..GOOD },
        TableSpec { indexes: &[IndexSpec { columns: &["other"] }], ..GOOD },
    ];
    specs.iter().map(|spec| spec.check().expect_err("it is declared wrongly")).collect()
}

fn column_errors() -> Vec<ColumnError> {
    let text = || ColumnValue::Text("x".into());
    let number = || ColumnValue::Integer(7);
    let wrong = vec![
        u8::from_column(ColumnValue::Integer(256)).err(),
        i64::from_column(text()).err(),
        bool::from_column(number()).err(),
        f64::from_column(number()).err(),
        String::from_column(number()).err(),
        jiff::Timestamp::from_column(number()).err(),
        jiff::civil::Date::from_column(text()).err(),
        uuid::Uuid::from_column(ColumnValue::Bytes([1].as_slice().into())).err(),
        Vec::<u8>::from_column(ColumnValue::Bool(true)).err(),
        i64::from_column(ColumnValue::Null).err(),
        text_from_column::<bool>(text()).err(),
        text_from_column::<String>(ColumnValue::Real(0.5)).err(),
        json_from_column::<u8>(ColumnValue::Json("[1]".into())).err(),
        json_from_column::<u8>(ColumnValue::Uuid(uuid::Uuid::nil())).err(),
        crate::column::next_column(&mut std::iter::empty(), "price").err(),
    ];
    wrong.into_iter().map(|error| error.expect("it does not fit").in_column("price")).collect()
}

/// A row whose text for the table is given.
fn row(change: impl FnOnce(&mut Vec<ColumnValue>)) -> RowError {
    let mut columns = Account::new("a-17", 4_50, jiff::Timestamp::UNIX_EPOCH).to_columns();
    change(&mut columns);
    check_columns::<Account>(&key("a-17"), &columns).expect_err("no table can hold it")
}

fn key(id: &str) -> Vec<ColumnValue> {
    vec![id.to_owned().to_column()]
}

fn row_errors() -> Vec<RowError> {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let late = "2026-03-01T10:00:00.123456789Z".parse::<jiff::Timestamp>().unwrap();
    vec![
        row(|columns| columns[2] = f64::NAN.to_column()),
        row(|columns| columns[3] = "a\0b".to_owned().to_column()),
        row(|columns| columns[3] = text_to_column(&[1])),
        row(|columns| columns[3] = text_to_column(&Broken)),
        row(|columns| columns[3] = json_to_column(&[1.0, f64::NAN])),
        check_key::<Account>(vec!["long".repeat(700).to_column()]).expect_err("too long"),
        row(|columns| columns[1] = ColumnValue::Null),
        row(|columns| columns[1] = ColumnValue::Text("a secret".into())),
        row(|columns| drop(columns.pop())),
        check_key::<Account>(vec![]).expect_err("no key"),
        check_key::<Account>(vec![ColumnValue::Timestamp(late)]).expect_err("too fine"),
        RowError::key_changed::<Account>(&key("a-17"), &key("a-18")),
        RowError::of_another_stream::<Account>(&key("a-17"), &key("a-18")),
        RowError::foreign::<Account>(&key("a-17")),
        RowError::missing::<Account>(&key("a-17")),
        RowError::Unreadable { table: "accounts", source: ColumnError::new("an integer", "text").in_column("cents") },
    ]
}

/// Keys may be names or addresses of people, and errors are logged.
#[test]
fn errors_about_rows_show_their_keys_only_on_request() {
    for error in row_errors() {
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!["a-17", "a-18", "longlong", "2026-03-01"].iter().any(|key| shown.contains(key)), "{shown}");
        assert!(shown.contains("accounts"), "{shown}");
    }
    let RowError::KeyChanged { key, found, .. } = RowError::key_changed::<Account>(&key("a-17"), &key("a-18")) else {
        panic!("it is the key")
    };
    assert_eq!((key.as_str(), found.as_str()), ("\"a-17\"", "\"a-18\""));
}

fn stops() -> Vec<Stopped> {
    let place = EventPlace {
        position: position(40),
        stream: stream(),
        version: StreamVersion::new(3).unwrap(),
        name: "account.paid".into(),
    };
    let stopped = |event: Option<EventPlace>, cause| Stopped {
        projection: "accounts".into(),
        version: 2,
        position: position(39),
        event,
        cause: Arc::new(cause),
    };
    let on_event = |cause| stopped(Some(place.clone()), cause);
    let mut all = vec![
        on_event(ProjectionError::new("the account is not open").into()),
        on_event(ProjectionError::not_loaded().into()),
        on_event(StopCause::Panicked("attempt to divide by zero".to_owned())),
        on_event(StopCause::Read(Arc::new(ReadError::Undecodable {
            stream: stream(),
            version: StreamVersion::new(3).unwrap(),
            position: position(40),
            name: "account.paid".to_owned(),
            schema_version: 3,
            source: DecodeError::UnknownSchemaVersion { name: "account.paid".to_owned(), found: 3, known: 2 },
        }))),
        on_event(StopCause::Undeclared(Invalid::new("aggregate_type", "`loan` is another", "leave it out"))),
        Stopped {
            projection: "mailer".into(),
            version: 0,
            ..on_event(StopCause::React("there is no such address".into()))
        },
        on_event(StopCause::NeverSatisfied(1_000)),
        stopped(None, StopCause::Database(engine())),
        on_event(StopCause::TransactionEnded),
        stopped(None, StopCause::CheckpointRemoved),
        stopped(None, StopCause::Runner("index out of bounds".to_owned())),
    ];
    all.extend(row_errors().into_iter().map(|error| on_event(StopCause::Row(error))));
    all
}

fn wait_errors() -> Vec<WaitError> {
    let reach = |projection: &str, position, retrying_after: Option<&str>| ProjectionProgress {
        projection: projection.into(),
        position,
        retrying_after: retrying_after.map(str::to_owned),
        in_the_way: None,
        elsewhere: None,
    };
    let elsewhere = crate::Elsewhere {
        version: 2,
        moved_at: jiff::Timestamp::from_second(1_772_359_200).unwrap(),
        here: 1,
        here_position: position(9),
    };
    let reached = || vec![reach("accounts", position(3), None), reach("counts", position(9), Some("the disk is full"))];
    vec![
        WaitError::TimedOut { position: position(9), waited: Duration::from_secs(2), reached: reached() },
        WaitError::TimedOut {
            position: position(9),
            waited: Duration::from_secs(2),
            reached: vec![ProjectionProgress { elsewhere: Some(elsewhere), ..reach("accounts", position(3), None) }],
        },
        WaitError::NotShown {
            projection: "accounts",
            version: 1,
            read_model: "accounts",
            waited: Duration::from_secs(2),
            why: "version 1 is at 3, and what is shown at 9".to_owned(),
        },
        WaitError::HeadUnknown { waited: Duration::from_secs(2), cause: None },
        WaitError::HeadUnknown {
            waited: Duration::from_secs(2),
            cause: Some(ReadError::Unavailable { source: engine() }),
        },
        WaitError::Unavailable(engine()),
        WaitError::Database(engine()),
        WaitError::Closed { position: position(9), reached: reached() },
        WaitError::Stopped(stops().remove(0)),
        WaitError::OtherStore {
            token: "17-000000000000000000000000000000ab".parse().unwrap(),
            store: Incarnation(uuid::Uuid::from_u128(7)),
        },
        WaitError::Unknown { name: "daily_sales".to_owned(), known: "`accounts`, `counts`".to_owned() },
    ]
}

fn query_errors() -> Vec<QueryError> {
    let read_model = "accounts";
    let source = ColumnError::new("an integer", "text").in_column("cents");
    vec![
        QueryError::Text {
            read_model,
            problem: "has a comment".to_owned(),
            fix: "leave it out, and put spaces between signs".to_owned(),
        },
        QueryError::Value { read_model, number: 2, problem: "is NaN".to_owned() },
        QueryError::Key(check_key::<Account>(vec!["a\0".to_owned().to_column()]).expect_err("no such key")),
        QueryError::TooManyKeys { read_model, given: 10_001, most: 10_000 },
        QueryError::TooManyRows { read_model, most: 10_000 },
        QueryError::OtherVersion {
            projection: "accounts",
            read_model,
            shown: 1,
            here: 2,
            unfit: vec!["it has no column `note`".to_owned(), "`cents` is text there and integer here".to_owned()],
        },
        QueryError::Unreadable { read_model, source: BackendError::new(source) },
        QueryError::Database { read_model, source: DatabaseError::Failed { source: engine() } },
        QueryError::Database { read_model, source: DatabaseError::Unavailable { source: engine() } },
        QueryError::Unknown { name: "daily_sales", version: 1, known: "`accounts` (version 2)".to_owned() },
    ]
}

struct Nobody;

impl Reactor for Nobody {
    type Event = AccountEvent;
    const NAME: &'static str = "nobody";

    async fn react(&self, _: &Recorded<AccountEvent>, _: &EffectKey) -> Result<(), ReactorError> {
        Ok(())
    }
}

async fn control_errors() -> Vec<ControlError> {
    let rows = Fixture::new().projections().with(Accounts).start().await.unwrap();
    let streams = Fixture::new().projections().with(OneAggregate).start().await.unwrap();
    let errors = vec![
        rows.dead_letters::<Accounts>().await.unwrap_err(),
        streams.dead_letters::<OneAggregate>().await.unwrap_err(),
        rows.pause::<Accounts>("").await.unwrap_err(),
        rows.pause::<Counts>("a test").await.unwrap_err(),
        rows.parked::<Nobody>().await.unwrap_err(),
        ControlError::Unavailable(engine()),
        ControlError::Database(engine()),
        ControlError::Paused { projection: "accounts" },
        ControlError::Taken { projection: "accounts" },
        ControlError::Closed,
    ];
    rows.close().await;
    streams.close().await;
    errors
}

#[tokio::test]
async fn messages_say_what_happened_and_what_to_do() {
    let mut all = String::new();
    let mut tell = |what: &str, family: Option<ErrorFamily>, error: &(dyn std::error::Error + 'static)| {
        let family = family.map(|family| format!(", {family:?}")).unwrap_or_default();
        all.push_str(&format!("{what}{family}: {}\n", said(error)));
    };
    for error in declarations().await.iter().chain(&start_errors()) {
        assert_eq!(error.is_transient(), error.family() == ErrorFamily::Transient);
        tell("start", Some(error.family()), error);
    }
    for error in table_errors() {
        let error = StartError::Table(error);
        tell("start", Some(error.family()), &error);
    }
    for error in stops() {
        assert!(!error.is_transient() && !error.cause.is_transient(), "the runner waits those out: {error}");
        tell("stop", Some(error.family()), &error);
    }
    for error in row_errors() {
        assert!(!error.is_transient());
        tell("row", Some(error.family()), &error);
    }
    for error in wait_errors() {
        assert_eq!(error.is_transient(), error.family() == ErrorFamily::Transient);
        tell("wait", Some(error.family()), &error);
    }
    for error in query_errors() {
        assert_eq!(error.is_transient(), error.family() == ErrorFamily::Transient);
        tell("query", Some(error.family()), &error);
    }
    for error in control_errors().await {
        assert_eq!(error.is_transient(), error.family() == ErrorFamily::Transient);
        tell("control", Some(error.family()), &error);
    }
    for error in column_errors() {
        tell("column", None, &error);
    }
    assert!(!all.contains("a secret"), "values of rows are not shown: {all}");
    insta::assert_snapshot!("messages", all);
}
