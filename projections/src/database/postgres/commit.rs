//! Committing rows and checkpoints: in one statement as a rule, in a transaction of several where there is much to do.

use std::collections::HashMap;
use std::sync::Arc;

use annals_eventstore::__private::Micros;
use annals_eventstore::PostgresDatabase;
use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::fault::{fault, statement_fault};
use super::load::seek_by_key;
use super::lock_timeout;
use super::parked;
use super::schema::ModelSchema;
use super::statements::{PLACE_PARAMETERS, Statements, at_place};
use super::values::{Query, bind_keys, bind_rows};
use crate::changes::{Changes, of_one_length};
use crate::column::ColumnValue;
use crate::database::{Fault, Moved, Work};

/// How many rows go into one statement at most, and about how many bytes: a message to the server has an end, and both
/// sides hold it in memory.
const MOST_ROWS: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;

/// Until the connection is returned, and until the end of the transaction.
const WAIT_SHORTLY: &str = concat!("SET ", lock_timeout!());
const WAIT_SHORTLY_INSIDE: &str = concat!("SET LOCAL ", lock_timeout!());

/// How many parameters [`moved`] takes.
const MOVE_PARAMETERS: usize = PLACE_PARAMETERS + 4;

/// Writes rows and moves checkpoints: all of it or nothing, except parts that were overtaken.
pub(super) async fn commit(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    work: &[&Work],
    now: Timestamp,
) -> Result<Vec<Moved>, Fault> {
    // Every process locks the checkpoints in one order, so that none deadlocks with another.
    let mut order: Vec<usize> = (0..work.len()).collect();
    order.sort_unstable_by_key(|&at| (work[at].model.projection, work[at].model.version, work[at].from.slot));
    let parts: Vec<Part<'_>> =
        order.iter().map(|&at| Part { work: work[at], statements: schema.statements(&work[at].model) }).collect();
    let commit = Commit { database, schema, now, parts };
    let moved = commit.run().await.map_err(|fault| Fault { part: fault.part.map(|at| order[at]), ..fault })?;
    let moved: HashMap<usize, Moved> = order.into_iter().zip(moved).collect();
    Ok((0..work.len()).map(|at| moved[&at]).collect())
}

struct Part<'a> {
    work: &'a Work,
    statements: Arc<Statements>,
}

struct Commit<'a> {
    database: &'a PostgresDatabase,
    schema: &'a ModelSchema,
    now: Timestamp,
    parts: Vec<Part<'a>>,
}

