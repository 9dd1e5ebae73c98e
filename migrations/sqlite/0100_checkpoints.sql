-- How far each projection has read. It is updated in the transaction that writes the rows.
CREATE TABLE annals_checkpoints (
    projection  TEXT    NOT NULL,
    version     INTEGER NOT NULL CONSTRAINT annals_checkpoints_versions_count_from_1 CHECK (version >= 1),
    read_model  TEXT    NOT NULL,
    shape       TEXT    NOT NULL,
    events      TEXT    NOT NULL, -- the event names that it reads, one per line
    tenant      TEXT,             -- the only tenant whose events it reads
    incarnation BLOB    NOT NULL CONSTRAINT annals_checkpoints_incarnation_is_a_uuid CHECK (length(incarnation) = 16),
    position    INTEGER NOT NULL CONSTRAINT annals_checkpoints_positions_count_from_0 CHECK (position >= 0),
    event_id    BLOB             CONSTRAINT annals_checkpoints_event_id_is_a_uuid CHECK (length(event_id) = 16),
    updated_at  INTEGER NOT NULL,
    CONSTRAINT annals_checkpoints_key PRIMARY KEY (projection, version),
    CONSTRAINT annals_checkpoints_event_id_only_missing_at_the_start CHECK ((position = 0) = (event_id IS NULL))
) STRICT, WITHOUT ROWID;
