-- Which run has each reactor, and how many runs ended before it without saying so since its checkpoint was last moved. The
-- checkpoint is the row of annals_checkpoints whose projection is `reactor:` and the name.
CREATE TABLE annals_reactors (
    reactor TEXT    NOT NULL,
    owner   BLOB    NOT NULL CONSTRAINT annals_reactors_owner_is_a_uuid CHECK (length(owner) = 16),
    unclean INTEGER NOT NULL CONSTRAINT annals_reactors_unclean_is_not_negative CHECK (unclean >= 0),
    CONSTRAINT annals_reactors_key PRIMARY KEY (reactor)
) STRICT, WITHOUT ROWID;

-- The event that a stream cannot get past in a reactor: tried again at a time, or parked with all events behind it. The row
-- is removed when the event is handled.
CREATE TABLE annals_reactor_failures (
    reactor        TEXT    NOT NULL,
    tenant         TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    event_type     TEXT    NOT NULL,
    tries          INTEGER NOT NULL CONSTRAINT annals_reactor_failures_tries_are_not_negative CHECK (tries >= 0),
    unfinished     INTEGER NOT NULL CONSTRAINT annals_reactor_failures_unfinished_are_not_negative CHECK (unfinished >= 0),
    parked         INTEGER NOT NULL CONSTRAINT annals_reactor_failures_parked_is_a_bool CHECK (parked IN (0, 1)),
    error          TEXT    NOT NULL,
    next_try_at    INTEGER NOT NULL,
    CONSTRAINT annals_reactor_failures_key PRIMARY KEY (reactor, tenant, aggregate_type, aggregate_id)
) STRICT, WITHOUT ROWID;
