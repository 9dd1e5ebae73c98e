//! The example of roles: what each may do, and the errors when it may not.

use annals_eventstore::{
    After, Append, AppendError, Begun, Context, ErrorFamily, EventStore, EventStoreExt, ExpectedVersion, Filter,
    Fingerprint, OpenError, Payload, Position, PostgresOptions, PostgresStore, RequestKey, Snapshot, StreamFilter,
    StreamId, StreamVersion, Tenant, TransactionalStore,
};
use annals_migrations::POSTGRES_ROLES_EXAMPLE;
use annals_scratch::Database;
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use super::schema::APPENDS;
use super::{code, event_for, run, stream};
use crate::backends::postgres_database;

const PASSWORD: &str = "only for tests";

/// A database with the roles of the example, under names that no other test uses: roles are the whole server's.
struct Roles {
    database: Database,
    script: String,
    suffix: String,
}

impl Roles {
    /// Runs the example and makes an account for each role but the owner, which is one.
    async fn of(database: Database) -> Self {
        let suffix = format!("_{:016x}", fastrand::u64(..));
        let mut script = POSTGRES_ROLES_EXAMPLE.to_owned();
        for role in ["annals_owner", "annals_app", "annals_reader", "annals_projections"] {
            script = script.replace(role, &format!("{role}{suffix}"));
        }
        let roles = Self { database, script, suffix };
        roles.run_example().await;
        let mut superuser = roles.superuser().await;
        for role in ["app", "reader", "projections"] {
            let account = format!("CREATE ROLE {0}{1} LOGIN IN ROLE annals_{0}{1}", role, roles.suffix);
            run(&mut superuser, &account).await.unwrap();
        }
        for account in roles.accounts() {
            run(&mut superuser, &format!("ALTER ROLE {account} PASSWORD '{PASSWORD}'")).await.unwrap();
        }
        roles
    }

    fn accounts(&self) -> [String; 4] {
        ["annals_owner", "app", "reader", "projections"].map(|account| format!("{account}{}", self.suffix))
    }

    async fn run_example(&self) {
        run(&mut self.superuser().await, &self.script).await.unwrap();
    }

    async fn superuser(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.unwrap()
    }

    fn options(&self, account: &str) -> PgConnectOptions {
        let options: PgConnectOptions = self.database.url().parse().unwrap();
        options.username(&format!("{account}{}", self.suffix)).password(PASSWORD)
    }

    fn store(&self, account: &str) -> PostgresOptions {
        PostgresOptions::new(self.options(account).to_url_lossy())
    }

    async fn connect(&self, account: &str) -> PgConnection {
        self.options(account).connect().await.unwrap()
    }

    /// Roles outlive their database.
    async fn end(self) {
        let server: PgConnectOptions = self.database.url().parse().unwrap();
        let roles = ["app", "reader", "projections"].map(|role| format!("annals_{role}{}", self.suffix));
        let all = [self.accounts().join(", "), roles.join(", ")].join(", ");
        drop(self.database);
        let mut superuser = server.database("postgres").connect().await.unwrap();
        run(&mut superuser, &format!("DROP ROLE {all}")).await.unwrap();
    }
}

/// Statements that no account may run directly, whatever its other privileges.
const FORBIDDEN: [&str; 12] = [
    "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                event_data, metadata)
     VALUES (gen_random_uuid(), 'default', 'order', 'forged', 1, 'placed', 1, '{}', '{}')",
    "UPDATE annals.events SET event_data = '{\"forged\":true}'",
    "DELETE FROM annals.events",
    "TRUNCATE annals.events",
    "ALTER TABLE annals.events DISABLE TRIGGER events_are_never_deleted",
    "ALTER TABLE annals.events DISABLE TRIGGER USER",
    "SELECT nextval('annals.events_position')",
    "SELECT setval('annals.events_position', 1)",
    "DELETE FROM annals.request_keys",
    "UPDATE annals.store SET incarnation = gen_random_uuid()",
    "CREATE TABLE annals.mine (n int)",
    "SET session_replication_role = replica",
];

