//! Transactions that take their time, as they do where a disk is slow, a core is busy or a lock is held: some of the appends
//! are held after their events have got their places in the log and before the commit shows them.

use annals_peers::{Fault, Place};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// One append in ten is held for up to 50 ms, one in 500 for 2 s. The name of the trigger puts it behind all others.
const HOLD: &str = "
    CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.002 THEN
            PERFORM pg_sleep(2);
        ELSIF random() < 0.1 THEN
            PERFORM pg_sleep(random() * 0.05);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER zz_hold AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION public.hold()
";

/// Holds appends to the table from now on. On SQLite nothing can be held without holding everybody.
pub async fn hold(place: &Place, table: &str) -> Result<(), Fault> {
    if let Place::Postgres(url) = place {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(HOLD.replace("{table}", table))).execute(&mut connection).await?;
        connection.close().await?;
    }
    Ok(())
}
