//! Read models in a PostgreSQL database: the schema, the plans, the locks. What every database must do is in
//! `database/contract`.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{BackendError, Position, PostgresDatabase, PostgresOptions, StreamId, Tenant};
use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::load::seek_by_key;
use super::schema::ModelSchema;
use super::statements::Statements;
use super::{PostgresReadModels, ReadModels};
use crate::column::{ColumnType, ColumnValue};
use crate::database::contract::{
    Backend, EVERYTHING, InPostgres, LATEST, LISTED, LookUp, MODEL, SqlBackend, incarnation, key, prepare, random_json,
    row, shape_of, unit, work,
};
use crate::database::{Model, Moved, QueryFault, Runner, Shows, Switch, Work};
use crate::read_model::TableSpec;
use crate::reads::{Query, Select};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// The keys that are looked for, and behind them the place of a checkpoint.
const KEYS: &str = "'{x,y}', '{1,2}'";
const PLACE: &str = "'public', 'everything', 1, 0, 0, '00000000-0000-0000-0000-000000000001', 0, NULL";

/// The plan of a statement as it is kept for any values.
async fn plan(connection: &mut PgConnection, statement: &str, values: &str) -> String {
    run(connection, "SET LOCAL plan_cache_mode = force_generic_plan; DEALLOCATE ALL").await;
    run(connection, &format!("PREPARE sought AS {statement}")).await;
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE sought ({values})");
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    rows.iter().map(|row| row.get::<&str, _>(0)).collect::<Vec<_>>().join("\n")
}

/// Each key is sought in the table's tree, whatever the statistics say: a plan is kept for as long as the connection, and a
/// scan of the whole table per batch would make every batch slower than the last.
#[tokio::test]
async fn rows_are_sought_by_their_key_whatever_the_statistics_say() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    let schema = ModelSchema::find(&backend.database).await.unwrap();
    let statements = Statements::of("public", &MODEL);
    let fill = "INSERT INTO select_v1 (\"order\", \"group\") SELECT 'x' || n, n FROM generate_series";
    let mut deceived = false;
    for (what, sql) in [
        ("never analysed and empty", String::new()),
        ("one row, analysed", format!("{fill}(1, 1) AS n; ANALYZE select_v1")),
        ("many rows, analysed when there was one", format!("{fill}(2, 50000) AS n")),
        ("many rows, analysed", "ANALYZE select_v1".to_owned()),
        ("removed, analysed when there were many", "DELETE FROM select_v1".to_owned()),
    ] {
        backend.run(&sql).await;
        let mut transaction = backend.database.begin().await.unwrap();
        let keys_and_place = format!("{KEYS}, {PLACE}");
        deceived |= plan(&mut transaction, &statements.load, &keys_and_place).await.contains("Seq Scan on select_v1");
        seek_by_key(&schema, &mut transaction).await.unwrap();
        for (statement, values) in [
            (&statements.load, keys_and_place.as_str()),
            (&statements.remove, KEYS),
            (&statements.remove_by_prefix[0], "'{x,y}'"),
        ] {
            let plan = plan(&mut transaction, statement, values).await;
            let by_key =
                plan.contains("Index Scan using select_v1_pkey") || plan.contains("Index Scan on select_v1_pkey");
            assert!(by_key, "{what}:\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{what}:\n{plan}");
        }
        // In a transaction, so that the connection does not remember statements that are gone.
        transaction.rollback().await.unwrap();
    }
    assert!(deceived, "without the setting, some statistics deceive the planner");
}

/// The plan of every read, so that a lost index shows in review. No user's text scans the rows of other tenants.
#[tokio::test]
async fn the_plans_of_queries_by_the_name_are_as_agreed() {
    let backend = InPostgres::new().await;
    prepare(&backend, &LISTED).await.unwrap();
    let fill = "INSERT INTO listed_v1 SELECT 't' || n % 50, 'o' || n, 's' || n % 3, now() - n * interval '1 s'
                FROM generate_series(1, 50000) AS n; ANALYZE listed_v1";
    backend.run(fill).await;
    let statements = Statements::of("public", &LISTED);
    let [condition, order, limit] = LATEST.map(str::to_owned);
    let value = (ColumnType::Text, ColumnValue::Text("s1".into()));
    let tenant = Some(Tenant::default());
    let latest = Select { condition, order, limit, values: vec![value], tenant };
    let all = Select { condition: String::new(), order: "r.\"order_id\"".to_owned(), values: vec![], ..latest.clone() };
    let mut plans = String::new();
    for (what, sql, values) in [
        ("find", Arc::clone(&statements.find), "'{t1}', '{o1}', 'public'"),
        ("find_many", Arc::clone(&statements.find), "'{t1,t1,t1}', '{o1,o51,o101}', 'public'"),
        ("select of a tenant", statements.select(&all), "'public', 't1'"),
        ("select by an index", statements.select(&latest), "'s1', 'public', 't1'"),
    ] {
        let mut transaction = backend.database.begin().await.unwrap();
        // As for values that are known, since no plan is kept.
        let explain = format!("DEALLOCATE ALL; PREPARE read AS {sql}");
        run(&mut transaction, &explain).await;
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE read ({values})");
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *transaction).await.unwrap();
        plans.push_str(&format!("{what}: {sql}\n"));
        rows.iter().for_each(|row| plans.push_str(&format!("    {}\n", row.get::<&str, _>(0))));
        transaction.rollback().await.unwrap();
    }
    insta::assert_snapshot!(plans);
}

