//! Units of work and appends in foreign transactions: all or nothing, with any concurrent writers.

mod append_in;
mod decide_within;
mod dropped;
mod race;
mod units;

use annals_eventstore::{Append, AppendError, Appended, ExpectedVersion, PostgresUnitOfWork, UnitOfWork};
use sqlx::{PgConnection, Row};
use tokio::task::JoinHandle;

use super::database::{cut, kill, pid};
use super::faults::blocked_in;
use super::{Fixture, insert, run, stream};

const NO_STREAM: ExpectedVersion = ExpectedVersion::NoStream;
const ANY: ExpectedVersion = ExpectedVersion::Any;

impl Fixture {
    /// A store with the table `mine`.
    async fn with_table() -> Self {
        let fixture = Self::new().await;
        run(&mut fixture.foreign().await, "CREATE TABLE mine (n int PRIMARY KEY)").await.unwrap();
        fixture
    }

    fn to(&self, id: &str, expected: ExpectedVersion, events: usize) -> Append {
        Append::to(stream(id), expected, (0..events).map(|_| self.event()).collect())
    }

    /// The streams with their versions, and the user's own rows.
    async fn stored(&self) -> (Vec<(String, i64)>, Vec<i32>) {
        let mut foreign = self.foreign().await;
        let heads = "SELECT aggregate_id, max(version) FROM annals.events GROUP BY aggregate_id ORDER BY aggregate_id";
        let heads = sqlx::query(heads).fetch_all(&mut foreign).await.unwrap();
        let rows = sqlx::query("SELECT n FROM mine ORDER BY n").fetch_all(&mut foreign).await.unwrap();
        (heads.iter().map(|row| (row.get(0), row.get(1))).collect(), rows.iter().map(|row| row.get(0)).collect())
    }
}

fn heads(heads: &[(&str, i64)]) -> Vec<(String, i64)> {
    heads.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect()
}

async fn own_row(connection: &mut PgConnection, n: i32) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO mine VALUES ($1)").bind(n).execute(connection).await.map(|_| ())
}

/// Waits until an append inside a transaction waits for another one.
async fn blocked(fixture: &Fixture) {
    blocked_in(&mut fixture.foreign().await, "annals.append_within(").await;
}

/// Appends in its own task, and returns when that is blocked by another transaction.
async fn append_blocked(
    fixture: &Fixture,
    mut unit: PostgresUnitOfWork,
    append: Append,
) -> JoinHandle<(PostgresUnitOfWork, Result<Appended, AppendError>)> {
    let waiting = tokio::spawn(async move {
        let appended = unit.append(append).await;
        (unit, appended)
    });
    blocked(fixture).await;
    waiting
}
