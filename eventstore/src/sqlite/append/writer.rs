//! The writer task: while one commit is in flight, appends gather; then one transaction stores them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::append::{Appended, CheckedAppend};
use crate::database_error::DatabaseError;
use crate::error::{AppendError, ErrorFamily};
use crate::limits::Limits;
use crate::position::Position;
use crate::queue::{EndOfQueue, Queue, Taken};
use crate::sqlite::append::lone;
use crate::sqlite::append::round::{Answers, Round, RoundError, run};
use crate::sqlite::connection::database::{SqliteDatabase, Writer};
use crate::sqlite::fault::is_refusal;

/// What the writer task and its callers share.
pub(crate) struct GroupCommit {
    pub(crate) database: SqliteDatabase,
    pub(crate) queue: Arc<Queue>,
    pub(crate) limits: Limits,
    pub(crate) head: watch::Sender<Position>,
    /// How many appends the last batch carried: one means that a queue would only cost time.
    pub(crate) last_batch: AtomicUsize,
    /// The latest time in microseconds that the clock has shown, or that the log held when it was opened.
    pub(crate) latest: AtomicI64,
}

impl GroupCommit {
    /// Wakes readers. The position is only a hint, so it decides nothing here: after a restore, or a rolled back savepoint,
    /// the next events may have positions that were announced before.
    pub(crate) fn announce(&self, position: Position) {
        self.head.send_modify(|head| *head = position.max(*head));
    }

    /// Runs until the queue is closed and empty. If it ends before, by a panic or with its runtime, the queue ends with it.
    pub(crate) fn write(group: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Made before the first poll, as a runtime may be shut down before that.
        let end = EndOfQueue(Arc::clone(&group.queue));
        async move {
            group.write_on().await;
            drop(end);
        }
    }

    async fn write_on(&self) {
        while self.queue.wait().await {
            if self.last_batch.load(Ordering::Relaxed) > 1 {
                // Callers that were answered a moment ago are ready to run: they may, so that the next batch has
                // their next appends too. This waits for nothing that is not ready.
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            let writer = self.database.writer().await;
            let Taken { appends, replies } = match &writer {
                // Those that came later have not waited for as long.
                Err(DatabaseError::Busy { .. }) => self.queue.take_until(begun),
                _ => self.queue.gather(&self.limits),
            };
            if appends.is_empty() {
                continue;
            }
            self.last_batch.store(appends.len(), Ordering::Relaxed);
            let answers = match writer {
                Ok(mut writer) => self.commit(&mut writer, &appends).await,
                Err(error) => refuse_all(&error, &appends),
            };
            for (reply, answer) in replies.into_iter().zip(answers) {
                reply.send(answer);
            }
        }
    }

    /// Commits a batch and wakes readers.
    pub(crate) async fn commit(&self, writer: &mut Writer, appends: &[CheckedAppend]) -> Answers {
        let answers = self.commit_all(writer, appends).await;
        let may_be_stored = |answer: &Result<Appended, AppendError>| match answer {
            Ok(appended) => Some(appended.position),
            Err(error) => (error.family() == ErrorFamily::OutcomeUnknown).then_some(Position::START),
        };
        if let Some(last) = answers.iter().filter_map(may_be_stored).max() {
            self.announce(last);
        }
        answers
    }

    /// What cannot be committed together is committed one by one, so that only the append with the fault is refused.
    async fn commit_all(&self, writer: &mut Writer, appends: &[CheckedAppend]) -> Answers {
        match self.attempt(writer, appends).await {
            Ok(answers) => answers,
            Err(DatabaseError::Refused { .. }) if appends.len() > 1 => {
                let mut answers = Vec::with_capacity(appends.len());
                for append in appends {
                    answers.push(match self.attempt(writer, std::slice::from_ref(append)).await {
                        Ok(mut answer) => answer.pop().expect("one append has one answer"),
                        Err(error) => Err(error.into_append(|| append.first_stream())),
                    });
                }
                answers
            }
            Err(error) => refuse_all(&error, appends),
        }
    }

    /// One transaction, and a second with a look at the event ids if the first shows that some may be stored already.
    async fn attempt(&self, writer: &mut Writer, appends: &[CheckedAppend]) -> Result<Answers, DatabaseError> {
        let mut round = Round { look_up_ids: false, own_transaction: true };
        if let [append] = appends
            && let Some(row) = lone::row(append).filter(|_| self.database.has_system_clock())
        {
            self.database.clean(writer).await?;
            writer.set_unclean(true);
            match lone::store(writer.connection()?, append, &row, self.now()).await {
                Ok(Some(appended)) => {
                    writer.set_unclean(false);
                    self.latest.fetch_max(appended.recorded_at.as_microsecond(), Ordering::AcqRel);
                    return Ok(vec![Ok(appended)]);
                }
                // A conflict, or the same append again: the round tells which.
                Ok(None) => {}
                Err(error) if is_refusal(&error) => round.look_up_ids = true,
                Err(error) => return Err(self.rolled_back(writer, error).await),
            }
        }
        loop {
            self.database.clean(writer).await?;
            writer.set_unclean(true);
            match run(writer.connection()?, appends, self, round).await {
                Ok(answers) => {
                    writer.set_unclean(false);
                    return Ok(answers);
                }
                Err(RoundError::LookUpIds) => round.look_up_ids = true,
                Err(RoundError::Failed(error)) if is_refusal(&error) && !round.look_up_ids => round.look_up_ids = true,
                Err(RoundError::Failed(error)) => return Err(self.rolled_back(writer, error).await),
            }
        }
    }

    /// Rolls back at once; if that fails too, the next writer does it.
    async fn rolled_back(&self, writer: &mut Writer, error: sqlx::Error) -> DatabaseError {
        if let Err(later) = self.database.clean(writer).await {
            tracing::warn!(error = %later, "a failed batch is rolled back by the next writer");
        }
        self.database.fault(error)
    }

    /// The present moment in whole microseconds.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        let now = crate::clock::whole_micros(self.database.clock().now());
        self.latest.fetch_max(now.as_microsecond(), Ordering::AcqRel);
        now
    }

    /// The latest time that is known of, in microseconds. It is later than the clock if that was set back.
    pub(crate) fn latest(&self) -> i64 {
        self.latest.load(Ordering::Acquire)
    }
}

/// One fault of the database for several callers.
fn refuse_all(error: &DatabaseError, appends: &[CheckedAppend]) -> Answers {
    appends.iter().map(|append| Err(error.clone().into_append(|| append.first_stream()))).collect()
}