#[tokio::test]
async fn the_schema_of_a_read_model_is_as_agreed() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    let columns = backend
        .texts(
            "SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
                    || coalesce(' collate ' || (SELECT c.collname FROM pg_collation AS c WHERE c.oid = a.attcollation), '')
             FROM pg_attribute AS a
             WHERE a.attrelid = to_regclass('public.select_v1') AND a.attnum > 0
             ORDER BY a.attnum",
        )
        .await;
    assert_eq!(
        columns,
        [
            "order text not null collate C",
            "group bigint not null",
            "share double precision",
            "done boolean",
            "at timestamp with time zone",
            "id uuid",
            "raw bytea",
            "doc jsonb",
        ]
    );
    assert_eq!(
        backend.texts("SELECT indexdef FROM pg_indexes WHERE tablename = 'select_v1' ORDER BY 1").await,
        [
            "CREATE INDEX select_v1_by_d1e97912 ON public.select_v1 USING btree (done, at)",
            "CREATE UNIQUE INDEX select_v1_pkey ON public.select_v1 USING btree (\"order\", \"group\")",
        ]
    );
    let view = backend.texts("SELECT pg_get_viewdef(to_regclass('public.select'), 0)").await.concat();
    let view: Vec<&str> = view.split_whitespace().collect();
    assert!(
        view.join(" ")
            .replace("select_v1.", "")
            .starts_with("SELECT \"order\", \"group\", share, done, at, id, raw, doc FROM")
    );
    let stored = backend.texts("SELECT read_schema || ': ' || shape FROM annals.checkpoints ORDER BY projection").await;
    assert_eq!(
        stored,
        [
            "public: select(order text, group integer, share real null, done bool null, at timestamp null, id uuid null, \
             raw bytes null, doc json null; key order, group)"
        ]
    );
}

const THIRD: Model = Model { version: 3, ..MODEL };

/// To switch back from a version with more columns, the view must be made anew.
const ON_REQUEST: Switch = Switch { even_down: true, foreign: None };

/// The model under version 2, with a column less.
fn narrow() -> Model {
    let columns = EVERYTHING.columns.split_at(7).0;
    Model { version: 2, table: Box::leak(Box::new(TableSpec { columns, ..EVERYTHING })), ..MODEL }
}

#[tokio::test]
async fn a_view_in_use_is_not_waited_for_long_and_switched_when_it_is_free() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    for model in [THIRD, narrow()] {
        prepare(&backend, &model).await.unwrap();
        let mut report = backend.database.begin().await.unwrap();
        run(&mut report, "SELECT * FROM \"select\"").await;
        let shown = tokio::time::timeout(Duration::from_secs(20), backend.handle().show(&model, ON_REQUEST)).await;
        let fault = shown.expect("it gives up").unwrap_err();
        assert!(fault.transient, "{}", fault.source);
        assert_ne!(backend.shown("select").await, Some(model.version));
        report.rollback().await.unwrap();
        assert_eq!(backend.handle().show(&model, ON_REQUEST).await.unwrap(), Shows::This);
        assert_eq!(backend.shown("select").await, Some(model.version));
    }
}

