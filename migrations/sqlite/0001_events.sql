-- The log: every event of every stream, in the order in which they were committed.
-- Names are TEXT and never STRING: numeric affinity would merge the streams `007`, `7` and `7.0`.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY AUTOINCREMENT CONSTRAINT events_positions_count_from_one CHECK (position >= 1),
    event_id       BLOB    NOT NULL CONSTRAINT events_event_id_is_a_uuid CHECK (length(event_id) = 16),
    tenant         TEXT    NOT NULL CONSTRAINT events_tenant_is_named CHECK (tenant <> ''),
    aggregate_type TEXT    NOT NULL CONSTRAINT events_aggregate_type_is_named CHECK (aggregate_type <> ''),
    aggregate_id   TEXT    NOT NULL CONSTRAINT events_aggregate_id_is_named CHECK (aggregate_id <> ''),
    version        INTEGER NOT NULL CONSTRAINT events_version_counts_from_one CHECK (version >= 1),
    event_type     TEXT    NOT NULL CONSTRAINT events_event_type_is_named CHECK (event_type <> ''),
    schema_version INTEGER NOT NULL CONSTRAINT events_schema_version_counts_from_one CHECK (schema_version >= 1),
    event_data     TEXT    NOT NULL CONSTRAINT events_event_data_is_json CHECK (json_valid(event_data)),
    metadata       TEXT    NOT NULL CONSTRAINT events_metadata_is_json CHECK (json_valid(metadata)),
    correlation_id TEXT,
    causation_id   TEXT,
    append_id      BLOB    CONSTRAINT events_append_id_is_a_uuid CHECK (length(append_id) = 16),
    recorded_at    INTEGER NOT NULL,
    CONSTRAINT events_event_id UNIQUE (event_id),
    CONSTRAINT events_stream_version UNIQUE (tenant, aggregate_type, aggregate_id, version)
) STRICT;

-- For reading one correlation in order. Rows without a correlation id are not in the index.
CREATE INDEX events_correlation ON events (correlation_id, position) WHERE correlation_id IS NOT NULL;

CREATE TRIGGER events_are_never_updated BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'annals: a recorded event is never updated');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'annals: a recorded event is never deleted');
END;

-- INSERT OR REPLACE deletes a conflicting row without firing delete triggers, so this trigger looks for it first.
-- A version that does not continue its stream would leave a gap or replace another. An explicit position must be the next
-- one: readers may have read past a lower one, and after a very high one no position would be left. A position that is
-- not explicit is -1 here, and allocated afterwards.
CREATE TRIGGER events_are_never_replaced BEFORE INSERT ON events
WHEN NEW.version <> 1 + coalesce(
        (SELECT max(version)
         FROM events
         WHERE tenant = NEW.tenant AND aggregate_type = NEW.aggregate_type AND aggregate_id = NEW.aggregate_id), 0)
    OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
    OR (NEW.position <> -1 AND NEW.position <> 1 + max(
        coalesce((SELECT max(position) FROM events), 0),
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)))
BEGIN
    SELECT RAISE(ABORT, 'annals: the event does not continue its stream or the log, or its id is taken');
END;
