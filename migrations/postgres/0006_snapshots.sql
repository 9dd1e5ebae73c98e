-- Saved states of aggregates, from which a load continues. A cache: any row may be deleted at any time.
CREATE TABLE annals.snapshots (
    tenant         text   COLLATE "C" NOT NULL,
    aggregate_type text   COLLATE "C" NOT NULL,
    aggregate_id   text   COLLATE "C" NOT NULL,
    snapshot_key   text   COLLATE "C" NOT NULL, -- of the code that folds: builds with different keys do not see each other's rows
    version        bigint NOT NULL CONSTRAINT snapshots_versions_count_from_one CHECK (version >= 1),
    event_id       uuid   NOT NULL, -- the event at that version; if the log has another there, the row is of no use
    body           text   NOT NULL,
    digest         uuid   NOT NULL, -- of all columns above
    recorded_at    timestamptz NOT NULL,
    CONSTRAINT snapshots_key PRIMARY KEY (tenant, aggregate_type, aggregate_id, snapshot_key, version)
);
