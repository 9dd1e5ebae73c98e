-- Appends in one round trip: look up the request key, compare versions, insert, store the request.
--
-- Event ids are looked up only when a version does not match, or when the caller asks for it. Most appends have new ids,
-- and the unique key refuses the others. A unique violation aborts the transaction. The caller then calls again with
-- `checked`, which looks the ids up first and locks the streams.

-- Each session caches the plans of its functions. A plan made while the table was empty would later read the whole table.
-- So scans of whole tables and of whole streams are disabled inside the functions (measured: no cost).
--
-- The time of an append is read after the writer is announced. A reader that asks what was true at a time waits for all
-- writers that are announced, so those that come later record later. A single event gets its time inside the INSERT, which has
-- locked the table by then; an append of several events locks it itself before it reads the clock.
--
-- The query for the last event of a stream starts at the expected version. An index scan reads all matching entries of a
-- page: for a long stream a hundred instead of one (measured: 12 instead of 3 microseconds).

-- The outcome of an append: `kind` is one of
--   appended     base_versions and positions are set, recorded_at is the time in microseconds
--   stale        an expected version of a group is out of date; nothing was stored, query the versions and retry
--   remembered   the request key is stored: result and fingerprint are the stored ones
--   ids          some of the event ids are stored already
--   conflict     stream `stream_number` (from 1) is at `actual`
--   full         the same, but the stream cannot hold that many more events
-- `standbys` is always set: whether the server waits for standbys at each commit.
CREATE TYPE annals.append_outcome AS (
    kind          text,
    stream_number int,
    actual        bigint,
    base_versions bigint[],
    positions     bigint[],
    recorded_at   bigint,
    fingerprint   uuid,
    result        text,
    standbys      boolean
);

-- An acknowledged append is on disk, whatever the default of the session; a setting stronger than `on` is kept.
-- A SET clause on the function would end before the commit.
CREATE FUNCTION annals.be_durable() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Whether enough standbys have what was committed up to p_until: `yes`, `no`, or `hidden` from the account. The server
-- acknowledges a commit with only a warning when the wait for standbys was cancelled.
CREATE FUNCTION annals.is_replicated(p_until pg_lsn) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    names  text := current_setting('synchronous_standby_names');
    needed bigint := coalesce(substring(names FROM '(?i)^ *(?:(?:any|first) +)?([0-9]+) *[(]')::bigint, 1);
    having_it bigint;
    hidden bigint;
BEGIN
    IF names = '' THEN
        RETURN 'yes';
    END IF;
    SELECT count(*) FILTER (WHERE r.sync_state IN ('sync', 'quorum') AND p_until <=
                                CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN r.replay_lsn
                                                                           ELSE r.flush_lsn END),
           count(*) FILTER (WHERE r.sync_state IS NULL)
    INTO having_it, hidden
    FROM pg_stat_replication AS r;
    RETURN CASE WHEN having_it >= needed THEN 'yes' WHEN hidden > 0 THEN 'hidden' ELSE 'no' END;
END $$;

-- When the last event was recorded, NULL if there is none. If the clock is behind that time, the lifetime of a request key
-- counts from it: a clock that is corrected later must not expire the key at once.
CREATE FUNCTION annals.last_recorded_at() RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (
        SELECT e.recorded_at
        FROM annals.events AS e
        ORDER BY e.position DESC
        LIMIT 1);
END $$;

-- Deletes expired request keys. The number is bounded, so that no append is delayed by a long backlog. Keys that another
-- session is deleting are skipped.
CREATE FUNCTION annals.sweep_request_keys(p_now timestamptz) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    DELETE FROM annals.request_keys
    WHERE (tenant, request_key) IN (
        SELECT k.tenant, k.request_key
        FROM annals.request_keys AS k
        WHERE k.expires_at <= p_now
        ORDER BY k.expires_at
        LIMIT 100
        FOR UPDATE SKIP LOCKED);
END $$;

-- The version of a stream, 0 if there is none, and the id of its last event.
CREATE FUNCTION annals.head_of(
    p_tenant text, p_aggregate_type text, p_aggregate_id text, OUT version bigint, OUT event_id uuid
) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    SELECT e.version, e.event_id INTO version, event_id
    FROM annals.events AS e
    WHERE e.tenant = p_tenant AND e.aggregate_type = p_aggregate_type AND e.aggregate_id = p_aggregate_id
    ORDER BY e.version DESC
    LIMIT 1;
    version := coalesce(version, 0);
