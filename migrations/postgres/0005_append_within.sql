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