async fn may_not_change_anything(roles: &Roles, account: &str) {
    let mut connection = roles.connect(account).await;
    for statement in FORBIDDEN {
        let refused = run(&mut connection, statement).await.expect_err(statement);
        assert_eq!(code(&refused), "42501", "{account}: {statement}: {refused}");
    }
}

async fn reads_everything(store: &PostgresStore, events: usize) {
    let log: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(log.len(), events);
    let named: Vec<_> =
        store.read_all(Position::START, Filter::all().event_name("placed").unwrap()).try_collect().await.unwrap();
    assert_eq!(named.len(), events);
    let streams: Vec<_> = store.streams(StreamFilter::all()).try_collect().await.unwrap();
    assert!(!streams.is_empty());
    let page = store.load_page(&streams[0].stream, StreamVersion::NONE, 100).await.unwrap();
    assert_eq!(page.events.last().map(|event| event.version), Some(streams[0].version));
    store.check_checkpoint(&store.head().await.unwrap()).await.unwrap();
}

async fn keeps_snapshots(store: &PostgresStore) {
    let (snapshots, stream) = (store.snapshots().unwrap(), stream("a"));
    let first = store.load_page(&stream, StreamVersion::NONE, 1).await.unwrap().events.remove(0);
    let body = Payload::from_json("1").unwrap();
    let snapshot = Snapshot::new(stream.clone(), "1.k".into(), first.version, first.event_id, body);
    for _ in 0..2 {
        snapshots.save_snapshots(std::slice::from_ref(&snapshot)).await.unwrap();
    }
    let found = snapshots.load_snapshot(&stream, "1.k", first.version).await.unwrap();
    assert_eq!(found.map(|found| found.snapshot), Some(snapshot));
    snapshots.delete_snapshots(&stream).await.unwrap();
}

