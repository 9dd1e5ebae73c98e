-- Records which migrations have run on this database.
CREATE TABLE IF NOT EXISTS annals_migrations (
    component  TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    build      INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    CONSTRAINT annals_migrations_key PRIMARY KEY (component, number)
) STRICT, WITHOUT ROWID;
