-- An example of roles and their privileges. Not a migration: a superuser runs it with psql, in the database of the store.
--
--   annals_owner        creates and migrates the schema: PostgresOptions::migrate. It has no other use.
--   annals_app          appends and reads, and keeps snapshots. It cannot insert, change or remove a row of the log by hand,
--                       nor allocate positions.
--   annals_reader       reads and subscribes.
--   annals_projections  the same, and writes read models in its own schema, `read_models`, which must be the first of
--                       its search path (ALTER ROLE shop_views SET search_path = read_models).
--
-- An account that can only connect reads and writes nothing, and by locks it delays an append of several streams by 1 s, with a
-- warning that names it, and the first migration by 5 s. But units of work for a request whose key it knows wait for its lock, until
-- they fail as busy, and it can use up what all accounts share: connections, and the lock table of the server, by advisory locks.
-- PostgreSQL lets every account connect to a new database; where not all are trusted:
--   REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO annals_owner, annals_reader;
--
-- The last three do not log in: grant them to the accounts of your programs (GRANT annals_app TO shop_api). Run it before
-- the first migration, so that the owner can create the schema, and again after every migration, because new functions
-- have default privileges. It may be run any number of times.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['annals_owner', 'annals_app', 'annals_reader', 'annals_projections'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END $$;

ALTER ROLE annals_owner LOGIN;
-- To see what standbys have: the owner's privileges also apply to the query whether an append has reached them.
GRANT pg_read_all_stats TO annals_owner;
GRANT annals_reader TO annals_app, annals_projections;
CREATE SCHEMA IF NOT EXISTS read_models AUTHORIZATION annals_projections;
-- By default every account may call a function.
ALTER DEFAULT PRIVILEGES FOR ROLE annals_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

DO $$
DECLARE
    thing record;
BEGIN
    -- For `CREATE SCHEMA IF NOT EXISTS`, which needs it even if the schema exists.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO annals_owner', current_database());
    IF to_regnamespace('annals') IS NULL THEN
        RAISE NOTICE 'the store does not exist yet: migrate as annals_owner, then run this again';
        RETURN;
    END IF;

    -- One owner, also for what another account has created. Sequences, indexes and row types follow their tables. What
    -- has this owner is left alone: a change of owner locks the table, and programs that use it could be in a deadlock with it.
    ALTER SCHEMA annals OWNER TO annals_owner;
    FOR thing IN SELECT oid::regclass AS name FROM pg_class
                 WHERE relnamespace = 'annals'::regnamespace AND relkind IN ('r', 'p', 'v')
                   AND relowner <> 'annals_owner'::regrole LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO annals_owner', thing.name);
    END LOOP;
    FOR thing IN SELECT oid::regclass AS name FROM pg_class
                 WHERE relnamespace = 'annals'::regnamespace AND relkind = 'c' LOOP
        EXECUTE format('ALTER TYPE %s OWNER TO annals_owner', thing.name);
    END LOOP;
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'annals'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO annals_owner', thing.name);
    END LOOP;

    REVOKE ALL ON SCHEMA annals FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA annals FROM PUBLIC;
    REVOKE ALL ON ALL SEQUENCES IN SCHEMA annals FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA annals FROM PUBLIC;
    GRANT USAGE ON SCHEMA annals TO annals_reader;
    GRANT SELECT ON ALL TABLES IN SCHEMA annals TO annals_reader;
    -- To see the last allocated position; allocating one needs USAGE.
    GRANT SELECT ON ALL SEQUENCES IN SCHEMA annals TO annals_reader;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA annals TO annals_app;
    -- Readers keep marks for reads as of a time; without this they are kept in memory.
    GRANT INSERT, UPDATE ON annals.time_marks TO annals_app, annals_projections;
    -- Saved states are a cache, which applications keep. Without this grant they work without it.
    GRANT INSERT, UPDATE, DELETE ON annals.snapshots TO annals_app;
    -- Projections update their checkpoints. With read models in another database, this table does not exist.
    GRANT INSERT, UPDATE, DELETE ON annals.checkpoints, annals.read_models, annals.runners, annals.parked_streams,
        annals.dropped_events, annals.reactors, annals.reactor_failures TO annals_projections;

    -- Appends, and that query, run with the owner's privileges, and ignore the search path of the caller.
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc
                 WHERE pronamespace = 'annals'::regnamespace AND (proname LIKE 'append%' OR proname = 'is_replicated') LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', thing.name);
    END LOOP;
END $$;