#[tokio::test]
async fn an_application_appends_and_reads_and_changes_nothing_else() {
    let roles = Roles::of(postgres_database().await).await;
    // Running it again changes nothing.
    roles.run_example().await;
    let store = roles.store("app").open().await.unwrap();
    let first = event_for(&store);
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![first.clone()]).await.unwrap();
    let conflict = store.append(&stream("a"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap_err();
    assert_eq!(conflict.family(), ErrorFamily::Conflict, "{conflict}");
    let again = store.append(&stream("a"), ExpectedVersion::Any, vec![first]).await.unwrap();
    assert!(again.repeated);
    let other = StreamId::new(Tenant::default(), "order", "b").unwrap();
    let request = RequestKey::new("r-1", Fingerprint::of_bytes(b"body")).unwrap();
    let several = Append::to(stream("a"), ExpectedVersion::Any, vec![event_for(&store), event_for(&store)])
        .and(other, ExpectedVersion::NoStream, vec![event_for(&store)])
        .with_request(request.clone());
    let done = store.append_many(several).await.unwrap();
    assert_eq!(
        store.find_request(&Tenant::default(), &request).await.unwrap().map(|it| it.position),
        Some(done.position)
    );
    // Many at once, each twice: groups with the checked insert.
    let events: Vec<_> = (0..40).map(|_| event_for(&store)).collect();
    let twice = events.iter().chain(&events).map(|event| {
        let (store, event) = (store.clone(), event.clone());
        tokio::spawn(async move { store.append(&stream("c"), ExpectedVersion::Any, vec![event]).await })
    });
    for done in futures::future::join_all(twice.collect::<Vec<_>>()).await {
        done.unwrap().unwrap();
    }
    let request = RequestKey::new("r-2", Fingerprint::of_bytes(b"body")).unwrap();
    let context = Context::default().with_request(request);
    let Begun::New(mut work) = store.begin_with(&context).await.unwrap() else { panic!("it is new") };
    work.append(Append::to(stream("d"), ExpectedVersion::NoStream, vec![event_for(&store)])).await.unwrap();
    work.commit().await.unwrap();
    assert!(matches!(store.begin_with(&context).await.unwrap(), Begun::Repeated(_)));
    reads_everything(&store, 45).await;
    keeps_snapshots(&store).await;
    may_not_change_anything(&roles, "app").await;
    reads_everything(&store, 45).await;
    store.close().await;
    roles.end().await;
}

#[tokio::test]
async fn an_append_of_an_application_is_durable_at_any_session_setting() {
    let roles = Roles::of(postgres_database().await).await;
    let mut connection = roles.connect("app").await;
    for (n, append) in APPENDS.iter().enumerate() {
        run(&mut connection, "SET synchronous_commit = off; BEGIN").await.unwrap();
        run(&mut connection, &append.replace("'a'", &format!("'a-{n}'"))).await.unwrap();
        let setting = sqlx::query("SELECT current_setting('synchronous_commit')");
        assert_eq!(setting.fetch_all(&mut connection).await.unwrap()[0].get::<String, _>(0), "on", "{append}");
        run(&mut connection, "COMMIT").await.unwrap();
    }
    connection.close().await.unwrap();
    roles.end().await;
}

/// What an account that may only call the functions could try, so that every reader would stop at it forever.
#[tokio::test]
async fn what_no_reader_could_read_is_refused_by_the_functions_as_well() {
    let roles = Roles::of(postgres_database().await).await;
    let store = roles.store("app").open().await.unwrap();
    store.append(&stream("sound"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    let (long, control) = (format!("repeat('x', {})", 201), "U&'a\\0007'");
    let names = ["''", &long, "repeat('é', 101)", control, "U&'a\\000A'", "U&'\\007F'", "U&'\\0085'", "NULL"];
    // Tenant, aggregate type, aggregate id, event id, event type, schema version, payload, metadata, correlation and
    // causation id: valid ones, one of which is replaced by an invalid one.
    let sound = ["'default'", "'order'", "'h'", "gen_random_uuid()", "'x'", "1", "'{}'", "'{}'", "NULL", "NULL"];
    let mut hostile: Vec<(usize, String)> = Vec::new();
    for place in [0, 1, 2, 4, 8, 9] {
        // A correlation or causation id may be missing.
        hostile
            .extend(names.iter().filter(|name| place < 8 || **name != "NULL").map(|name| (place, (*name).to_owned())));
    }
    for (place, bad) in [
        (3, "'00000000-0000-0000-0000-000000000000'"),
        (3, "NULL"),
        (5, "0"),
        (5, "-1"),
        (5, "4294967296"),
        (5, "1099511627776"),
        (6, "NULL"),
        (6, "'\"' || repeat('x', 101000000) || '\"'"),
        (6, "'[' || repeat('1e-16383,', 6200) || '1]'"),
        (7, "NULL"),
        (7, "'[1]'"),
        (7, "'7'"),
        (7, "'null'"),
        (7, "'\"x\"'"),
        (7, "'{\"x\":\"y\"}'"),
        (7, "'{\"$actor\":7}'"),
        (7, "'{\"$trace\":null}'"),
        (7, "'{\"$extra\":[\"a\"]}'"),
        (7, "'{\"$extra\":{\"a\":\"b\",\"c\":1}}'"),
        (7, "'{\"$extra\":{\"a\":\"' || repeat('x', 1600000) || '\"}}'"),
    ] {
        hostile.push((place, bad.to_owned()));
    }
    for setting in ["on", "off"] {
        // A session caches the parsed text of a function.
        let mut connection = roles.connect("app").await;
        for (place, bad) in &hostile {
            let mut values = sound.map(String::from);
            values[*place].clone_from(bad);
            let [tenant, kind, id, event, name, schema, payload, metadata, correlation, causation] = values;
            // A session's string settings apply to the text that it sends, not to the functions.
            for call in [
                format!("append_next({tenant}, {kind}, {id}, 0, {event}, {name}, {schema}, {payload}, {metadata},
                                     {correlation}, {causation})"),
                format!("append_one({tenant}, {kind}, {id}, NULL, {event}, {name}, {schema}, {payload}, {metadata},
                                    {correlation}, {causation})"),
                format!("append({tenant}, false, array[{kind}], array[{id}], '{{NULL}}', '{{NULL}}', '{{1}}', array[{event}]::uuid[],
                                array[{name}], array[{schema}]::bigint[], array[{payload}], array[{metadata}],
                                array[{correlation}]::text[], array[{causation}]::text[], NULL, NULL, NULL, NULL)"),
                format!("append_group(false, array[{tenant}], array[{kind}], array[{id}], '{{NULL}}', '{{1}}', '{{1}}',
                                      array[{tenant}], array[{kind}], array[{id}], array[{event}]::uuid[], array[{name}],
                                      array[{schema}]::bigint[], array[{payload}], array[{metadata}],
                                      array[{correlation}]::text[], array[{causation}]::text[], '{{NULL}}', '{{NULL}}', '{{}}', '{{}}',
                                      '{{}}', '{{}}', '{{}}', '{{}}')"),
            ] {
                // The large ones take long, and such a setting could affect only the handling of characters.
                let is_large = bad.contains("repeat('x', 1") || bad.contains("1e-16383");
                let is_escape = bad.starts_with("U&");
                if (is_large && !call.starts_with("append_next(")) || (setting == "off" && !is_escape) {
                    continue;
                }
                let prepare = format!(
                    "PREPARE hostile AS SELECT annals.{call}; SET standard_conforming_strings = {setting}"
                );
                run(&mut connection, &prepare).await.expect("it is a call");
                let refused = run(&mut connection, "EXECUTE hostile").await;
                run(&mut connection, "DEALLOCATE hostile; SET standard_conforming_strings = on").await.unwrap();
                match refused {
                    Ok(()) => panic!("{setting}: {call} was taken"),
                    // Refused for its content, or for lack of memory to write it out.
                    Err(error) => assert!(error.as_database_error().is_some(), "{call}: {error}"),
                }
            }
        }
    }
    let mut connection = roles.connect("app").await;
    // An answer of one tenant's request about the events of another.
    let group = |tenant: &str, first: i32, last: i32| {
        format!(
            "SELECT annals.append_group(false, '{{theirs,ours}}', '{{order,order}}', '{{h,h}}', '{{NULL,NULL}}', '{{1,2}}',
                '{{1,1}}', '{{theirs,ours}}', '{{order,order}}', '{{h,h}}', array[gen_random_uuid(), gen_random_uuid()],
                '{{x,x}}', '{{1,1}}', '{{\"{{}}\",\"{{}}\"}}', '{{\"{{}}\",\"{{}}\"}}', '{{NULL,NULL}}', '{{NULL,NULL}}',
                '{{NULL,NULL}}', '{{NULL,NULL}}', '{{{tenant}}}', '{{r}}', array[gen_random_uuid()], '{{60000000}}', '{{{first}}}',
                '{{{last}}}')"
        )
    };
    for (tenant, first, last) in [
        ("ours", 1, 1),
        ("theirs", 2, 2),
        ("ours", 1, 2),
        ("other", 1, 2),
        ("ours", 2, 3),
        ("ours", 0, 2),
        ("ours", 2, 1),
    ] {
        let refused = run(&mut connection, &group(tenant, first, last)).await.expect_err("refused");
        assert_eq!(code(&refused), "23514", "{tenant} {first} {last}: {refused}");
    }
    for key in ["''", &long, control] {
        let nothing = format!(
            "SELECT annals.append('default', false, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',
                                  '{{}}', '{{}}', '{{}}', NULL, {key}, gen_random_uuid(), 60000000)"
        );
        assert_eq!(code(&run(&mut connection, &nothing).await.unwrap_err()), "23514", "{key}");
    }
    // An event of the append without a stream.
    let nowhere =
        "SELECT annals.append('default', false, '{order}', '{h}', '{NULL}', '{NULL}', '{1,2}', array[gen_random_uuid(),
                                        gen_random_uuid()], '{x,x}', '{1,1}', '{\"{}\",\"{}\"}', '{\"{}\",\"{}\"}',
                                        '{NULL,NULL}', '{NULL,NULL}', NULL, NULL, NULL, NULL)";
    assert_eq!(code(&run(&mut connection, nowhere).await.unwrap_err()), "23514");
    reads_everything(&store, 1).await;
    // The rules do not refuse valid events.
    run(&mut connection, &group("ours", 2, 2)).await.unwrap();
    reads_log(&store, 3).await;
    connection.close().await.unwrap();
    store.close().await;
    roles.end().await;
}

