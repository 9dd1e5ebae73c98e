//! Waiting until an instance stands as somebody wants it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::handle::Sagas;
use crate::engine::SagaStatus;
use crate::error::SagaError;
use crate::instance::{SagaId, Status};

/// The first and the longest pause between two looks at an instance that another process runs.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// What no clock can hold is waited for so long: thirty years.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Sagas {
    /// Waits until an instance has ended or is stuck, `limit` at most.
    ///
    /// # Errors
    /// [`SagaError::TimedOut`] with where it stands; others as of [`Sagas::status`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless; the instance goes on.
    pub async fn wait_for(&self, id: &SagaId, limit: Duration) -> Result<SagaStatus, SagaError> {
        let is_over = |status: &SagaStatus| status.status.is_final() || status.status == Status::Stuck;
        self.wait_until(id, limit, is_over).await
    }

    /// Waits until it is as `wanted` where an instance stands, `limit` at most. An instance that runs in this process is looked at
    /// when its run ends, as it has ended, is stuck or waits; any other every 250 ms, and sooner at first.
    ///
    /// ```
    /// use annals_sagas::{Saga, SagaId, SagasExt};
    /// use std::time::Duration;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let store = annals_eventstore::sqlite(folder.path().join("bank.db")).await?;
    /// let sagas = store.sagas().with(Saga::<u64>::new("nap").timer("wait", Duration::from_secs(60)).build()?).start().await?;
    /// let id = SagaId::new("n-17")?;
    /// sagas.start(&id, 1_u64).await?;
    /// // The customer is answered that it takes longer.
    /// let waits = sagas.wait_until(&id, Duration::from_secs(5), |status| status.wake_at.is_some()).await?;
    /// assert!(!waits.status.is_final());
    /// # sagas.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As of [`Sagas::wait_for`].
    ///
    /// # Cancel safety
    /// As of [`Sagas::wait_for`].
    pub async fn wait_until(
        &self,
        id: &SagaId,
        limit: Duration,
        wanted: impl Fn(&SagaStatus) -> bool,
    ) -> Result<SagaStatus, SagaError> {
        let now = Instant::now();
        let (until, mut pause) = (now.checked_add(limit).unwrap_or(now + LONGEST_WAIT), FIRST_LOOK);
        loop {
            // Before the look, so that no end falls in between.
            let done = self.shared().in_flight.done(&self.key(id));
            let status = self.status(id).await?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() >= until {
                return Err(SagaError::TimedOut { id: id.clone(), status: Box::new(status) });
            }
            match done {
                Some(mut done) => drop(timeout_at(until, done.changed()).await),
                None => {
                    sleep(pause.min(until - Instant::now())).await;
                    pause = (pause * 2).min(LONGEST_LOOK);
                }
            }
        }
    }
}