#[tokio::test]
async fn who_may_read_the_view_may_read_it_after_a_switch_and_comments_stay() {
    let backend = InPostgres::new().await;
    prepare(&backend, &THIRD).await.unwrap();
    // Roles belong to the server, not to the database, so the name is one that exists everywhere.
    backend
        .run(
            "GRANT SELECT ON \"select\" TO pg_monitor WITH GRANT OPTION; GRANT INSERT ON \"select\" TO PUBLIC;
             GRANT UPDATE (\"order\") ON \"select\" TO pg_monitor WITH GRANT OPTION;
             COMMENT ON VIEW \"select\" IS 'it''s everything'; COMMENT ON COLUMN \"select\".\"group\" IS 'a number'",
        )
        .await;
    let further = "SELECT privilege_type || ' ' || column_name || ' ' || grantee || ' ' || is_grantable FROM information_schema.column_privileges
                   WHERE table_name = 'select' AND grantee <> current_user AND privilege_type = 'UPDATE'
                   UNION ALL SELECT description FROM pg_description WHERE objoid = '\"select\"'::regclass ORDER BY 1";
    let further_before = backend.texts(further).await;
    assert_eq!(further_before, ["UPDATE order pg_monitor YES", "a number", "it's everything"]);
    let grants =
        "SELECT privilege_type || ' ' || grantee || ' ' || is_grantable FROM information_schema.table_privileges
                  WHERE table_name = 'select' AND grantee <> current_user ORDER BY 1";
    let before = backend.texts(grants).await;
    assert_eq!(before, ["INSERT PUBLIC NO", "SELECT pg_monitor YES"]);
    prepare(&backend, &narrow()).await.unwrap();
    assert_eq!(backend.handle().show(&narrow(), ON_REQUEST).await.unwrap(), Shows::This);
    assert_eq!(backend.texts(grants).await, before);
    assert_eq!(backend.texts(further).await, further_before);
}

#[tokio::test]
async fn a_view_that_others_depend_on_gains_columns_but_is_not_made_anew() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    backend.run("CREATE VIEW theirs AS SELECT \"order\" FROM \"select\"").await;
    // The new columns of the second are not at its end, and yet go to the end of the view.
    let mut columns = EVERYTHING.columns.to_vec();
    columns.insert(0, crate::ColumnSpec { name: "extra", column_type: crate::ColumnType::Text, nullable: true });
    let more = Model { table: Box::leak(Box::new(TableSpec { columns: columns.leak(), ..EVERYTHING })), ..THIRD };
    prepare(&backend, &more).await.unwrap();
    assert_eq!(backend.handle().show(&more, Switch::default()).await.unwrap(), Shows::This);
    backend.run("INSERT INTO select_v3 (\"order\", \"group\") VALUES ('a', 1)").await;
    backend.handle().commit(&[&Work { model: more, ..work(0, 1, vec![], vec![]) }], NOW).await.unwrap();
    assert_eq!(
        backend.texts("SELECT \"order\" FROM theirs ORDER BY 1").await,
        ["a"],
        "their view shows the new version"
    );
    prepare(&backend, &narrow()).await.unwrap();
    backend.handle().commit(&[&Work { model: narrow(), ..work(0, 1, vec![], vec![]) }], NOW).await.unwrap();
    let fault = backend.handle().show(&narrow(), ON_REQUEST).await.unwrap_err();
    assert!(!fault.transient);
    let said = crate::member::chain(&fault.source);
    assert!(said.contains("others depend on it; drop those and start again"), "{said}");
    assert_eq!(backend.shown("select").await, Some(3));
}

/// A statement that sqlx has prepared before the switch still works after it.
#[tokio::test]
async fn a_prepared_query_of_the_view_works_through_a_switch() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    let mut reader = backend.database.read().await.unwrap();
    for (version, expected) in [(1, 0_i64), (3, 1), (2, 1)] {
        let model = if version == 2 { narrow() } else { Model { version, ..MODEL } };
        prepare(&backend, &model).await.unwrap();
        if version > 1 {
            let columns = model.table.columns.len();
            let rows = vec![row("a", 1, 1.0)[..columns].to_vec()];
            backend.handle().commit(&[&Work { model, ..work(0, 1, rows, vec![]) }], NOW).await.unwrap();
            assert_eq!(backend.handle().show(&model, ON_REQUEST).await.unwrap(), Shows::This);
        }
        for _ in 0..7 {
            let query = sqlx::query("SELECT count(*) FROM \"select\" WHERE \"group\" = $1").bind(1_i64);
            assert_eq!(query.fetch_one(&mut *reader).await.unwrap().get::<i64, _>(0), expected, "version {version}");
        }
    }
}