async fn reads_log(store: &PostgresStore, events: usize) {
    let log: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(log.len(), events);
}

/// A function that runs with its owner's privileges must not run objects that its caller has created.
#[tokio::test]
async fn what_an_application_puts_into_its_search_path_is_not_run() {
    let roles = Roles::of(postgres_database().await).await;
    let traps = format!("CREATE SCHEMA traps AUTHORIZATION app{}", roles.suffix);
    run(&mut roles.superuser().await, &traps).await.unwrap();
    let mut connection = roles.connect("app").await;
    let trap = "
        GRANT USAGE ON SCHEMA traps TO PUBLIC;
        CREATE FUNCTION traps.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'the trap was run as %', current_user; END $$;
        CREATE FUNCTION traps.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'the trap was run as %', current_user; END $$;
        SET search_path = traps, pg_catalog";
    run(&mut connection, trap).await.unwrap();
    let trapped = run(&mut connection, "SELECT clock_timestamp()").await.unwrap_err();
    assert!(trapped.to_string().contains("the trap was run"), "{trapped}");
    let append = "SELECT (annals.append_one('default', 'order', 'a', NULL, gen_random_uuid(), 'x', 1, '{}', '{}',
                                            NULL, NULL)).kind";
    run(&mut connection, append).await.unwrap();
    connection.close().await.unwrap();
    roles.end().await;
}

