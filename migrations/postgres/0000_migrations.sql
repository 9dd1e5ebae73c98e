-- Records which migrations have run on this database. Runs under an advisory lock; repeating it is harmless.
CREATE SCHEMA IF NOT EXISTS annals;

CREATE TABLE IF NOT EXISTS annals.migrations (
    component  text        COLLATE "C" NOT NULL,
    number     bigint      NOT NULL,
    name       text        NOT NULL,
    build      bigint      NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT migrations_key PRIMARY KEY (component, number)
);
