-- Appends in one round trip: look up the request key, compare versions, insert, remember the request.
--
-- Event ids are looked up only when a version does not hold, or when the caller says so: most appends bring new ids,
-- and the unique key notices when one does not. A unique violation aborts the transaction; the caller comes again with
-- `careful`, which looks the ids up first and takes the streams' turn locks.

-- Each session keeps the plans of its functions. One that was made while the table was empty would read all of it later,
-- so scans of whole tables are switched off inside (measured: no cost).

-- The outcome of an append: `kind` is one of
--   appended     base_versions and positions hold, recorded_at is the time in microseconds
--   remembered   the request key is known: result and fingerprint are what was stored
--   ids          some of the event ids are stored already
--   conflict     stream number `place` (from 1) is at `actual`
--   full         the same, but the stream cannot hold that many more events
CREATE TYPE annals.append_outcome AS (
    kind          text,
    place         int,
    actual        bigint,
    base_versions bigint[],
    positions     bigint[],
    recorded_at   bigint,
    fingerprint   uuid,
    result        text
);

-- An answered append is on disk, whatever the session's default says; what is stronger than `on` stays.
-- A SET clause on the function would end before the commit that it is for.
CREATE FUNCTION annals.be_durable() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- One event for one stream, without a request key.
CREATE FUNCTION annals.append_one(
    p_tenant text, p_aggregate_type text, p_aggregate_id text, p_expected bigint,
    p_event_id uuid, p_event_type text, p_schema_version bigint, p_event_data text, p_metadata text,
    p_correlation_id text, p_causation_id text
) RETURNS annals.append_outcome LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    outcome  annals.append_outcome;
    head     bigint;
    drawn    bigint;
    now_at   timestamptz;
BEGIN
    SELECT e.version INTO head
    FROM annals.events AS e
    WHERE e.tenant = p_tenant AND e.aggregate_type = p_aggregate_type AND e.aggregate_id = p_aggregate_id
    ORDER BY e.version DESC
    LIMIT 1;
    head := coalesce(head, 0);
    IF p_expected IS NOT NULL AND p_expected <> head THEN
        outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = p_event_id)
                             THEN 'ids' ELSE 'conflict' END;
        outcome.place := 1;
        outcome.actual := head;
        RETURN outcome;
    END IF;
    IF head = 9223372036854775807 THEN
        outcome.kind := 'full';
        outcome.place := 1;
        outcome.actual := head;
        RETURN outcome;
    END IF;
    PERFORM annals.be_durable();
    now_at := clock_timestamp();
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, correlation_id, causation_id, append_id, recorded_at)
    VALUES (p_event_id, p_tenant, p_aggregate_type, p_aggregate_id, head + 1, p_event_type, p_schema_version,
            p_event_data::jsonb, p_metadata::jsonb, p_correlation_id, p_causation_id, NULL, now_at)
    RETURNING position INTO drawn;
    outcome.kind := 'appended';
    outcome.base_versions := ARRAY[head];
    outcome.positions := ARRAY[drawn];
    outcome.recorded_at := (extract(epoch FROM now_at) * 1000000)::bigint;
    RETURN outcome;
END $$;

-- Any append. The streams are p_aggregate_types[n] / p_aggregate_ids[n], expected to be at p_expected[n] (NULL: any
-- version); event m belongs to stream p_places[m] (from 1), in the order of the append.
CREATE FUNCTION annals.append(
    p_tenant text, p_careful boolean,
    p_aggregate_types text[], p_aggregate_ids text[], p_expected bigint[],
    p_places int[], p_event_ids uuid[], p_event_types text[], p_schema_versions bigint[], p_event_data text[],
    p_metadata text[], p_correlation_ids text[], p_causation_ids text[], p_append_id uuid,
    p_request_key text, p_fingerprint uuid, p_lifetime bigint
) RETURNS annals.append_outcome LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    outcome annals.append_outcome;
    streams int := coalesce(array_length(p_aggregate_types, 1), 0);
    heads   bigint[];
    counts  bigint[];
    turn    int;
    now_at  timestamptz;
    written int;