impl Commit<'_> {
    async fn run(&self) -> Result<Vec<Moved>, Fault> {
        if self.parts.iter().all(|part| is_small(&part.work.changes) && part.work.parking.is_empty()) {
            match self.at_once().await {
                // Which part is to blame shows when they are run one after the other.
                Err(fault) if !fault.transient => {}
                done => return done,
            }
        }
        self.one_by_one().await
    }

    /// Everything in one statement, which is one round trip and its own transaction. A pooler needs a transaction around it.
    async fn at_once(&self) -> Result<Vec<Moved>, Fault> {
        let sql_fault = |e| statement_fault(self.database, e);
        let mut query = self.schema.query(at_once(&self.parts));
        for part in &self.parts {
            query = self.bind_move(query, part.work);
            if !part.work.changes.written.is_empty() {
                query = bind_rows(query, part.work.model.table, &part.work.changes.written);
            }
        }
        let row = match self.database.is_pooled() {
            false => {
                let mut connection = self.database.read().await.map_err(fault)?;
                self.schema.run(&mut connection, WAIT_SHORTLY).await.map_err(sql_fault)?;
                query.fetch_one(&mut connection).await.map_err(sql_fault)?
            }
            true => {
                let mut transaction = self.database.begin().await.map_err(fault)?;
                self.schema.run(&mut transaction, WAIT_SHORTLY_INSIDE).await.map_err(sql_fault)?;
                let row = query.fetch_one(&mut transaction).await.map_err(sql_fault)?;
                transaction.commit().await.map_err(fault)?;
                row
            }
        };
        let answers = (0..self.parts.len()).map(|at| row.try_get::<bool, _>(at).map(answer));
        answers.collect::<Result<_, _>>().map_err(sql_fault)
    }

    /// The same in a transaction, part by part, piece by piece.
    async fn one_by_one(&self) -> Result<Vec<Moved>, Fault> {
        let mut transaction = self.database.begin().await.map_err(fault)?;
        let sql_fault = |e| statement_fault(self.database, e);
        seek_by_key(self.schema, &mut transaction).await.map_err(sql_fault)?;
        let mut done = Vec::with_capacity(self.parts.len());
        for (at, part) in self.parts.iter().enumerate() {
            let written = self.write(&mut transaction, part).await;
            done.push(written.map_err(|e| Fault { part: Some(at), ..sql_fault(e) })?);
        }
        match done.contains(&Moved::Done) {
            true => transaction.commit().await.map_err(fault)?,
            false => transaction.rollback().await.map_err(fault)?,
        }
        Ok(done)
    }

    async fn write(&self, connection: &mut PgConnection, part: &Part<'_>) -> Result<Moved, sqlx::Error> {
        let Work { model, changes: Changes { written, removed_prefixes, removed }, .. } = part.work;
        let moving = self.bind_move(self.schema.query(moved(1)), part.work);
        if moving.execute(&mut *connection).await?.rows_affected() != 1 {
            return Ok(Moved::Overtaken);
        }
        for prefixes in of_one_length(removed_prefixes).flat_map(pieces) {
            let statement = &part.statements.remove_by_prefix[prefixes[0].len() - 1];
            // Any number of rows may begin with them.
            let query = self.schema.query(Arc::clone(statement)).without_limit();
            bind_keys(query, model.table, prefixes).execute(&mut *connection).await?;
        }
        for rows in pieces(written) {
            let query = self.schema.query(Arc::clone(&part.statements.write));
            bind_rows(query, model.table, rows).execute(&mut *connection).await?;
        }
        for keys in pieces(removed) {
            let query = self.schema.query(Arc::clone(&part.statements.remove));
            bind_keys(query, model.table, keys).execute(&mut *connection).await?;
        }
        if !part.work.parking.is_empty() {
            parked::write(connection, self.schema, part.work, self.now).await?;
        }
        Ok(Moved::Done)
    }

    fn bind_move(&self, query: Query, work: &Work) -> Query {
        self.schema
            .bind_place(query, &work.model, &work.from)
            .bind(work.to.incarnation.0)
            .bind(work.to.position.get())
            .bind(work.to.event_id.map(|id| id.get()))
            .bind(Micros::of(self.now))
    }
}

fn answer(moved: bool) -> Moved {
    if moved { Moved::Done } else { Moved::Overtaken }
}

/// Moves a checkpoint; no row is touched if it stands elsewhere. Parameters begin at `$first`.
fn moved(first: usize) -> String {
    let [a, b, c, d]: [usize; 4] = std::array::from_fn(|n| first + PLACE_PARAMETERS + n);
    format!(
        "UPDATE annals.checkpoints SET incarnation = ${a}, position = ${b}, event_id = ${c}, updated_at = ${d} WHERE {}",
        at_place(first)
    )
}

/// One statement for all parts. Rows are written as far as the checkpoint was moved, and every statement of it sees the
/// tables as they were when it began; so parts do not meet, as each has a table of its own, or rows of its own in it.
fn at_once(parts: &[Part<'_>]) -> String {
    let (mut steps, mut answers, mut first) = (Vec::new(), Vec::new(), 1);
    for (n, part) in parts.iter().enumerate() {
        steps.push(format!("moved_{n} AS ({} RETURNING 1)", moved(first)));
        answers.push(format!("EXISTS (SELECT 1 FROM moved_{n})"));
        first += MOVE_PARAMETERS;
        if !part.work.changes.written.is_empty() {
            steps.push(format!("written_{n} AS ({})", part.statements.write_if(&format!("moved_{n}"), first)));
            first += part.work.model.table.columns.len();
        }
    }
    format!("WITH {} SELECT {} ORDER BY 1", steps.join(", "), answers.join(", "))
}

/// Whether the changes fit into one statement. Removals need a transaction, for the sake of their plan.
fn is_small(changes: &Changes) -> bool {
    changes.removed.is_empty() && changes.removed_prefixes.is_empty() && pieces(&changes.written).count() <= 1
}

/// Cuts rows into pieces for a statement each.
fn pieces(mut rows: &[Vec<ColumnValue>]) -> impl Iterator<Item = &[Vec<ColumnValue>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rows.iter().take(MOST_ROWS).take_while(|row| {
            bytes += row.iter().map(ColumnValue::bytes).sum::<usize>();
            bytes <= MOST_BYTES
        });
        // A row that is larger than a piece should be goes alone.
        let piece = fitting.count().max(1).min(rows.len());
        let (piece, rest) = rows.split_at(piece);
        rows = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
