-- Which run has each reactor, and how many runs ended before it without saying so since its checkpoint was last moved. The
-- checkpoint is the row of annals.checkpoints whose projection is `reactor:` and the name.
CREATE TABLE annals.reactors (
    read_schema text   COLLATE "C" NOT NULL,
    reactor     text   COLLATE "C" NOT NULL,
    owner       uuid   NOT NULL,
    unclean     bigint NOT NULL CONSTRAINT reactors_unclean_is_not_negative CHECK (unclean >= 0),
    CONSTRAINT reactors_key PRIMARY KEY (read_schema, reactor)
) WITH (fillfactor = 50); -- space on each page for new row versions, as rows change with every checkpoint

-- The event that a stream cannot get past in a reactor: tried again at a time, or parked with all events behind it. The row
-- is removed when the event is handled.
CREATE TABLE annals.reactor_failures (
    read_schema    text   COLLATE "C" NOT NULL,
    reactor        text   COLLATE "C" NOT NULL,
    tenant         text   COLLATE "C" NOT NULL,
    aggregate_type text   COLLATE "C" NOT NULL,
    aggregate_id   text   COLLATE "C" NOT NULL,
    position       bigint NOT NULL,
    version        bigint NOT NULL,
    event_type     text   NOT NULL,
    tries          bigint NOT NULL CONSTRAINT reactor_failures_tries_are_not_negative CHECK (tries >= 0),
    unfinished     bigint NOT NULL CONSTRAINT reactor_failures_unfinished_are_not_negative CHECK (unfinished >= 0),
    parked         boolean NOT NULL,
    error          text   NOT NULL,
    next_try_at    timestamptz NOT NULL,
    CONSTRAINT reactor_failures_key PRIMARY KEY (read_schema, reactor, tenant, aggregate_type, aggregate_id)
);