END $$;

-- One event for one stream that is expected at p_expected, without a request key. Most appends are of this kind. The
-- version is not queried: the keys and the trigger of the table refuse what does not continue the stream, and the caller
-- then calls `append_one` (measured: it saves a fifth of the call). Returns the position, the time in microseconds, and 1 if
-- the server waits for standbys; NULL if the event at p_expected is not p_last_event.
CREATE FUNCTION annals.append_next(
    p_tenant text, p_aggregate_type text, p_aggregate_id text, p_expected bigint,
    p_event_id uuid, p_event_type text, p_schema_version bigint, p_event_data text, p_metadata text,
    p_correlation_id text, p_causation_id text, p_last_event uuid DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql SET lock_timeout = '20ms' AS $$
DECLARE
    outcome bigint[];
BEGIN
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM annals.be_durable();
    END IF;
    -- Committed events never change, so this still holds at the INSERT.
    IF p_last_event IS NOT NULL AND p_last_event IS DISTINCT FROM (
        SELECT e.event_id
        FROM annals.events AS e
        WHERE e.tenant = p_tenant AND e.aggregate_type = p_aggregate_type AND e.aggregate_id = p_aggregate_id
          AND e.version = p_expected)
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, correlation_id, causation_id, append_id, recorded_at)
    VALUES (p_event_id, p_tenant, p_aggregate_type, p_aggregate_id, p_expected + 1, p_event_type, p_schema_version,
            p_event_data::jsonb, p_metadata::jsonb, p_correlation_id, p_causation_id, NULL, clock_timestamp())
    RETURNING ARRAY[position, (extract(epoch FROM recorded_at) * 1000000)::bigint,
                    CASE current_setting('synchronous_standby_names') WHEN '' THEN 0 ELSE 1 END] INTO outcome;
    RETURN outcome;
END $$;

-- One event for one stream, without a request key. If another open transaction blocks it, it gives up soon, because the
-- writer that calls it has other appends in its queue.
CREATE FUNCTION annals.append_one(
    p_tenant text, p_aggregate_type text, p_aggregate_id text, p_expected bigint,
    p_event_id uuid, p_event_type text, p_schema_version bigint, p_event_data text, p_metadata text,
    p_correlation_id text, p_causation_id text, p_last_event uuid DEFAULT NULL
) RETURNS annals.append_outcome LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET lock_timeout = '20ms' AS $$
DECLARE
    outcome  annals.append_outcome;
    head     bigint;
    last_one uuid;
    allocated bigint;
    now_at   timestamptz;
BEGIN
    outcome.standbys := current_setting('synchronous_standby_names') <> '';
    SELECT e.version, e.event_id INTO head, last_one
    FROM annals.events AS e
    WHERE e.tenant = p_tenant AND e.aggregate_type = p_aggregate_type AND e.aggregate_id = p_aggregate_id
      AND e.version >= coalesce(p_expected, 0)
    ORDER BY e.version DESC
    LIMIT 1;
    head := coalesce(head, 0);
    IF p_expected <> head AND (p_expected <> -1 OR head = 0) OR p_last_event IS NOT NULL AND p_last_event IS DISTINCT FROM last_one THEN
        head := (annals.head_of(p_tenant, p_aggregate_type, p_aggregate_id)).version;
        outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = p_event_id)
                             THEN 'ids' ELSE 'conflict' END;
        outcome.stream_number := 1;
        outcome.actual := head;
        RETURN outcome;
    END IF;
    IF head = 9223372036854775807 THEN
        outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = p_event_id)
                             THEN 'ids' ELSE 'full' END;
        outcome.stream_number := 1;
        outcome.actual := head;
        RETURN outcome;
    END IF;
    PERFORM annals.be_durable();
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, correlation_id, causation_id, append_id, recorded_at)
    VALUES (p_event_id, p_tenant, p_aggregate_type, p_aggregate_id, head + 1, p_event_type, p_schema_version,
            p_event_data::jsonb, p_metadata::jsonb, p_correlation_id, p_causation_id, NULL, clock_timestamp())
    RETURNING position, recorded_at INTO allocated, now_at;
    outcome.kind := 'appended';
    outcome.base_versions := ARRAY[head];
    outcome.positions := ARRAY[allocated];
    outcome.recorded_at := (extract(epoch FROM now_at) * 1000000)::bigint;
    RETURN outcome;
