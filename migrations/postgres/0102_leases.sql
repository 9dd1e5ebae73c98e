-- One process at a time moves a checkpoint: the owner, until its lease ends by the clock of this server. Each new owner
-- raises the epoch, and a checkpoint moves only together with a comparison of the epoch, so that a former owner writes
-- nothing more. Checkpoints of projections that are split into slots have a row per slot.
ALTER TABLE annals.checkpoints
    ADD COLUMN slot         integer NOT NULL DEFAULT 0 CONSTRAINT checkpoints_slots_count_from_zero CHECK (slot >= 0),
    ADD COLUMN slots        integer NOT NULL DEFAULT 1, -- how many slots the version has
    ADD COLUMN owner        uuid,
    ADD COLUMN owner_epoch  bigint  NOT NULL DEFAULT 0,
    ADD COLUMN leased_until timestamptz,
    ADD COLUMN trying       bigint,                      -- the event that is applied alone, as a process ended before
    ADD COLUMN tries        integer NOT NULL DEFAULT 0,  -- how often that was begun
    ADD COLUMN paused_at    timestamptz,
    ADD COLUMN paused_by    text,
    DROP CONSTRAINT checkpoints_key,
    ADD CONSTRAINT checkpoints_key PRIMARY KEY (read_schema, projection, version, slot),
    ADD CONSTRAINT checkpoints_slot_is_below_slots CHECK (slot < slots),
    ADD CONSTRAINT checkpoints_owners_have_a_lease CHECK ((owner IS NULL) = (leased_until IS NULL)),
    ADD CONSTRAINT checkpoints_pauses_name_who_asked CHECK ((paused_at IS NULL) = (paused_by IS NULL));

-- The processes that run projections, so that they share the work.
CREATE TABLE annals.runners (
    read_schema text COLLATE "C" NOT NULL,
    runner      uuid NOT NULL,
    name        text NOT NULL, -- for people
    projections text NOT NULL, -- what it runs, a line each: name, a space, version
    alive_until timestamptz NOT NULL,
    CONSTRAINT runners_key PRIMARY KEY (read_schema, runner)
);
