-- Which version of its projection the stable name of each read model shows. It is updated in the transaction that switches
-- the view. `highest` is the highest version ever shown: only a higher one takes over the name automatically.
CREATE TABLE annals_read_models (
    read_model TEXT    NOT NULL,
    projection TEXT    NOT NULL,
    version    INTEGER NOT NULL CONSTRAINT annals_read_models_versions_count_from_1 CHECK (version >= 1),
    highest    INTEGER NOT NULL CONSTRAINT annals_read_models_highest_is_not_below_version CHECK (highest >= version),
    CONSTRAINT annals_read_models_key PRIMARY KEY (read_model)
) STRICT, WITHOUT ROWID;