END $$;

-- Waits for the lock of a turn, not for long: it only makes deadlocks rare, which the server finds too. Any account that may connect
-- can take it, so the warning names the holder. (Locks that need a grant would not help: such an account can also fill the server's
-- lock table with advisory locks, after which no statement gets any lock. Rows to lock would have to be written for each append.)
CREATE FUNCTION annals.wait_for_turn(p_lock_number int) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1634627180, p_lock_number);
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'annals: an append goes on without the lock of its turn after 1 s, which is kept by %', coalesce((
            SELECT string_agg(coalesce(format('backend %s (role %s)', l.pid, a.usename), 'a prepared transaction'), ', ')
            FROM pg_locks AS l
            LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
              AND l.classid = 1634627180 AND l.objid = p_lock_number
              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())),
            'nobody any more');
        RETURN false;
END $$;

-- One append of any kind. It waits up to five seconds for other transactions. The streams are p_aggregate_types[n] /
-- p_aggregate_ids[n], expected at p_expected[n] (NULL: any version; -1: any but 0) with the event p_last_events[n] (NULL: any). Event m
-- belongs to stream p_stream_numbers[m] (from 1), in the order of the append.
CREATE FUNCTION annals.append(
    p_tenant text, p_checked boolean,
    p_aggregate_types text[], p_aggregate_ids text[], p_expected bigint[], p_last_events uuid[],
    p_stream_numbers int[], p_event_ids uuid[], p_event_types text[], p_schema_versions bigint[], p_event_data text[],
    p_metadata text[], p_correlation_ids text[], p_causation_ids text[], p_append_id uuid,
    p_request_key text, p_fingerprint uuid, p_lifetime bigint
) RETURNS annals.append_outcome LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET lock_timeout = '5s' AS $$
DECLARE
    outcome annals.append_outcome;
    streams int := coalesce(array_length(p_aggregate_types, 1), 0);
    heads   bigint[];
    ends    uuid[];
    counts  bigint[];
    lock_number int;
    now_at  timestamptz;
    last_at timestamptz;
    written int;
