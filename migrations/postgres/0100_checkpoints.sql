-- How far each projection has read. It is updated in the transaction that writes the rows. Read models are in other
-- schemas, so a row names the schema; two apps with a schema each can share a database.
CREATE TABLE annals.checkpoints (
    read_schema text   COLLATE "C" NOT NULL,
    projection  text   COLLATE "C" NOT NULL,
    version     bigint NOT NULL CONSTRAINT checkpoints_versions_count_from_one CHECK (version >= 1),
    read_model  text   COLLATE "C" NOT NULL,
    shape       text   NOT NULL,
    events      text   NOT NULL, -- the event names that it reads, one per line
    tenant      text,            -- the only tenant whose events it reads
    incarnation uuid   NOT NULL,
    position    bigint NOT NULL CONSTRAINT checkpoints_positions_count_from_zero CHECK (position >= 0),
    event_id    uuid,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT checkpoints_key PRIMARY KEY (read_schema, projection, version),
    CONSTRAINT checkpoints_event_id_only_missing_at_the_start CHECK ((position = 0) = (event_id IS NULL))
) WITH (fillfactor = 50); -- space on each page for new row versions, as rows change with every batch
