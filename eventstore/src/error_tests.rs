//! Every message as people see it, with its family: a golden file, so that a worse one shows in review.

use std::time::Duration;

use uuid::Uuid;

use crate::database_error::DatabaseError;
use crate::error::{AppendError, BackendError, DecodeError, ErrorFamily, Invalid, OpenError, ReadError};
use crate::error::{Holder, NO_STREAM, Repeat};
use crate::event::EventId;
use crate::position::{Incarnation, Position};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

fn stream() -> StreamId {
    StreamId::new(Tenant::default(), "order", "o-17").expect("the names are sound")
}

fn version(n: i64) -> StreamVersion {
    StreamVersion::new(n).expect("not negative")
}

fn position(n: i64) -> Position {
    Position::new(n).expect("not negative")
}

fn engine() -> BackendError {
    BackendError::new("the error of the engine")
}

fn invalid() -> Invalid {
    Invalid::new("payload.lines[2].price", "is NaN, which JSON cannot hold", "use a number")
}

fn append_errors() -> Vec<AppendError> {
    let no_stream = StreamId::stored(Tenant::default(), NO_STREAM.0.into(), NO_STREAM.1.into());
    let taken = |how| AppendError::EventIdTaken {
        event_id: EventId::new(Uuid::from_u128(17)).expect("not nil"),
        stream: stream(),
        how,
    };
    vec![
        AppendError::WrongExpectedVersion {
            stream: stream(),
            expected: ExpectedVersion::Exact(version(3)),
            actual: version(4),
        },
        AppendError::WrongExpectedVersion { stream: stream(), expected: ExpectedVersion::NoStream, actual: version(4) },
        AppendError::Invalid(invalid()),
        taken(Repeat::OtherContent),
        taken(Repeat::OtherStream),
        taken(Repeat::OnlySome),
        taken(Repeat::OtherAppend),
        AppendError::RequestKeyReused { tenant: Tenant::default(), key: "form-17".to_owned() },
        AppendError::StreamFull { stream: stream(), actual: version(i64::MAX) },
        AppendError::Overloaded { tenant: Tenant::default(), queued: 10_000, more: 1, limit: 10_000, unit: "appends" },
        AppendError::Overloaded { tenant: Tenant::default(), queued: 800, more: 300, limit: 1_000, unit: "bytes" },
        AppendError::DeadlineExceeded { stream: stream() },
        AppendError::Busy { waited: Duration::from_secs(5), holder: Holder::SameHandle },
        AppendError::Busy { waited: Duration::from_secs(5), holder: Holder::Transaction },
        AppendError::StorageFull { source: engine() },
        AppendError::Unavailable { source: engine() },
        AppendError::DeadlineExceeded { stream: no_stream.clone() },
        AppendError::OutcomeUnknown { stream: no_stream, source: engine() },
        AppendError::OutcomeUnknown { stream: stream(), source: engine() },
        AppendError::Closed,
        AppendError::ReadOnly { reason: "it was opened with `read_only`".to_owned() },
        AppendError::Broken { what: "page 7 is torn".to_owned(), remedy: "restore it from a backup".to_owned() },
    ]
}

fn read_errors() -> Vec<ReadError> {
    let undecodable = |source| ReadError::Undecodable {
        stream: stream(),
        version: version(2),
        position: position(40),
        name: "order.paid".to_owned(),
        schema_version: 3,
        source,
    };
    vec![
        ReadError::Invalid(invalid()),
        ReadError::AheadOfLog { after: position(50), head: position(40) },
        ReadError::StoreRewound { position: position(40), incarnation: Incarnation(Uuid::from_u128(7)) },
        undecodable(DecodeError::UnknownName { name: "order.paid".to_owned(), known: "order.placed".to_owned() }),
        undecodable(DecodeError::UnknownSchemaVersion { name: "order.paid".to_owned(), found: 3, known: 2 }),
        undecodable(DecodeError::Payload {
            source: serde_json::from_str::<u8>("{}").expect_err("an object is no number"),
        }),
        undecodable(DecodeError::Upcast {
            name: "order.paid".to_owned(),
            version: 3,
            to: "`order.paid` version 4".to_owned(),
            source: "no currency".into(),
        }),
        ReadError::Broken {
            what: "`orders.db` names another file than the one that was opened".to_owned(),
            remedy: "put that one back under its name".to_owned(),
        },
        ReadError::Damaged { position: position(40), what: "`event_id` is no UUID".to_owned() },
        ReadError::Unavailable { source: engine() },
        ReadError::Closed,
    ]
}