BEGIN
    outcome.standbys := current_setting('synchronous_standby_names') <> '';
    -- Appends to several streams, and those that were refused by a concurrent one, lock their streams: rows of several
    -- streams inserted in different orders would deadlock. The number of locks is bounded, as the server's lock table is;
    -- streams of a tenant may share one, and those of two tenants do not: a unit of work of one keeps them until it ends. They
    -- are taken before anything is read, so that it cannot change afterwards.
    IF p_checked OR streams > 1 THEN
        FOR lock_number IN
            SELECT DISTINCT (2097152 + ((hashtextextended(p_tenant, 0) & 1048575) << 7)
                             + (hashtextextended(t || chr(31) || i, 0) & 127))::int
            FROM unnest(p_aggregate_types, p_aggregate_ids) AS s (t, i)
            ORDER BY 1
        LOOP
            IF NOT pg_try_advisory_xact_lock(1634627180, lock_number) THEN
                EXIT WHEN NOT annals.wait_for_turn(lock_number);
            END IF;
        END LOOP;
    END IF;

    IF p_request_key IS NOT NULL THEN
        SELECT 'remembered', k.fingerprint, k.result::text INTO outcome.kind, outcome.fingerprint, outcome.result
        FROM annals.request_keys AS k
        WHERE k.tenant = p_tenant AND k.request_key = p_request_key AND k.expires_at > clock_timestamp();
        IF FOUND THEN
            RETURN outcome;
        END IF;
    END IF;

    IF p_checked AND EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = ANY (p_event_ids)) THEN
        outcome.kind := 'ids';
        RETURN outcome;
    END IF;

    -- Joins instead of subscripts: finding the n-th text of an array reads all texts before it.
    SELECT array_agg(coalesce(h.version, 0) ORDER BY s.n), array_agg(h.event_id ORDER BY s.n),
           array_agg(c.events ORDER BY s.n)
    INTO heads, ends, counts
    FROM unnest(p_aggregate_types, p_aggregate_ids) WITH ORDINALITY AS s (t, i, n)
    JOIN (SELECT stream_number, count(*) AS events
          FROM unnest(p_stream_numbers) AS stream_number
          GROUP BY stream_number) AS c ON c.stream_number = s.n
    LEFT JOIN LATERAL (
        SELECT e.version, e.event_id
        FROM annals.events AS e
        WHERE e.tenant = p_tenant AND e.aggregate_type = s.t AND e.aggregate_id = s.i
        ORDER BY e.version DESC
        LIMIT 1) AS h ON true;

    FOR n IN 1..streams LOOP
        IF p_expected[n] <> heads[n] AND (p_expected[n] <> -1 OR heads[n] = 0) OR p_last_events[n] IS NOT NULL AND p_last_events[n] IS DISTINCT FROM ends[n] THEN
            outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = ANY (p_event_ids))
                                 THEN 'ids' ELSE 'conflict' END;
            outcome.stream_number := n;
            outcome.actual := heads[n];
            RETURN outcome;
        END IF;
        IF heads[n] > 9223372036854775807 - counts[n] THEN
            outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = ANY (p_event_ids))
                                 THEN 'ids' ELSE 'full' END;
            outcome.stream_number := n;
            outcome.actual := heads[n];
            RETURN outcome;
        END IF;
    END LOOP;

    PERFORM annals.be_durable();
    LOCK TABLE annals.events IN ROW EXCLUSIVE MODE;
    now_at := clock_timestamp();
    IF p_request_key IS NOT NULL THEN
        last_at := annals.last_recorded_at();
    END IF;
    outcome.kind := 'appended';
    outcome.base_versions := coalesce(heads, '{}');
    outcome.recorded_at := (extract(epoch FROM now_at) * 1000000)::bigint;

    IF streams > 0 THEN
        -- Positions are allocated after the sort, one per row, so they increase in the order of the append.
        WITH stored AS (
            INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                       schema_version, event_data, metadata, correlation_id, causation_id, append_id,
                                       recorded_at)
            SELECT e.event_id, p_tenant, s.t, s.i,
                   s.head + row_number() OVER (PARTITION BY e.stream_number ORDER BY e.n), e.event_type,
                   e.schema_version, e.event_data::jsonb, e.metadata::jsonb, e.correlation_id, e.causation_id,
                   p_append_id, now_at
            FROM unnest(p_stream_numbers, p_event_ids, p_event_types, p_schema_versions, p_event_data, p_metadata,
                        p_correlation_ids, p_causation_ids)
                 WITH ORDINALITY AS e (stream_number, event_id, event_type, schema_version, event_data, metadata,
                                       correlation_id, causation_id, n)
            JOIN unnest(p_aggregate_types, p_aggregate_ids, heads) WITH ORDINALITY AS s (t, i, head, n)
              ON s.n = e.stream_number
            ORDER BY e.n
            RETURNING position)
        SELECT array_agg(position ORDER BY position) INTO outcome.positions FROM stored;
        IF cardinality(outcome.positions) IS DISTINCT FROM cardinality(p_stream_numbers) THEN
            RAISE EXCEPTION 'annals: an event of the append has no stream' USING ERRCODE = 'check_violation';
        END IF;
    END IF;

    IF p_request_key IS NOT NULL THEN
        INSERT INTO annals.request_keys AS k (tenant, request_key, fingerprint, result, expires_at)
        SELECT p_tenant, p_request_key, p_fingerprint,
               jsonb_build_object(
                   'recorded_at', outcome.recorded_at,
                   'streams', coalesce((
                       SELECT jsonb_agg(jsonb_build_object(
                                  'aggregate_type', s.t, 'aggregate_id', s.i, 'version', s.head + c.events,
                                  'positions', c.positions) ORDER BY s.n)
                       FROM unnest(p_aggregate_types, p_aggregate_ids, heads) WITH ORDINALITY AS s (t, i, head, n)
                       JOIN (SELECT p.stream_number, count(*) AS events, jsonb_agg(p.allocated ORDER BY p.n) AS positions
                             FROM unnest(p_stream_numbers, outcome.positions) WITH ORDINALITY AS p (stream_number, allocated, n)
                             GROUP BY p.stream_number) AS c ON c.stream_number = s.n), '[]')),
               CASE WHEN p_lifetime IS NULL THEN 'infinity'::timestamptz
                    ELSE greatest(now_at, last_at) + p_lifetime * interval '1 microsecond' END
        ON CONFLICT (tenant, request_key) DO UPDATE
        SET fingerprint = excluded.fingerprint, result = excluded.result, expires_at = excluded.expires_at
        WHERE k.expires_at <= now_at;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written = 0 THEN
            RAISE EXCEPTION 'annals: another append with the request key came first' USING ERRCODE = 'unique_violation';
        END IF;
        PERFORM annals.sweep_request_keys(now_at);
    END IF;
    RETURN outcome;
