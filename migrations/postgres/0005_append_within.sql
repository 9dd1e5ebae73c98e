-- Appends inside a transaction that is open already, without harm to it: one that loses a race, or waits for another for
-- too long, is undone alone by a savepoint inside the function. So it is one round trip as well.
--
-- The outcome is that of annals.append, or one of
--   other_store  the database holds another life of the store than p_incarnation (NULL: whichever it holds)
--   blocked      others came first every time, or one was in the way for too long
CREATE FUNCTION annals.append_within(
    p_tenant text, p_incarnation uuid,
    p_aggregate_types text[], p_aggregate_ids text[], p_expected bigint[], p_last_events uuid[],
    p_places int[], p_event_ids uuid[], p_event_types text[], p_schema_versions bigint[], p_event_data text[],
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
            -- Only who has lost a race is careful: turn locks are held to the end of the transaction, which is not ours.
            RETURN annals.append(
                p_tenant, attempt > 1,
                p_aggregate_types, p_aggregate_ids, p_expected, p_last_events,
                p_places, p_event_ids, p_event_types, p_schema_versions, p_event_data,
                p_metadata, p_correlation_ids, p_causation_ids, p_append_id,
                p_request_key, p_fingerprint, p_lifetime);
        EXCEPTION
            WHEN unique_violation THEN
                -- What came first is committed now, and seen by the next attempt.
            WHEN lock_not_available THEN
                EXIT;
        END;
    END LOOP;
    outcome.kind := 'blocked';
    RETURN outcome;
END $$;
