-- Streams that a projection with dead letters has set aside: the event that it could not apply, and how many events of the
-- stream wait behind that one. The events themselves are in the log.
CREATE TABLE annals_parked_streams (
    projection     TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    slot           INTEGER NOT NULL,
    tenant         TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    stream_version INTEGER NOT NULL,
    event_name     TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    parked_at      INTEGER NOT NULL,
    waiting        INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT annals_parked_streams_key
        PRIMARY KEY (projection, version, slot, tenant, aggregate_type, aggregate_id)
) STRICT, WITHOUT ROWID;

-- What people have dropped of it: the events of the stream from `from_position` to `to_position` are in no row.
CREATE TABLE annals_dropped_events (
    projection     TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    tenant         TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    from_position  INTEGER NOT NULL,
    to_position    INTEGER NOT NULL,
    dropped_by     TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    dropped_at     INTEGER NOT NULL,
    CONSTRAINT annals_dropped_events_key
        PRIMARY KEY (projection, version, tenant, aggregate_type, aggregate_id, from_position)
) STRICT, WITHOUT ROWID;