END $$;

-- Many small appends, each to one stream, in one transaction. Streams are numbered from 1; p_heads[n] is the expected
-- version of stream n, or NULL for any version. Row m continues stream p_stream_numbers[m]: its version is p_offsets[m]
-- above the stream's. Rows are in the order of their streams, so that groups lock streams in the same order. Request r
-- belongs to the rows p_first_rows[r] to p_last_rows[r]. If p_last_events[m] is not NULL, it must be the stored event before
-- row m.
--
-- Positions are allocated in the order of the arrays: `unnest` gives elements in storage order (manual of PostgreSQL, Array
-- Functions), and nothing above that one scan sorts, joins or divides its rows. WITH ORDINALITY and a sort would copy all
-- payloads. A test compares the positions of the answers with those in the log.
--
-- With p_check, the expected versions are compared before anything is stored, because a failed INSERT leaves dead rows.
-- Without it, the keys of the table decide: usually no other session writes the same streams, and the comparison costs a
-- quarter of the time (measured).
CREATE FUNCTION annals.append_group(
    p_check boolean, p_tenants text[], p_aggregate_types text[], p_aggregate_ids text[], p_heads bigint[],
    p_stream_numbers int[], p_offsets bigint[], p_row_tenants text[], p_row_aggregate_types text[], p_row_aggregate_ids text[],
    p_event_ids uuid[], p_event_types text[], p_schema_versions bigint[], p_event_data text[], p_metadata text[],
    p_correlation_ids text[], p_causation_ids text[], p_append_ids uuid[], p_last_events uuid[],
    p_request_tenants text[], p_request_keys text[], p_fingerprints uuid[], p_lifetimes bigint[],
    p_first_rows int[], p_last_rows int[]
) RETURNS annals.append_outcome LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET lock_timeout = '20ms' AS $$
DECLARE
    outcome  annals.append_outcome;
    heads    bigint[] := p_heads;
    requests int := coalesce(array_length(p_request_keys, 1), 0);
    now_at   timestamptz;
    last_at  timestamptz;
    written  int;
