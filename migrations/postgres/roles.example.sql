-- An example of who may do what. Not a migration: a superuser runs it with psql, in the database of the store.
--
--   annals_owner        makes the schema and migrates it: PostgresOptions::migrate. It logs in for nothing else.
--   annals_app          appends and reads. It cannot insert, change or remove a row by hand, nor use up positions.
--   annals_reader       reads and subscribes.
--   annals_projections  the same, and keeps read models in a schema of its own, `read_models`, which must be the first of
--                       its search path (ALTER ROLE shop_views SET search_path = read_models).
--
-- Whoever can connect at all can take the lock by which writers announce themselves, and keep readers waiting with it.
--
-- The last three do not log in: grant them to the accounts of your programs (GRANT annals_app TO shop_api). Run it before
-- the first migration, so that the owner can make the schema, and again after every migration, as new functions begin
-- without what is set here. It may be run any number of times.

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
-- To see what standbys have: whether an append has come to them is asked with the owner's rights, too.
GRANT pg_read_all_stats TO annals_owner;
GRANT annals_reader TO annals_app, annals_projections;
CREATE SCHEMA IF NOT EXISTS read_models AUTHORIZATION annals_projections;
-- Functions are everybody's to call, unless somebody says otherwise.
ALTER DEFAULT PRIVILEGES FOR ROLE annals_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

DO $$
DECLARE
    thing record;
BEGIN
    -- For `CREATE SCHEMA IF NOT EXISTS`, which asks for it even if the schema is there.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO annals_owner', current_database());
    IF to_regnamespace('annals') IS NULL THEN
        RAISE NOTICE 'the store is not there yet: migrate as annals_owner, then run this again';
        RETURN;
    END IF;

    -- One owner, whoever has migrated before. Sequences, indexes and types of rows follow their tables.
    ALTER SCHEMA annals OWNER TO annals_owner;
    FOR thing IN SELECT oid::regclass AS name FROM pg_class
                 WHERE relnamespace = 'annals'::regnamespace AND relkind IN ('r', 'p', 'v') LOOP
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
    -- To see the last position that was drawn; drawing one needs USAGE.
    GRANT SELECT ON ALL SEQUENCES IN SCHEMA annals TO annals_reader;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA annals TO annals_app;
    -- Read models move their checkpoints; where they live apart from the events, there is nothing to move here.
    GRANT INSERT, UPDATE, DELETE ON annals.checkpoints, annals.read_models TO annals_projections;

    -- Appends, and that question, run with the owner's rights, and find nothing that a caller has put into the search path.
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc
                 WHERE pronamespace = 'annals'::regnamespace AND (proname LIKE 'append%' OR proname = 'is_replicated') LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', thing.name);
    END LOOP;
END $$;
