-- One process at a time moves a checkpoint: the owner, until its lease ends by the clock of this machine. Each new owner
-- raises the epoch, and a checkpoint moves only together with a comparison of the epoch, so that a former owner writes
-- nothing more. Checkpoints of projections that are split into slots have a row per slot.
CREATE TABLE annals_checkpoints_with_slots (
    projection   TEXT    NOT NULL,
    version      INTEGER NOT NULL CONSTRAINT annals_checkpoints_versions_count_from_1 CHECK (version >= 1),
    slot         INTEGER NOT NULL CONSTRAINT annals_checkpoints_slots_count_from_0 CHECK (slot >= 0),
    slots        INTEGER NOT NULL, -- how many slots the version has
    read_model   TEXT    NOT NULL,
    shape        TEXT    NOT NULL,
    events       TEXT    NOT NULL, -- the event names that it reads, one per line
    tenant       TEXT,             -- the only tenant whose events it reads
    incarnation  BLOB    NOT NULL CONSTRAINT annals_checkpoints_incarnation_is_a_uuid CHECK (length(incarnation) = 16),
    position     INTEGER NOT NULL CONSTRAINT annals_checkpoints_positions_count_from_0 CHECK (position >= 0),
    event_id     BLOB             CONSTRAINT annals_checkpoints_event_id_is_a_uuid CHECK (length(event_id) = 16),
    updated_at   INTEGER NOT NULL,
    owner        BLOB             CONSTRAINT annals_checkpoints_owner_is_a_uuid CHECK (length(owner) = 16),
    owner_epoch  INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,          -- microseconds since 1970
    trying       INTEGER,                    -- the event that is applied alone, as a process ended before
    tries        INTEGER NOT NULL DEFAULT 0, -- how often that was begun
    paused_at    INTEGER,
    paused_by    TEXT,
    CONSTRAINT annals_checkpoints_key PRIMARY KEY (projection, version, slot),
    CONSTRAINT annals_checkpoints_slot_is_below_slots CHECK (slot < slots),
    CONSTRAINT annals_checkpoints_event_id_only_missing_at_the_start CHECK ((position = 0) = (event_id IS NULL)),
    CONSTRAINT annals_checkpoints_owners_have_a_lease CHECK ((owner IS NULL) = (leased_until IS NULL)),
    CONSTRAINT annals_checkpoints_pauses_name_who_asked CHECK ((paused_at IS NULL) = (paused_by IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO annals_checkpoints_with_slots (projection, version, slot, slots, read_model, shape, events, tenant,
                                           incarnation, position, event_id, updated_at)
SELECT projection, version, 0, 1, read_model, shape, events, tenant, incarnation, position, event_id, updated_at
FROM annals_checkpoints;

DROP TABLE annals_checkpoints;

ALTER TABLE annals_checkpoints_with_slots RENAME TO annals_checkpoints;

-- The processes that run projections, so that they share the work.
CREATE TABLE annals_runners (
    runner      BLOB    NOT NULL CONSTRAINT annals_runners_runner_is_a_uuid CHECK (length(runner) = 16),
    name        TEXT    NOT NULL, -- for people
    projections TEXT    NOT NULL, -- what it runs, a line each: name, a space, version
    alive_until INTEGER NOT NULL, -- microseconds since 1970
    CONSTRAINT annals_runners_key PRIMARY KEY (runner)
) STRICT, WITHOUT ROWID;