BEGIN
    -- A request key is valid for its own tenant only.
    IF requests > 0 AND EXISTS (
        SELECT 1
        FROM unnest(p_request_tenants, p_first_rows, p_last_rows) AS r (tenant, first_row, last_row)
        WHERE (1 <= first_row AND first_row <= last_row AND last_row <= cardinality(p_row_tenants)
               AND p_row_tenants[first_row:last_row] <@ ARRAY[tenant]) IS NOT TRUE)
    THEN
        RAISE EXCEPTION 'annals: a request key is not of the tenant of its events' USING ERRCODE = 'check_violation';
    END IF;

    IF requests > 0 AND EXISTS (
        SELECT 1
        FROM unnest(p_request_tenants, p_request_keys) AS r (tenant, request_key)
        WHERE (
            SELECT k.expires_at
            FROM annals.request_keys AS k
            WHERE k.tenant = r.tenant AND k.request_key = r.request_key AND k.expires_at > clock_timestamp()
            LIMIT 1) IS NOT NULL)
    THEN
        outcome.kind := 'stale';
        RETURN outcome;
    END IF;

    IF p_check AND EXISTS (
        SELECT 1
        FROM unnest(p_tenants, p_aggregate_types, p_aggregate_ids, p_heads) AS s (tenant, t, i, head)
        WHERE s.head <> coalesce((
            SELECT e.version
            FROM annals.events AS e
            WHERE e.tenant = s.tenant AND e.aggregate_type = s.t AND e.aggregate_id = s.i AND e.version >= s.head
            ORDER BY e.version DESC
            LIMIT 1), 0))
    THEN
        outcome.kind := 'stale';
        RETURN outcome;
    END IF;

    IF array_position(heads, NULL) IS NOT NULL THEN
        heads := ARRAY(
            SELECT coalesce(s.head, (
                SELECT e.version
                FROM annals.events AS e
                WHERE e.tenant = s.tenant AND e.aggregate_type = s.t AND e.aggregate_id = s.i
                ORDER BY e.version DESC
                LIMIT 1), 0)
            FROM unnest(p_tenants, p_aggregate_types, p_aggregate_ids, p_heads)
                 WITH ORDINALITY AS s (tenant, t, i, head, n)
            ORDER BY s.n);
    END IF;

    PERFORM annals.be_durable();
    outcome.standbys := current_setting('synchronous_standby_names') <> '';
    LOCK TABLE annals.events IN ROW EXCLUSIVE MODE;
    now_at := clock_timestamp();
    IF requests > 0 THEN
        last_at := annals.last_recorded_at();
    END IF;
    -- Subscripts into arrays of numbers are fast, unlike those into arrays of texts, and a join of two arrays may be quadratic.
    WITH stored AS (
        INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                   event_data, metadata, correlation_id, causation_id, append_id, recorded_at)
        SELECT e.event_id, e.tenant, e.t, e.i, heads[e.stream_number] + e.above, e.event_type, e.schema_version,
               e.event_data::jsonb, e.metadata::jsonb, e.correlation_id, e.causation_id, e.append_id, now_at
        FROM unnest(p_stream_numbers, p_offsets, p_row_tenants, p_row_aggregate_types, p_row_aggregate_ids, p_event_ids,
                    p_event_types, p_schema_versions, p_event_data, p_metadata, p_correlation_ids, p_causation_ids,
                    p_append_ids, p_last_events)
             AS e (stream_number, above, tenant, t, i, event_id, event_type, schema_version, event_data, metadata,
                   correlation_id, causation_id, append_id, last_event)
        WHERE e.last_event IS NULL OR e.last_event = (
            SELECT before.event_id
            FROM annals.events AS before
            WHERE before.tenant = e.tenant AND before.aggregate_type = e.t AND before.aggregate_id = e.i
              AND before.version = heads[e.stream_number] + e.above - 1
            LIMIT 1)
        RETURNING position)
    SELECT array_agg(position ORDER BY position) INTO outcome.positions FROM stored;
    IF coalesce(array_length(outcome.positions, 1), 0) < array_length(p_stream_numbers, 1) THEN
        RAISE EXCEPTION 'annals: a stream ends with another event' USING ERRCODE = 'serialization_failure';
    END IF;
    outcome.kind := 'appended';
    outcome.base_versions := heads;
    outcome.recorded_at := (extract(epoch FROM now_at) * 1000000)::bigint;

    IF requests > 0 THEN
        INSERT INTO annals.request_keys AS k (tenant, request_key, fingerprint, result, expires_at)
        SELECT r.tenant, r.request_key, r.fingerprint,
               jsonb_build_object(
                   'recorded_at', outcome.recorded_at,
                   'streams', jsonb_build_array(jsonb_build_object(
                       'aggregate_type', p_row_aggregate_types[r.last_row],
                       'aggregate_id', p_row_aggregate_ids[r.last_row],
                       'version', heads[p_stream_numbers[r.last_row]] + p_offsets[r.last_row],
                       'positions', to_jsonb(outcome.positions[r.first_row:r.last_row])))),
               CASE WHEN r.lifetime IS NULL THEN 'infinity'::timestamptz
                    ELSE greatest(now_at, last_at) + r.lifetime * interval '1 microsecond' END
        FROM unnest(p_request_tenants, p_request_keys, p_fingerprints, p_lifetimes, p_first_rows, p_last_rows)
             AS r (tenant, request_key, fingerprint, lifetime, first_row, last_row)
        ORDER BY r.tenant COLLATE "C", r.request_key COLLATE "C"
        ON CONFLICT (tenant, request_key) DO UPDATE
        SET fingerprint = excluded.fingerprint, result = excluded.result, expires_at = excluded.expires_at
        WHERE k.expires_at <= now_at;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written < requests THEN
            RAISE EXCEPTION 'annals: another append with the request key came first' USING ERRCODE = 'unique_violation';
        END IF;
        PERFORM annals.sweep_request_keys(now_at);
    END IF;
    RETURN outcome;
END $$;
