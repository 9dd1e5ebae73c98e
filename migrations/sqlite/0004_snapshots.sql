-- Saved states of aggregates, from which a load continues. A cache: any row may be deleted at any time.
CREATE TABLE annals_snapshots (
    tenant         TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    snapshot_key   TEXT    NOT NULL, -- of the code that folds: builds with different keys do not see each other's rows
    version        INTEGER NOT NULL CONSTRAINT annals_snapshots_versions_count_from_1 CHECK (version >= 1),
    event_id       BLOB    NOT NULL, -- the event at that version; if the log has another there, the row is of no use
    body           TEXT    NOT NULL,
    digest         BLOB    NOT NULL, -- of all columns above
    recorded_at    INTEGER NOT NULL,
    CONSTRAINT annals_snapshots_key PRIMARY KEY (tenant, aggregate_type, aggregate_id, snapshot_key, version)
) STRICT;