#[tokio::test]
async fn a_reader_reads_and_subscribes_and_its_append_is_refused() {
    let roles = Roles::of(postgres_database().await).await;
    let app = roles.store("app").open().await.unwrap();
    app.append(&stream("a"), ExpectedVersion::NoStream, vec![event_for(&app)]).await.unwrap();
    for account in ["reader", "projections"] {
        let reader = roles.store(account).open().await.unwrap();
        reads_everything(&reader, 1).await;
        let mut subscription = reader.subscribe(Position::START, Filter::all());
        subscription.next().await.unwrap().unwrap();
        let one = Append::to(stream("a"), ExpectedVersion::Any, vec![event_for(&reader)]);
        let two = Append::to(stream("b"), ExpectedVersion::Any, vec![event_for(&reader), event_for(&reader)]);
        for append in [one, two] {
            match reader.append_many(append).await.unwrap_err() {
                AppendError::ReadOnly { reason } => {
                    assert!(reason.contains("permission denied for function append"), "{reason}");
                    assert!(reason.contains("roles.example.sql"), "{reason}");
                }
                other => panic!("{account}: {other:?}"),
            }
        }
        may_not_change_anything(&roles, account).await;
        reader.close().await;
    }
    app.close().await;
    roles.end().await;
}

/// Readers see in pg_locks which writers are running, also those of other accounts.
#[tokio::test]
async fn a_reader_waits_for_the_writers_of_other_accounts() {
    let roles = Roles::of(postgres_database().await).await;
    let reader = roles.store("reader").open().await.unwrap();
    let app = roles.store("app").open().await.unwrap();
    let mut slow = roles.superuser().await;
    run(&mut slow, "BEGIN").await.unwrap();
    super::insert(&mut slow, "slow").await;
    app.append(&stream("quick"), ExpectedVersion::NoStream, vec![event_for(&app)]).await.unwrap();
    let page = reader.read_page(After::START, &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, false));
    run(&mut slow, "ROLLBACK").await.unwrap();
    reads_everything(&reader, 1).await;
    reader.close().await;
    app.close().await;
    slow.close().await.unwrap();
    roles.end().await;
}