#[tokio::test]
async fn apps_with_a_schema_each_share_a_database() {
    let backend = InPostgres::new().await;
    backend.run("CREATE SCHEMA \"the \"\"shop\"").await;
    prepare(&backend, &MODEL).await.unwrap();
    let url = format!("{}&options=-csearch_path%3D%22the%5C+%22%22shop%22", backend.scratch.url());
    let elsewhere = PostgresReadModels::new(PostgresDatabase::open(url).await.unwrap());
    elsewhere.migrate().await.unwrap();
    elsewhere.prepare(&MODEL, &shape_of(&MODEL), incarnation(), NOW).await.unwrap();
    elsewhere.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], NOW).await.unwrap();
    elsewhere.commit(&[&work(1, 2, vec![], vec![key("b", 1)])], NOW).await.unwrap();
    elsewhere.show(&MODEL, ON_REQUEST).await.unwrap();
    assert_eq!(elsewhere.rows(&MODEL, &[key("a", 1)]).await.unwrap().len(), 1);
    assert_eq!(elsewhere.checkpoint(&MODEL).await.unwrap().unwrap().position.get(), 2);
    assert!(elsewhere.prepare(&MODEL, &shape_of(&MODEL), incarnation(), NOW).await.unwrap().shown);
    assert_eq!(backend.handle().checkpoint(&MODEL).await.unwrap().unwrap().position.get(), 0);
    assert_eq!(backend.texts("SELECT \"order\" FROM \"the \"\"shop\".\"select\"").await, ["a"]);
    assert!(backend.texts("SELECT \"order\" FROM public.\"select\"").await.is_empty());
}

#[tokio::test]
async fn a_search_path_that_leads_nowhere_is_refused_with_what_to_do() {
    let backend = InPostgres::new().await;
    let url = format!("{}&options=-csearch_path%3Dnowhere", backend.scratch.url());
    let models = PostgresReadModels::new(PostgresDatabase::open(url).await.unwrap());
    let error = models.migrate().await.unwrap_err();
    assert!(crate::member::chain(&error).contains("`search_path` names no schema that exists"), "{error:?}");
}

/// What a fold takes for the normal form of JSON is what the server writes.
#[tokio::test]
async fn json_has_the_form_that_the_server_gives_it() {
    let backend = InPostgres::new().await;
    let mut rng = fastrand::Rng::new();
    let mut texts: Vec<String> = (0..300).map(|_| random_json(&mut rng, 3)).collect();
    texts.extend(
        [
            r#"{"zip":1,"a":{"bb":[],"b":1e2},"é":true,"zap":null}"#,
            r#"[1e16,-0,-0.0,1.50,0e-2,1.25e1,1.5e-7,123456789012345678901234567890,5e-324,1.7976931348623157e308]"#,
            r#""\u00fc\/\u001F\b\f\n\r\t\u007f\"\\""#,
        ]
        .map(str::to_owned),
    );
    for text in texts {
        let query = sqlx::query("SELECT $1::jsonb::text").bind(text.clone());
        let written: String = query.fetch_one(&mut *backend.database.read().await.unwrap()).await.unwrap().get(0);
        assert_eq!(ColumnValue::Json(text.clone().into()).normal(), ColumnValue::Json(written.into()), "{text}");
    }
}

/// Two processes that started their projections in different orders must not deadlock.
#[tokio::test]
async fn commits_of_the_same_parts_in_any_order_never_deadlock() {
    const OTHER: Model = Model { projection: "other", version: 1, table: &TableSpec { name: "other", ..EVERYTHING } };
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    prepare(&backend, &OTHER).await.unwrap();
    let (one, two) = (backend.handle(), backend.handle());
    for from in 0..50 {
        let rows = || (0..50).map(|n| row("a", n, 1.0)).collect();
        // A removal makes a commit take its other way.
        let removed = || if from % 2 == 0 { vec![key("b", 1)] } else { vec![] };
        let part = |model| Work { model, ..work(from, from + 1, rows(), removed()) };
        let (first, second) = (part(MODEL), part(OTHER));
        let forth = [&first, &second];
        let back = [&second, &first];
        let (forth, back) = futures::join!(one.commit(&forth, NOW), two.commit(&back, NOW));
        let done = [forth.unwrap(), back.unwrap()].concat().iter().filter(|moved| **moved == Moved::Done).count();
        assert_eq!(done, 2);
    }
}

