//! What is created, what is refused, and what becomes of it when statements fail.

use annals_eventstore::{Position, StreamId, StreamVersion, Tenant};
use jiff::Timestamp;

use super::{
    EVERYTHING, LookUp, MODEL, SqlBackend, checkpoint, incarnation, key, prepare, row, shape_of, unit, unowned, work,
};
use crate::column::ColumnType;
use crate::database::{Dropped, Model, Moved, ParkingChanges, Place, Shows, Switch, Work};
use crate::error::EventPlace;
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The columns and one more, in their middle.
fn with_extra() -> &'static [ColumnSpec] {
    let extra = ColumnSpec { name: "extra", column_type: ColumnType::Text, nullable: true };
    let mut columns = EVERYTHING.columns.to_vec();
    columns.insert(1, extra);
    columns.leak()
}

fn leak(table: TableSpec) -> &'static TableSpec {
    Box::leak(Box::new(table))
}

pub(super) async fn every_column_can_be_queried(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    backend.handle().commit(&[&work(0, 1, vec![row("a", 1, 1.5), row("b", 2, 2.5)], vec![])], NOW).await.unwrap();
    for (condition, found) in [
        ("\"done\"", &["a", "b"][..]),
        ("\"group\" = 2", &["b"]),
        ("\"share\" < 2", &["a"]),
        ("\"order\" > 'a'", &["b"]),
        ("\"doc\" ->> 'a' = '[1]' AND \"group\" = 1", &["a"]),
    ] {
        let sql = format!("SELECT \"order\" FROM \"select\" WHERE {condition} ORDER BY 1");
        assert_eq!(backend.texts(&sql).await, found, "{condition}");
    }
}

pub(super) async fn rows_and_checkpoint_commit_together_or_not_at_all(backend: &dyn SqlBackend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    models.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], NOW).await.unwrap();
    // The second half of the commit fails.
    backend.refuse_removals("select_v1").await;
    let second = work(1, 2, vec![row("b", 1, 1.0)], vec![key("a", 1)]);
    let fault = models.commit(&[&second], NOW).await.unwrap_err();
    assert!(!fault.transient);
    assert_eq!(fault.part, Some(0));
    assert_eq!(models.checkpoint(&MODEL).await.unwrap(), Some(checkpoint(1)));
    assert_eq!(backend.texts("SELECT \"order\" FROM \"select\" ORDER BY 1").await, ["a"]);
}

pub(super) async fn the_part_that_is_refused_is_named(backend: &dyn SqlBackend) {
    let models: [Model; 3] = ["a_model", "b_model", "c_model"].map(|name| Model {
        projection: name,
        version: 1,
        table: leak(TableSpec { name, ..EVERYTHING }),
    });
    for model in &models {
        prepare(backend, model).await.unwrap();
    }
    backend.run("DROP VIEW c_model").await;
    backend.run("DROP TABLE c_model_v1").await;
    let part = |model: Model| Work { model, ..work(0, 1, vec![row("a", 1, 1.0)], vec![]) };
    let parts = [part(models[1]), part(models[2]), part(models[0])];
    let fault = backend.handle().commit(&parts.each_ref(), NOW).await.unwrap_err();
    assert_eq!((fault.transient, fault.part), (false, Some(1)), "{}", fault.source);
    for model in &models {
        let stored = backend.handle().checkpoint(model).await.unwrap().unwrap();
        assert_eq!(stored.position, Position::START, "nothing of `{}` is written", model.projection);
    }
    let moved = backend.handle().commit(&[&parts[0], &parts[2]], NOW).await.unwrap();
    assert_eq!(moved, [Moved::Done, Moved::Done], "the others go without it");
}

