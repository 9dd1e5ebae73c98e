-- Streams that a projection with dead letters has set aside: the event that it could not apply, and how many events of the
-- stream wait behind that one. The events themselves are in the log.
CREATE TABLE annals.parked_streams (
    read_schema    text    COLLATE "C" NOT NULL,
    projection     text    COLLATE "C" NOT NULL,
    version        bigint  NOT NULL,
    slot           integer NOT NULL,
    tenant         text    COLLATE "C" NOT NULL,
    aggregate_type text    COLLATE "C" NOT NULL,
    aggregate_id   text    COLLATE "C" NOT NULL,
    position       bigint  NOT NULL,
    stream_version bigint  NOT NULL,
    event_name     text    NOT NULL,
    reason         text    NOT NULL,
    parked_at      timestamptz NOT NULL,
    waiting        bigint  NOT NULL DEFAULT 0,
    CONSTRAINT parked_streams_key
        PRIMARY KEY (read_schema, projection, version, slot, tenant, aggregate_type, aggregate_id)
);

-- What people have dropped of it: the events of the stream from `from_position` to `to_position` are in no row.
CREATE TABLE annals.dropped_events (
    read_schema    text   COLLATE "C" NOT NULL,
    projection     text   COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    tenant         text   COLLATE "C" NOT NULL,
    aggregate_type text   COLLATE "C" NOT NULL,
    aggregate_id   text   COLLATE "C" NOT NULL,
    from_position  bigint NOT NULL,
    to_position    bigint NOT NULL,
    dropped_by     text   NOT NULL,
    reason         text   NOT NULL,
    dropped_at     timestamptz NOT NULL,
    CONSTRAINT dropped_events_key
        PRIMARY KEY (read_schema, projection, version, tenant, aggregate_type, aggregate_id, from_position)
);
