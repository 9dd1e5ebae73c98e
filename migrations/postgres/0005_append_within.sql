-- Appends inside an open transaction. If another append came first, or one waits too long, only the append is rolled
-- back, by a savepoint inside the function. So it also needs only one round trip.
--
-- The outcome is that of annals.append, or one of
--   other_store  the database has another incarnation of the store than p_incarnation (NULL: any)
--   blocked      other appends came first every time, or one blocked it for too long
CREATE FUNCTION annals.append_within(
    p_tenant text, p_incarnation uuid,
    p_aggregate_types text[], p_aggregate_ids text[], p_expected bigint[], p_last_events uuid[],
    p_stream_numbers int[], p_event_ids uuid[], p_event_types text[], p_schema_versions bigint[], p_event_data text[],
    p_metadata text[], p_correlation_ids text[], p_causation_ids text[], p_append_id uuid,
    p_request_key text, p_fingerprint uuid, p_lifetime bigint
) RETURNS annals.append_outcome LANGUAGE plpgsql AS $$
DECLARE
    outcome annals.append_outcome;
BEGIN
    IF p_incarnation <> (SELECT s.incarnation FROM annals.store AS s ORDER BY s.only_row) THEN
        outcome.kind := 'other_store';
        RETURN outcome;
    END IF;
    FOR attempt IN 1..32 LOOP
        BEGIN
            -- Checked only after another append came first: the locks are held until the end of the transaction.
            RETURN annals.append(
                p_tenant, attempt > 1,
                p_aggregate_types, p_aggregate_ids, p_expected, p_last_events,
                p_stream_numbers, p_event_ids, p_event_types, p_schema_versions, p_event_data,
                p_metadata, p_correlation_ids, p_causation_ids, p_append_id,
                p_request_key, p_fingerprint, p_lifetime);
        EXCEPTION
            WHEN unique_violation THEN
                -- The other append is committed now, and visible to the next attempt.
            WHEN lock_not_available THEN
                EXIT;
        END;
    END LOOP;
    outcome.kind := 'blocked';
    RETURN outcome;
END $$;

-- The request key of a whole unit of work. Units with the same key wait here for each other, so that one of them runs, and
-- the next finds its answer. Keys may share a lock. The outcome is `new`, or `remembered` as of annals.append.
CREATE FUNCTION annals.append_claim(p_tenant text, p_request_key text) RETURNS annals.append_outcome LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET lock_timeout = '5s' AS $$
DECLARE
    outcome annals.append_outcome;
BEGIN
    PERFORM pg_advisory_xact_lock(1634627180,
                                  128 + (hashtextextended(p_tenant || chr(31) || p_request_key, 0) & 1048575)::int);
    SELECT 'remembered', k.fingerprint, k.result::text INTO outcome.kind, outcome.fingerprint, outcome.result
    FROM annals.request_keys AS k
    WHERE k.tenant = p_tenant AND k.request_key = p_request_key AND k.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        outcome.kind := 'new';
    END IF;
    RETURN outcome;
END $$;

-- Stores the answer of a unit of work under its key, before it commits. The outcome is `new`; or `remembered` as of
-- annals.append if a single append came first with the key, and then the unit of work must be rolled back.
CREATE FUNCTION annals.append_keep(
    p_tenant text, p_request_key text, p_fingerprint uuid, p_lifetime bigint, p_result text
) RETURNS annals.append_outcome LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET lock_timeout = '5s' AS $$
DECLARE
    outcome annals.append_outcome;
    now_at  timestamptz := clock_timestamp();
    written int;
BEGIN
    PERFORM annals.be_durable();
    INSERT INTO annals.request_keys AS k (tenant, request_key, fingerprint, result, expires_at)
    VALUES (p_tenant, p_request_key, p_fingerprint, p_result::jsonb,
            CASE WHEN p_lifetime IS NULL THEN 'infinity'::timestamptz
                 ELSE greatest(now_at, annals.last_recorded_at()) + p_lifetime * interval '1 microsecond' END)
    ON CONFLICT (tenant, request_key) DO UPDATE
    SET fingerprint = excluded.fingerprint, result = excluded.result, expires_at = excluded.expires_at
    WHERE k.expires_at <= now_at;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written = 0 THEN
        SELECT 'remembered', k.fingerprint, k.result::text INTO outcome.kind, outcome.fingerprint, outcome.result
        FROM annals.request_keys AS k
        WHERE k.tenant = p_tenant AND k.request_key = p_request_key;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'annals: the request key has just expired' USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN outcome;
    END IF;
    PERFORM annals.sweep_request_keys(now_at);
    outcome.kind := 'new';
    RETURN outcome;
END $$;