/// Meaning is read from codes: what may pass is waited out, everything else stops the projection.
#[tokio::test]
async fn codes_tell_what_may_pass() {
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    backend
        .run(
            "CREATE TABLE fault (code text);
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             RAISE EXCEPTION USING ERRCODE = (SELECT code FROM fault);
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON select_v1 FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await;
    let commit = work(0, 1, vec![row("a", 1, 1.0)], vec![]);
    for (code, transient) in [
        ("40001", true),
        ("40P01", true),
        ("55P03", true),
        ("57014", true),
        ("57P01", true),
        ("08006", true),
        ("53100", true),
        ("53200", true),
        ("53300", true),
        ("25006", true),
        ("22P02", false),
        ("23514", false),
        ("42P01", false),
        ("42501", false),
        ("54000", false),
        ("P0001", false),
        ("XX001", false),
    ] {
        backend.run(&format!("DELETE FROM fault; INSERT INTO fault VALUES ('{code}')")).await;
        let fault = backend.handle().commit(&[&commit], NOW).await.unwrap_err();
        assert_eq!(fault.transient, transient, "{code}: {}", fault.source);
        assert!(transient || fault.part == Some(0), "{code}: the part is named");
    }
    backend.run("DROP TRIGGER fail ON select_v1").await;
    assert_eq!(backend.handle().commit(&[&commit], NOW).await.unwrap(), [Moved::Done], "and then it continues");
}

/// A backend that hangs answers no more than one that waits for a lock. One was enough to stop a projection, or all leases of a process.
#[tokio::test]
async fn no_call_waits_longer_than_the_server_may_take_to_answer() {
    const LIMIT: Duration = Duration::from_millis(200);
    let backend = InPostgres::new().await;
    prepare(&backend, &MODEL).await.unwrap();
    let options = PostgresOptions::new(backend.scratch.url()).connections(40).answer_timeout(LIMIT);
    let models = PostgresReadModels::new(PostgresDatabase::open_with(&options).await.unwrap());
    models.schema().await.unwrap();
    let (writing, removing) = (work(0, 1, vec![row("a", 1, 1.0)], vec![]), work(0, 1, vec![], vec![key("a", 1)]));
    let (from, unit) = (writing.from, unit(&MODEL));
    let runs = vec![(MODEL.projection, MODEL.version)];
    let runner = Runner { id: Uuid::from_u128(1), name: "a".to_owned(), runs, stopped: Vec::new() };
    let stream = StreamId::new(Tenant::default(), "order", "a").unwrap();
    let (keys, units, works, removals, held) = ([key("a", 1)], [unit], [&writing], [&removing], [(unit, 1)]);
    let find = Query::Keys(&keys);
    let mut lock = backend.database.begin().await.unwrap();
    let lock_all =
        "LOCK TABLE annals.checkpoints, annals.read_models, annals.runners, annals.parked_streams, annals.reactors,
                               annals.reactor_failures, select_v1 IN ACCESS EXCLUSIVE MODE";
    run(&mut lock, lock_all).await;
    macro_rules! calls {
        ($($call:ident($($value:expr),*)),+ $(,)?) => {
            vec![$((stringify!($call), models.$call($($value),*).map(|answer| answer.map(drop).map_err(|e| e.source)).boxed())),+]
        };
    }
    let mut calls = calls!(
        begin_applying(&MODEL, &from),
        places(&units),
        load(&MODEL, &from, &keys, usize::MAX),
        commit(&works, NOW),
        commit(&removals, NOW),
        show(&MODEL, Switch::default()),
        failing("reactor", false),
        ask_again("reactor", &stream),
        shown(&[MODEL]),
        survey(&runner, LIMIT),
        claim(&runner, &units, LIMIT),
        release(&held),
        begin_try(unit, 1, Position::START),
        forget_tries("everything"),
        seize(unit, runner.id, None, LIMIT),
        parked(unit),
        leave(&runner),
        pause("everything", "me", NOW),
        resume("everything"),
    );
    let name = async { models.name(&MODEL).await.map(drop).map_err(BackendError::new) };
    let query = async {
        match models.query(&MODEL, 1, &find).await {
            Err(QueryFault::Database(error)) => Err(BackendError::new(error)),
            _ => Ok(()),
        }
    };
    calls.extend([("name", name.boxed()), ("query", query.boxed())]);
    let ended = calls.into_iter().map(async |(call, answer)| (call, tokio::time::timeout(LIMIT * 10, answer).await));
    for (call, answer) in join_all(ended).await {
        let error = crate::member::chain(&answer.unwrap_or_else(|_| panic!("{call} ends")).unwrap_err());
        assert!(error.contains("the server gave no answer within 200ms"), "{call}: {error}");
    }
    lock.rollback().await.unwrap();
    assert_eq!(models.commit(&works, NOW).await.unwrap(), [Moved::Done]);
}
