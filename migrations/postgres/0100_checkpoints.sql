-- How far each projection has read, moved in the transaction that writes its rows. Read models live outside of this
-- schema, so a row says in which one; two apps with a schema each can share a database.
CREATE TABLE annals.checkpoints (
    read_schema text   COLLATE "C" NOT NULL,
    projection  text   COLLATE "C" NOT NULL,
    version     bigint NOT NULL CONSTRAINT checkpoints_versions_count_from_one CHECK (version >= 1),
    read_model  text   COLLATE "C" NOT NULL,
    shape       text   NOT NULL,
    events      text   NOT NULL, -- the stored names that it wants, a line each
    tenant      text,            -- the only one whose events it wants
    incarnation uuid   NOT NULL,
    position    bigint NOT NULL CONSTRAINT checkpoints_positions_count_from_zero CHECK (position >= 0),
    event_id    uuid,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT checkpoints_key PRIMARY KEY (read_schema, projection, version),
    CONSTRAINT checkpoints_event_id_only_missing_at_the_start CHECK ((position = 0) = (event_id IS NULL))
) WITH (fillfactor = 50); -- room beside each row for its next version, as it changes with every batch