BEGIN
    -- Appends to several streams, and those that have lost a race, take turns: rows of several streams inserted in
    -- different orders would wait for each other in a ring. The number of locks is bounded, as the server's table of
    -- them is; streams may share one. Taken before anything is read, so that what is read stays true.
    IF p_careful OR streams > 1 THEN
        FOR turn IN
            SELECT DISTINCT (hashtextextended(p_tenant || chr(31) || t || chr(31) || i, 0) & 127)::int
            FROM unnest(p_aggregate_types, p_aggregate_ids) AS s (t, i)
            ORDER BY 1
        LOOP
            PERFORM pg_advisory_xact_lock(1634627180, turn);
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

    IF p_careful AND EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = ANY (p_event_ids)) THEN
        outcome.kind := 'ids';
        RETURN outcome;
    END IF;

    -- Joins, never subscripts: finding the n-th text of an array walks over all before it.
    SELECT array_agg(coalesce(h.version, 0) ORDER BY s.n), array_agg(c.events ORDER BY s.n)
    INTO heads, counts
    FROM unnest(p_aggregate_types, p_aggregate_ids) WITH ORDINALITY AS s (t, i, n)
    JOIN (SELECT place, count(*) AS events FROM unnest(p_places) AS place GROUP BY place) AS c ON c.place = s.n
    LEFT JOIN LATERAL (
        SELECT e.version
        FROM annals.events AS e
        WHERE e.tenant = p_tenant AND e.aggregate_type = s.t AND e.aggregate_id = s.i
        ORDER BY e.version DESC
        LIMIT 1) AS h ON true;

    FOR n IN 1..streams LOOP
        IF p_expected[n] IS NOT NULL AND p_expected[n] <> heads[n] THEN
            outcome.kind := CASE WHEN EXISTS (SELECT 1 FROM annals.events AS e WHERE e.event_id = ANY (p_event_ids))
                                 THEN 'ids' ELSE 'conflict' END;
            outcome.place := n;
            outcome.actual := heads[n];
            RETURN outcome;
        END IF;
        IF heads[n] > 9223372036854775807 - counts[n] THEN
            outcome.kind := 'full';
            outcome.place := n;
            outcome.actual := heads[n];
            RETURN outcome;
        END IF;
    END LOOP;

    PERFORM annals.be_durable();
    now_at := clock_timestamp();
    outcome.kind := 'appended';
    outcome.base_versions := coalesce(heads, '{}');
    outcome.recorded_at := (extract(epoch FROM now_at) * 1000000)::bigint;

    IF streams > 0 THEN
        -- Numbers are drawn after the sort, one per row, so they rise in the order of the append.
        WITH stored AS (
            INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                       schema_version, event_data, metadata, correlation_id, causation_id, append_id,
                                       recorded_at)
            SELECT e.event_id, p_tenant, s.t, s.i,
                   s.head + row_number() OVER (PARTITION BY e.place ORDER BY e.n), e.event_type,
                   e.schema_version, e.event_data::jsonb, e.metadata::jsonb, e.correlation_id, e.causation_id,
                   p_append_id, now_at
            FROM unnest(p_places, p_event_ids, p_event_types, p_schema_versions, p_event_data, p_metadata,
                        p_correlation_ids, p_causation_ids)
                 WITH ORDINALITY AS e (place, event_id, event_type, schema_version, event_data, metadata,
                                       correlation_id, causation_id, n)
            JOIN unnest(p_aggregate_types, p_aggregate_ids, heads) WITH ORDINALITY AS s (t, i, head, n)
              ON s.n = e.place
            ORDER BY e.n
            RETURNING position)
        SELECT array_agg(position ORDER BY position) INTO outcome.positions FROM stored;
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
                       JOIN (SELECT p.place, count(*) AS events, jsonb_agg(p.drawn ORDER BY p.n) AS positions
                             FROM unnest(p_places, outcome.positions) WITH ORDINALITY AS p (place, drawn, n)
                             GROUP BY p.place) AS c ON c.place = s.n), '[]')),
               CASE WHEN p_lifetime IS NULL THEN 'infinity'::timestamptz
                    ELSE now_at + p_lifetime * interval '1 microsecond' END
        ON CONFLICT (tenant, request_key) DO UPDATE
        SET fingerprint = excluded.fingerprint, result = excluded.result, expires_at = excluded.expires_at
        WHERE k.expires_at <= now_at;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written = 0 THEN
            RAISE EXCEPTION 'annals: another append with the request key came first' USING ERRCODE = 'unique_violation';
        END IF;
        -- Bounded, so that no append pays for a long backlog; keys that others sweep are left to them.
        DELETE FROM annals.request_keys
        WHERE (tenant, request_key) IN (
            SELECT k.tenant, k.request_key
            FROM annals.request_keys AS k
            WHERE k.expires_at <= now_at
            ORDER BY k.expires_at
            LIMIT 100
            FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN outcome;
END $$;
