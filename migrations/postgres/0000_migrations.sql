-- Remembers which migrations this database has seen. Run under an advisory lock, harmless when repeated.
CREATE SCHEMA IF NOT EXISTS annals;

CREATE TABLE IF NOT EXISTS annals.migrations (
    component  text        COLLATE "C" NOT NULL,
    number     bigint      NOT NULL,
    name       text        NOT NULL,
    build      bigint      NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT migrations_key PRIMARY KEY (component, number)
);
