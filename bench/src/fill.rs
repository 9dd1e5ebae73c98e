//! Fills logs for measurements.

use annals::{EventStore, ExpectedVersion};
use sqlx::Connection;

use crate::baseline::postgres::{connection, tidy};
use crate::{Fault, sample};

/// Events per statement: the trigger that checks versions keeps them all in memory until the statement ends.
const CHUNK: usize = 250_000;

/// The rows that the appends of the measurements would have written: ids grow with time, streams have ten events. `$1` and
/// `$2` are the first and the last number.
const FILL: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                               metadata)
    SELECT (lpad(to_hex(1700000000000 + n / 100), 12, '0') || '7' || lpad(to_hex(n % 100), 3, '0')
            || '8' || substr(md5(n::text), 1, 15))::uuid,
           'default', 'order', 'order-' || (n - n % $3), n % $3 + 1, 'order.paid', 1,
           jsonb_build_object('payment', 'payment-' || lpad(n::text, 12, '0'), 'amount', n % 100000,
                              'currency', 'EUR', 'method', 'card'),
           '{}'
    FROM generate_series($1, $2) AS n
    ORDER BY n
";

/// Fills `streams` streams of `length` events by one append each.
pub(crate) async fn by_appends<S: EventStore>(store: &S, streams: usize, length: usize) -> Result<(), Fault> {
    let mut n = 0;
    for id in 0..streams {
        let events = (0..length).map(|i| sample::event(n + i as u64)).collect();
        store.append(&sample::stream(&format!("order-{id}")), ExpectedVersion::NoStream, events).await?;
        n += length as u64;
    }
    Ok(())
}

/// Fills a database with `events` events, `length` of them in a stream. The server generates them.
pub(crate) async fn on_the_server(url: &str, events: usize, length: usize) -> Result<(), Fault> {
    let mut connection = connection(url).await?;
    for first in (0..events).step_by(CHUNK) {
        let last = events.min(first + CHUNK) - 1;
        sqlx::query(FILL)
            .bind(i64::try_from(first)?)
            .bind(i64::try_from(last)?)
            .bind(i64::try_from(length)?)
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    tidy(url).await
}
