-- One row about the store: its current incarnation, and the oldest build that may open it.
CREATE TABLE annals.store (
    only_row    boolean     NOT NULL DEFAULT true CONSTRAINT store_has_one_row CHECK (only_row),
    incarnation uuid        NOT NULL DEFAULT gen_random_uuid(),
    min_build   bigint      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT store_key PRIMARY KEY (only_row)
);
