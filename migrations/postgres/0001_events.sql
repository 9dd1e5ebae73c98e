-- The log: every event of every stream. Positions are allocated inside the INSERT and become visible in any order. So a
-- reader of the whole log must know which writers are still running; the fence below shows them.

CREATE TABLE annals.events (
    -- Each position is used once and in order, and never chosen by a caller. Otherwise an event could appear behind a reader.
    position       bigint GENERATED ALWAYS AS IDENTITY
                   (SEQUENCE NAME annals.events_position MINVALUE 1 START 1 INCREMENT 1 CACHE 1 NO CYCLE),
    event_id       uuid   NOT NULL,
    tenant         text   COLLATE "C" NOT NULL,
    aggregate_type text   COLLATE "C" NOT NULL,
    aggregate_id   text   COLLATE "C" NOT NULL,
    version        bigint NOT NULL CONSTRAINT events_version_counts_from_one CHECK (version >= 1),
    event_type     text   COLLATE "C" NOT NULL,
    schema_version bigint NOT NULL,
    event_data     jsonb  NOT NULL,
    metadata       jsonb  NOT NULL,
    correlation_id text   COLLATE "C",
    causation_id   text   COLLATE "C",
    append_id      uuid,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT events_key PRIMARY KEY (position),
    CONSTRAINT events_event_id UNIQUE (event_id),
    CONSTRAINT events_stream_version UNIQUE (tenant, aggregate_type, aggregate_id, version)
);

-- For reading one correlation in order. Rows without a correlation id are not in the index.
CREATE INDEX events_correlation ON annals.events (correlation_id, position) WHERE correlation_id IS NOT NULL;

-- The fence. An INSERT locks its table, in the mode ROW EXCLUSIVE, before the first row is computed, and so before its first
-- position is allocated. The lock is held until the transaction has ended and its rows are visible. So a transaction with an
-- allocated position is visible in pg_locks, or has ended. Only accounts with a privilege to write the table can take the lock, or
-- one that excludes it; an advisory lock could be taken by every account that may connect.

CREATE FUNCTION annals.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'annals: a recorded event is never changed or removed (% on %.%)', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER events_are_never_updated BEFORE UPDATE ON annals.events
FOR EACH STATEMENT EXECUTE FUNCTION annals.refuse_change();

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON annals.events
FOR EACH STATEMENT EXECUTE FUNCTION annals.refuse_change();

CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON annals.events
FOR EACH STATEMENT EXECUTE FUNCTION annals.refuse_change();

-- Whether readers can read it: the format of `StoredMetadata`, within the largest limit of the library. The library limits
-- the text that it writes; JSONB adds a space after each colon and comma, at most half as much again.
CREATE FUNCTION annals.is_metadata(p_metadata jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_typeof(p_metadata) = 'object'
       AND p_metadata - ARRAY['$actor', '$trace', '$extra'] = '{}'
       AND coalesce(jsonb_typeof(p_metadata -> '$actor'), 'string') = 'string'
       AND coalesce(jsonb_typeof(p_metadata -> '$trace'), 'string') = 'string'
       AND coalesce(jsonb_typeof(p_metadata -> '$extra'), 'object') = 'object'
       AND NOT jsonb_path_exists(p_metadata, '$."$extra".* ? (@.type() != "string")')
       AND octet_length(p_metadata::text) <= 1572864;
END $$;

-- Rules for every INSERT, also without the library. Each new event continues the one before it, so that a stream has no gap
-- and its positions increase with its versions. Without this rule, of two concurrent inserts the later version could have
-- the lower position. Positions come from the sequence: a position that the session did not allocate is refused, also where
-- an INSERT overrides the default. Values that the library refuses are refused here too, because an event that no reader
-- can read can never be removed. These rules are not CHECK constraints, because the server prepares each of those again
-- for each statement (measured: together they doubled the time of an append).
--
-- It also records appends between whose events others are, so that a read as of a position finds those that it divides. For
-- that it runs with the privileges of its owner.
CREATE FUNCTION annals.check_new_events() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    breaks_a_rule boolean;
    has_appends   boolean;
BEGIN
    -- A scalar subquery with LIMIT runs per row and uses the index; NOT EXISTS could become a join that reads the table.
    SELECT bool_or(
              octet_length(tenant) > 200 OR octet_length(aggregate_type) > 200 OR octet_length(aggregate_id) > 200
           OR octet_length(event_type) > 200 OR octet_length(correlation_id) > 200 OR octet_length(causation_id) > 200
           OR tenant = '' OR aggregate_type = '' OR aggregate_id = '' OR event_type = '' OR correlation_id = ''
           OR causation_id = ''
           -- Control characters. The backslashes are written so that no setting of the session changes their meaning.
           OR tenant || aggregate_type || aggregate_id || event_type
              || coalesce(correlation_id || causation_id, correlation_id, causation_id, '')
              ~ E'[\\u0001-\\u001f\\u007f-\\u009f]'
           OR event_id = '00000000-0000-0000-0000-000000000000'
           OR schema_version < 1 OR schema_version > 4294967295
           -- The library allows 64 MiB with numbers written in full, and JSONB adds spaces.
           OR octet_length(event_data::text) > 100663296
           OR (metadata <> '{}' AND NOT annals.is_metadata(metadata))
           -- The times of the library end with the year 9999.
           OR recorded_at = '-infinity' OR recorded_at > '9999-12-30 22:00:00+00'
           OR added.position < 1 OR added.position > currval('annals.events_position')
           OR (added.version > 1 AND coalesce((
            SELECT present.position
            FROM annals.events AS present
            WHERE present.tenant = added.tenant AND present.aggregate_type = added.aggregate_type
              AND present.aggregate_id = added.aggregate_id AND present.version = added.version - 1
            LIMIT 1), 9223372036854775807) >= added.position)),
           count(append_id) > 1
    INTO breaks_a_rule, has_appends
    FROM inserted AS added;
    IF breaks_a_rule THEN
        IF EXISTS (
            SELECT 1
            FROM inserted AS added
            WHERE added.version > 1 AND NOT EXISTS (
                SELECT 1
                FROM annals.events AS present
                WHERE present.tenant = added.tenant AND present.aggregate_type = added.aggregate_type
                  AND present.aggregate_id = added.aggregate_id AND present.version = added.version - 1
                  AND present.position < added.position))
        THEN
            RAISE EXCEPTION 'annals: an event does not continue its stream'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RAISE EXCEPTION 'annals: an event breaks a rule of positions, names, ids, schema versions, payloads, metadata or times'
            USING ERRCODE = 'check_violation';
    END IF;
    IF has_appends THEN
        INSERT INTO annals.interleaved_appends (first_position, last_position)
        SELECT min(added.position), max(added.position)
        FROM inserted AS added
        WHERE added.append_id IS NOT NULL
        GROUP BY added.append_id
        HAVING max(added.position) - min(added.position) >= count(*);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_continue_their_stream AFTER INSERT ON annals.events
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION annals.check_new_events();

-- Also when rows are applied by replication or restored with session_replication_role = replica.
ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_updated;
ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_deleted;
ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_truncated;
ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream;