pub(super) async fn a_commit_that_is_dropped_at_any_moment_leaves_rows_and_checkpoint_in_step(
    backend: &dyn SqlBackend,
) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let state = format!(
        "SELECT CAST(c.position AS TEXT) || ' ' || CAST((SELECT count(*) FROM \"select\") AS TEXT) FROM {} AS c",
        backend.checkpoints()
    );
    let mut position = 0;
    // Without and with a removal, as a database may do the two in different ways.
    for removed in [vec![], vec![key("b", 1)]] {
        let until = position + 300;
        let written: Vec<_> = (position..until).map(|n| row("a", n, 1.0)).collect();
        let commit = work(position, until, written, removed);
        let parts = [&commit];
        for polls in 0.. {
            let mut running = Box::pin(models.commit(&parts, NOW));
            let mut finished = false;
            for _ in 0..polls {
                if futures::poll!(&mut running).is_ready() {
                    finished = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(running);
            let state = backend.texts(&state).await;
            let (old, new) = (format!("{position} {position}"), format!("{until} {until}"));
            assert!(state == [old.as_str()] || state == [new.as_str()], "{state:?} after {polls} polls");
            if finished {
                break;
            }
        }
        // Whether one that was given up is stored is known when its checkpoint is moved, or moved again.
        let moved = models.commit(&parts, NOW).await.unwrap();
        assert_eq!(moved, [Moved::Overtaken]);
        position = until;
    }
    assert_eq!(backend.texts(&state).await, [format!("{position} {position}")]);
}

pub(super) async fn another_shape_under_the_same_version_is_refused(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let changes: [(&str, TableSpec); 3] = [
        ("a column more", TableSpec { columns: with_extra(), ..EVERYTHING }),
        ("another key", TableSpec { key: &["group", "order"], ..EVERYTHING }),
        ("another name", TableSpec { name: "elsewhere", ..EVERYTHING }),
    ];
    for (change, table) in changes {
        let table = leak(table);
        let error = prepare(backend, &Model { table, ..MODEL }).await.expect_err(change).to_string();
        assert!(error.contains("raise its `VERSION`"), "{change}: {error}");
        assert!(prepare(backend, &Model { table, version: 2, ..MODEL }).await.is_ok(), "{change}, but as version 2");
        backend.run(&format!("DELETE FROM {} WHERE version = 2", backend.checkpoints())).await;
        if table.name == "elsewhere" {
            backend.run("DROP VIEW elsewhere").await;
        }
        backend.run(&format!("DROP TABLE \"{}_v2\"", table.name)).await;
    }
}

/// The types differ for the fold, and not for every database.
pub(super) async fn a_bool_declared_as_an_integer_is_refused_under_the_same_version(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let mut columns = EVERYTHING.columns.to_vec();
    columns[3].column_type = ColumnType::Integer;
    let table = leak(TableSpec { columns: columns.leak(), ..EVERYTHING });
    let error = prepare(backend, &Model { table, ..MODEL }).await.unwrap_err().to_string();
    assert!(error.contains("raise its `VERSION`"), "{error}");
}

pub(super) async fn a_table_that_somebody_altered_is_refused(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    backend.run("ALTER TABLE \"select_v1\" ADD COLUMN \"extra\" TEXT").await;
    let error = prepare(backend, &MODEL).await.unwrap_err().to_string().to_lowercase();
    assert!(error.contains("extra text null"), "{error}");
}

fn parked_event() -> EventPlace {
    let stream = StreamId::new(Tenant::default(), "order", "o-1").unwrap();
    let (position, version) = (Position::new(1).unwrap(), StreamVersion::new(1).unwrap());
    EventPlace { position, stream, version, name: "order.placed".into() }
}

/// Read models are rebuilt from nothing, so a table that is gone is no reason to refuse.
pub(super) async fn a_version_whose_table_somebody_dropped_is_built_anew(backend: &dyn SqlBackend) {
    let mut from = prepare(backend, &MODEL).await.unwrap().places[0];
    for epoch in 1..=2 {
        let parking = ParkingChanges { park: vec![(parked_event(), "why".to_owned())], ..ParkingChanges::default() };
        let commit = Work { from, parking, ..work(0, 1, vec![row("a", 1, 1.0)], vec![]) };
        assert_eq!(backend.handle().commit(&[&commit], NOW).await.unwrap(), [Moved::Done]);
        assert_eq!(backend.handle().parked(unit(&MODEL)).await.unwrap().len(), 1);
        backend.run("DROP VIEW \"select\"").await;
        backend.run("DROP TABLE \"select_v1\"").await;
        let prepared = prepare(backend, &MODEL).await.unwrap();
        from = prepared.places[0];
        assert_eq!(
            (from, prepared.shown),
            (Place { epoch, ..unowned(0) }, true),
            "who owned it writes nothing any more"
        );
        assert!(backend.texts("SELECT \"order\" FROM \"select\"").await.is_empty());
        assert_eq!(backend.indexes("select_v1").await.len(), 1);
        assert_eq!(
            backend.handle().parked(unit(&MODEL)).await.unwrap(),
            [],
            "its events are applied from the first on"
        );
    }
    // Beside a newer version it leaves the name alone.
    let second = Model { version: 2, ..MODEL };
    prepare(backend, &second).await.unwrap();
    assert_eq!(backend.handle().show(&second, Switch::default()).await.unwrap(), Shows::This);
    backend.run("DROP TABLE \"select_v1\"").await;
    assert!(!prepare(backend, &MODEL).await.unwrap().shown);
    assert_eq!(backend.shown("select").await, Some(2));
    // Another declaration needs a raised version all the same.
    backend.run("DROP TABLE \"select_v1\"").await;
    let table = leak(TableSpec { columns: with_extra(), ..EVERYTHING });
    let error = prepare(backend, &Model { table, ..MODEL }).await.unwrap_err().to_string();
    assert!(error.contains("raise its `VERSION`"), "{error}");
}

pub(super) async fn names_that_belong_to_something_else_are_refused(backend: &dyn SqlBackend) {
    backend.run("CREATE TABLE \"select\" (x TEXT)").await;
    let error = prepare(backend, &MODEL).await.unwrap_err().to_string();
    assert!(error.contains("`select`, which is a table that annals did not make"), "{error}");
    backend.run("DROP TABLE \"select\"").await;
    backend.run("CREATE VIEW \"select\" AS SELECT 1 AS x").await;
    let error = prepare(backend, &MODEL).await.unwrap_err().to_string();
    assert!(error.contains("is a view that annals did not make"), "{error}");
    backend.run("DROP VIEW \"select\"").await;
    backend.run("CREATE TABLE \"select_v1\" (x TEXT)").await;
    let error = prepare(backend, &MODEL).await.unwrap_err().to_string();
    assert!(error.contains("`select_v1`, which is a table without a checkpoint"), "{error}");
    assert!(error.contains("drop it to build it anew"), "{error}");
    backend.run("DROP TABLE \"select_v1\"").await;
    prepare(backend, &MODEL).await.unwrap();
    let error = prepare(backend, &Model { projection: "thief", ..MODEL }).await.unwrap_err().to_string();
    assert!(error.contains("is the read model of projection `everything`"), "{error}");
    backend.run("DROP VIEW \"select\"").await;
    backend.run("CREATE VIEW \"select\" AS SELECT \"order\" FROM \"select_v1\"").await;
    let error = prepare(backend, &Model { version: 2, ..MODEL }).await.map(|_| ());
    // SQLite keeps the text of a view, PostgreSQL its meaning: one knows ours by its end, the other by its columns.
    if let Err(error) = error {
        assert!(error.to_string().contains("is a view that annals did not make"), "{error}");
    }
}

/// The advice of a projection that has stopped so must not fail.
pub(super) async fn a_table_without_its_checkpoint_is_built_anew_once_it_was_dropped(backend: &dyn SqlBackend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    models.commit(&[&work(0, 1, vec![row("old", 1, 1.0)], vec![])], NOW).await.unwrap();
    backend.set_checkpoint(&MODEL, None).await;
    assert!(prepare(backend, &MODEL).await.is_err(), "nothing tells how far its rows are");
    backend.run("DROP VIEW \"select\"").await;
    backend.run("DROP TABLE \"select_v1\"").await;
    let prepared = prepare(backend, &MODEL).await.unwrap();
    assert_eq!((prepared.places[0].checkpoint.position, prepared.shown), (Position::START, true));
    assert!(backend.texts("SELECT \"order\" FROM \"select\" ORDER BY 1").await.is_empty());
}

pub(super) async fn a_raised_version_has_its_own_table_and_is_shown_on_request(backend: &dyn SqlBackend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    models.commit(&[&work(0, 1, vec![row("old", 1, 1.0)], vec![])], NOW).await.unwrap();
    let second = Model { version: 2, ..MODEL };
    let prepared = prepare(backend, &second).await.unwrap();
    assert_eq!((prepared.places[0].checkpoint.position, prepared.shown), (Position::START, false));
    let commit = Work { model: second, ..work(0, 1, vec![row("new", 1, 1.0)], vec![]) };
    models.commit(&[&commit], NOW).await.unwrap();
    let shown = "SELECT \"order\" FROM \"select\" ORDER BY 1";
    assert_eq!(backend.texts(shown).await, ["old"]);
    assert_eq!(backend.shown("select").await, Some(1));
    assert_eq!(models.show(&second, Switch::default()).await.unwrap(), Shows::This);
    assert_eq!(backend.texts(shown).await, ["new"]);
    assert_eq!(backend.shown("select").await, Some(2));
    assert!(prepare(backend, &second).await.unwrap().shown);
    assert!(!prepare(backend, &MODEL).await.unwrap().shown);
}

pub(super) async fn a_version_with_more_columns_is_shown_and_taken_back(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let table = leak(TableSpec { columns: with_extra(), indexes: &[], ..EVERYTHING });
    let model = Model { version: 2, table, ..MODEL };
    assert!(!prepare(backend, &model).await.unwrap().shown);
    assert_eq!(backend.handle().show(&model, Switch::default()).await.unwrap(), Shows::This);
    assert_eq!(backend.shown("select").await, Some(2));
    assert!(prepare(backend, &model).await.unwrap().shown);
    assert!(backend.texts("SELECT extra FROM \"select\"").await.is_empty());
    // An old build finds a view with more columns than it knows, and leaves it.
    assert!(!prepare(backend, &MODEL).await.unwrap().shown);
    assert_eq!(backend.handle().show(&MODEL, Switch::default()).await.unwrap(), Shows::Stays(2));
    assert!(backend.texts("SELECT extra FROM \"select\"").await.is_empty());
    // On request it takes the view back, and with it the column.
    let on_request = Switch { even_down: true, ..Switch::default() };
    assert_eq!(backend.handle().show(&MODEL, on_request).await.unwrap(), Shows::This);
    assert!(prepare(backend, &MODEL).await.unwrap().shown);
}

pub(super) async fn a_raised_version_has_the_columns_that_the_name_shows(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let changed = |at: usize, column_type, nullable| {
        let mut columns = EVERYTHING.columns.to_vec();
        columns[at] = ColumnSpec { column_type, nullable, ..columns[at] };
        columns
    };
    let fewer: Vec<ColumnSpec> = EVERYTHING.columns[..6].to_vec();
    for (columns, lost) in [
        (fewer, Some("in version 1: `raw` is gone, `doc` is gone; keep it, or give the read model a new table name")),
        (changed(2, ColumnType::Integer, true), Some("`share` was real null and is integer null;")),
        (changed(4, ColumnType::Integer, true), Some("`at` was timestamp null and is integer null;")),
        (changed(2, ColumnType::Real, false), None),
    ] {
        let table = leak(TableSpec { columns: columns.leak(), indexes: &[], ..EVERYTHING });
        let prepared = prepare(backend, &Model { version: 2, table, ..MODEL }).await;
        match lost {
            Some(lost) => {
                let error = prepared.unwrap_err().to_string();
                assert!(error.contains(lost), "{error}");
            }
            None => assert!(!prepared.unwrap().shown),
        }
    }
    // The other way round it could be null all of a sudden.
    let second = Model {
        version: 2,
        table: leak(TableSpec { columns: changed(2, ColumnType::Real, false).leak(), ..EVERYTHING }),
        ..MODEL
    };
    assert_eq!(backend.handle().show(&second, Switch::default()).await.unwrap(), Shows::This);
    let error = prepare(backend, &Model { version: 3, ..MODEL }).await.unwrap_err().to_string();
    assert!(error.contains("`share` was real and is real null;"), "{error}");
    // What the name shows may change between start and switch.
    let third = Model {
        version: 3,
        table: leak(TableSpec { columns: changed(2, ColumnType::Real, false).leak(), ..EVERYTHING }),
        ..MODEL
    };
    let fourth = Model {
        version: 4,
        table: leak(TableSpec {
            columns: [changed(2, ColumnType::Real, false), vec![with_extra()[1]]].concat().leak(),
            ..EVERYTHING
        }),
        ..MODEL
    };
    prepare(backend, &fourth).await.unwrap();
    let fifth = Model { version: 5, ..third };
    prepare(backend, &fifth).await.unwrap();
    assert_eq!(backend.handle().show(&fourth, Switch::default()).await.unwrap(), Shows::This);
    let fault = backend.handle().show(&fifth, Switch::default()).await.unwrap_err();
    assert!(!fault.transient && fault.source.to_string().contains("`extra` is gone"), "{}", fault.source);
    assert_eq!(backend.shown("select").await, Some(4));
}

/// During a deploy the old build starts again beside the new one, and which is which does not show.
pub(super) async fn indexes_are_added_and_never_removed(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let first = backend.indexes("select_v1").await;
    assert_eq!(first.len(), 1);
    let other = leak(TableSpec { indexes: &[IndexSpec { columns: &["share"] }], ..EVERYTHING });
    prepare(backend, &Model { table: other, ..MODEL }).await.unwrap();
    let both = backend.indexes("select_v1").await;
    assert_eq!(both.len(), 2, "{both:?}");
    prepare(backend, &MODEL).await.unwrap();
    assert_eq!(backend.indexes("select_v1").await, both);
}

pub(super) async fn a_view_that_somebody_changed_or_dropped_by_hand_is_noticed(backend: &dyn SqlBackend) {
    let second = Model { version: 2, ..MODEL };
    let shown = async || backend.handle().shown(&[MODEL]).await.unwrap()[0].as_ref().expect("it is there").version;
    let columns: Vec<String> = EVERYTHING.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let by_hand = format!("CREATE VIEW \"select\" AS SELECT {} FROM \"select_v1\"", columns.join(", "));
    for model in [MODEL, second] {
        prepare(backend, &model).await.unwrap();
        backend.handle().show(&model, Switch::default()).await.unwrap();
    }
    backend.run("DROP VIEW \"select\"").await;
    backend.run(&by_hand).await;
    assert!(!prepare(backend, &second).await.unwrap().shown);
    assert_eq!(shown().await, 1, "what is stored follows the view");
    assert_eq!(backend.handle().show(&second, Switch::default()).await.unwrap(), Shows::Stays(1), "as if taken back");
    backend.run("DROP VIEW \"select\"").await;
    assert!(!prepare(backend, &second).await.unwrap().shown, "not this one's to make");
    assert!(prepare(backend, &MODEL).await.unwrap().shown);
    assert_eq!(backend.shown("select").await, Some(1));
}

pub(super) async fn names_as_long_as_they_may_be_are_prepared_again_and_again(backend: &dyn SqlBackend) {
    const INDEXES: &[IndexSpec] = &[IndexSpec { columns: &["done"] }, IndexSpec { columns: &["at"] }];
    let name = "x".repeat(TableSpec::MAX_NAME).leak();
    let table = leak(TableSpec { name, indexes: INDEXES, ..EVERYTHING });
    for version in [1, u32::MAX - 1, u32::MAX] {
        let model = Model { projection: name, version, table };
        prepare(backend, &model).await.unwrap();
        assert_eq!(backend.indexes(&model.table_name()).await.len(), 2);
        let names = backend.indexes(&model.table_name()).await;
        prepare(backend, &model).await.unwrap();
        assert_eq!(backend.indexes(&model.table_name()).await, names);
        backend.handle().commit(&[&Work { model, ..work(0, 1, vec![row("a", 1, 1.0)], vec![]) }], NOW).await.unwrap();
        assert_eq!(backend.handle().show(&model, Switch::default()).await.unwrap(), Shows::This);
    }
}

pub(super) async fn several_handles_may_prepare_at_once(backend: &dyn SqlBackend) {
    let start = async |n: u32| {
        let models = backend.handle();
        models.migrate().await?;
        let model = Model { version: 1 + n % 2, ..MODEL };
        models.prepare(&model, &shape_of(&model), incarnation(), NOW).await
    };
    let prepared = futures::join!(start(0), start(1), start(2), start(3));
    for prepared in [prepared.0, prepared.1, prepared.2, prepared.3] {
        assert_eq!(prepared.unwrap().places[0].checkpoint.position, Position::START);
    }
}

/// What somebody has given up is found for good: which events, by whom and why.
pub(super) async fn what_was_dropped_is_kept_with_who_and_why(backend: &dyn SqlBackend) {
    prepare(backend, &MODEL).await.unwrap();
    let stream = StreamId::new(Tenant::default(), "order", "o-1").unwrap();
    let dropped = Dropped {
        stream,
        from: Position::new(3).unwrap(),
        by: "an operator".to_owned(),
        why: "a test event".to_owned(),
    };
    let parking = ParkingChanges { drop: Some(dropped), ..ParkingChanges::default() };
    let commit = Work { parking, ..work(0, 7, vec![], vec![]) };
    assert_eq!(backend.handle().commit(&[&commit], NOW).await.unwrap(), [Moved::Done]);
    let table = backend.checkpoints().replace("checkpoints", "dropped_events");
    let sql = format!(
        "SELECT aggregate_id || ' ' || from_position || '-' || to_position || ' ' || dropped_by || ': ' || reason FROM {table}"
    );
    assert_eq!(backend.texts(&sql).await, ["o-1 3-7 an operator: a test event"]);
}