fn open_errors() -> Vec<OpenError> {
    let path = || "orders.db".to_owned();
    vec![
        OpenError::Invalid(Invalid::new("path", "`orders.db` is a folder", "name a file in it")),
        OpenError::NotAStore { path: path(), found: "not an SQLite database".to_owned() },
        OpenError::NewerStore { path: path(), needed: 9, ours: 1 },
        OpenError::PendingMigrations {
            path: "postgres://db:5432/shop".to_owned(),
            missing: "`events 3: store`, `events 4: append`".to_owned(),
        },
        OpenError::Unsound {
            path: "postgres://db:5432/shop".to_owned(),
            what: "the database has the encoding SQL_ASCII".to_owned(),
            fix: "create it with `ENCODING 'UTF8'`".to_owned(),
        },
        OpenError::Untrusted { path: path(), source: engine() },
        OpenError::ReadOnly { path: path(), reason: "attempt to write a readonly database".to_owned() },
        OpenError::Damaged { path: path(), what: "its journal `orders.db-wal` is missing".to_owned() },
        OpenError::StorageFull { path: path(), source: engine() },
        OpenError::Refused { path: path(), source: engine() },
        OpenError::Unavailable { path: path(), source: engine() },
        OpenError::Closed,
    ]
}

/// The message and those of its causes, each on its own line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("    because {error}\n"));
        cause = error.source();
    }
    text
}

#[test]
fn messages_state_what_happened_and_what_to_do() {
    let mut all = String::new();
    for error in append_errors() {
        all.push_str(&format!("append, {:?}: {}", error.family(), chain(&error)));
    }
    for error in read_errors() {
        all.push_str(&format!("read, {:?}: {}", error.family(), chain(&error)));
    }
    for error in open_errors() {
        all.push_str(&format!("open, {:?}: {}", error.family(), chain(&error)));
    }
    insta::assert_snapshot!("messages", all);
}

/// Every enum of errors of this crate that is no question of a type of the user's.
#[test]
fn every_error_is_of_a_family_and_transient_exactly_if_that_is() {
    fn check<E>(errors: Vec<E>, family: impl Fn(&E) -> ErrorFamily, is_transient: impl Fn(&E) -> bool) {
        for error in &errors {
            assert_eq!(is_transient(error), family(error) == ErrorFamily::Transient);
        }
    }
    check(append_errors(), AppendError::family, AppendError::is_transient);
    check(read_errors(), ReadError::family, ReadError::is_transient);
    check(open_errors(), OpenError::family, OpenError::is_transient);
    check(database_errors(), DatabaseError::family, DatabaseError::is_transient);
    for error in read_errors() {
        if let ReadError::Undecodable { source, .. } = error {
            assert_eq!((source.family(), source.is_transient()), (ErrorFamily::Broken, false));
        }
    }
}

/// sqlx calls an error of ours inside of its own an "error in Any driver mapping".
#[cfg(feature = "sqlite")]
#[test]
fn an_error_of_ours_inside_one_of_sqlx_is_told_as_what_it_is() {
    let source = BackendError::new(sqlx::Error::AnyDriverError("the file was replaced".into()));
    let error = DatabaseError::Unavailable { source };
    assert!(chain(&error).ends_with("the file was replaced\n"), "{}", chain(&error));
    assert!(!chain(&error).contains("driver"), "{}", chain(&error));
}

#[test]
fn a_database_error_during_opening_keeps_its_family() {
    for error in database_errors() {
        let unknown = matches!(error, DatabaseError::OutcomeUnknown { .. });
        let closed = matches!(error, DatabaseError::Closed);
        // No caller can fix the SQL of a migration.
        let refused = matches!(error, DatabaseError::Refused { .. } | DatabaseError::Failed { .. });
        let (family, message) = (error.family(), error.to_string());
        let opened = error.into_open("orders.db").family();
        match family {
            _ if closed => assert_eq!(opened, ErrorFamily::Invalid),
            _ if unknown => assert_eq!(opened, ErrorFamily::Transient, "{message}"),
            _ if refused => assert_eq!(opened, ErrorFamily::Broken, "{message}"),
            family => assert_eq!(opened, family, "{message}"),
        }
    }
}

#[test]
fn database_errors_state_what_happened_and_whether_it_is_transient() {
    let mut all = String::new();
    for error in database_errors() {
        all.push_str(&format!("{:?}: {}", error.family(), chain(&error)));
    }
    insta::assert_snapshot!("databases", all);
}

fn database_errors() -> Vec<DatabaseError> {
    use DatabaseError as D;

    vec![
        D::Busy { waited: Duration::from_secs(5), holder: Holder::OtherHandle },
        D::Unavailable { source: engine() },
        D::StorageFull { source: engine() },
        D::ReadOnly { source: engine() },
        D::Damaged { source: engine() },
        D::FileReplaced {
            what: "`orders.db` names another file than the one that was opened".to_owned(),
            remedy: "put that one back under its name".to_owned(),
        },
        D::Refused { source: engine() },
        D::OutcomeUnknown { source: engine() },
        D::Failed { source: engine() },
        D::Closed,
    ]
}
