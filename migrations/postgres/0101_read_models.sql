-- Which version of its projection the stable name of each read model shows. It is updated in the transaction that switches
-- the view. `highest` is the highest version ever shown: only a higher one takes over the name automatically.
CREATE TABLE annals.read_models (
    read_schema text   COLLATE "C" NOT NULL,
    read_model  text   COLLATE "C" NOT NULL,
    projection  text   COLLATE "C" NOT NULL,
    version     bigint NOT NULL CONSTRAINT read_models_versions_count_from_one CHECK (version >= 1),
    highest     bigint NOT NULL CONSTRAINT read_models_highest_is_not_below_version CHECK (highest >= version),
    CONSTRAINT read_models_key PRIMARY KEY (read_schema, read_model)
);
