-- One row about the store: its current incarnation, and the oldest build that may open it.
CREATE TABLE annals_store (
    only_row    INTEGER NOT NULL CONSTRAINT annals_store_has_one_row CHECK (only_row = 1),
    incarnation BLOB    NOT NULL CONSTRAINT annals_store_incarnation_is_a_uuid CHECK (length(incarnation) = 16),
    min_build   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    CONSTRAINT annals_store_key PRIMARY KEY (only_row)
) STRICT;