#[tokio::test]
async fn projections_keep_tables_in_their_own_schema_alone() {
    let roles = Roles::of(postgres_database().await).await;
    let mut projections = roles.connect("projections").await;
    run(&mut projections, "CREATE TABLE read_models.order_list (n int); INSERT INTO read_models.order_list VALUES (1)")
        .await
        .unwrap();
    let mut reader = roles.connect("reader").await;
    let refused = run(&mut reader, "INSERT INTO read_models.order_list VALUES (2)").await.unwrap_err();
    assert_eq!(code(&refused), "42501", "{refused}");
    projections.close().await.unwrap();
    reader.close().await.unwrap();
    roles.end().await;
}

#[tokio::test]
async fn only_the_owner_creates_the_schema() {
    let roles = Roles::of(Database::empty().await).await;
    for account in ["app", "reader"] {
        let refused = roles.store(account).migrate().open().await.unwrap_err();
        assert!(matches!(refused, OpenError::Unsound { .. }), "{refused:?}");
        assert!(refused.to_string().contains("roles.example.sql"), "{refused}");
    }
    let owner = roles.store("annals_owner").migrate().open().await.unwrap();
    owner.append(&stream("a"), ExpectedVersion::NoStream, vec![event_for(&owner)]).await.unwrap();
    // Until the example is run again, no other account has any privileges on the new schema.
    let refused = roles.store("reader").open().await.unwrap_err();
    assert!(matches!(refused, OpenError::Unsound { .. }), "{refused:?}");
    roles.run_example().await;
    let app = roles.store("app").open().await.unwrap();
    app.append(&stream("b"), ExpectedVersion::NoStream, vec![event_for(&app)]).await.unwrap();
    reads_everything(&roles.store("reader").open().await.unwrap(), 2).await;
    // Run once more, it waits for no program that has read a table.
    let mut report = roles.connect("reader").await;
    run(&mut report, "BEGIN; SELECT FROM annals.events, annals.store").await.unwrap();
    run(&mut roles.superuser().await, &format!("SET lock_timeout = '2s'; {}", roles.script)).await.unwrap();
    report.close().await.unwrap();
    // Even the owner cannot change recorded events while the triggers exist.
    let mut by_hand = roles.connect("annals_owner").await;
    for statement in
        ["UPDATE annals.events SET event_data = '{}'", "DELETE FROM annals.events", "TRUNCATE annals.events"]
    {
        assert_eq!(code(&run(&mut by_hand, statement).await.unwrap_err()), "23001", "{statement}");
    }
    app.close().await;
    owner.close().await;
    by_hand.close().await.unwrap();
    roles.end().await;
}

#[tokio::test]
async fn an_account_without_free_connections_gets_a_transient_error_and_continues() {
    let roles = Roles::of(postgres_database().await).await;
    let store = roles.store("app").open().await.unwrap();
    let mut subscription = store.subscribe(Position::START, Filter::all());
    store.append(&stream("before"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    subscription.next().await.unwrap().unwrap();
    let mut superuser = roles.superuser().await;
    let limit = |most: i32| format!("ALTER ROLE app{} CONNECTION LIMIT {most}", roles.suffix);
    run(&mut superuser, &limit(0)).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'annals'";
    run(&mut superuser, end).await.unwrap();

    let append = Append::to(stream("a"), ExpectedVersion::NoStream, vec![event_for(&store)]);
    // The first one may find out that its connection has ended.
    if let Err(error) = store.append_many(append.clone()).await {
        assert!(matches!(error.family(), ErrorFamily::OutcomeUnknown | ErrorFamily::Transient), "{error:?}");
    }
    for _ in 0..3 {
        let error = store.append_many(append.clone()).await.unwrap_err();
        assert!(matches!(&error, AppendError::Unavailable { .. }), "{error:?}");
        let why = std::error::Error::source(&error).expect("it has a cause").to_string();
        assert!(why.contains("too many connections"), "{why}");
        let error = store.load_page(&stream("a"), StreamVersion::NONE, 10).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    run(&mut superuser, &limit(-1)).await.unwrap();
    assert!(!store.append_many(append).await.unwrap().repeated);
    let event = tokio::time::timeout(std::time::Duration::from_secs(10), subscription.next()).await;
    assert_eq!(event.expect("it continues").unwrap().unwrap().stream, stream("a"));
    store.close().await;
    drop(superuser);
    roles.end().await;
}
