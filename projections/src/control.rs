//! What people do with projections that run: pause them, resume them, start them again.

use annals_eventstore::Invalid;
use tokio::sync::oneshot;

use crate::database::{Fault, Paused};
use crate::error::ControlError;
use crate::handle::Projections;
use crate::keeper::Order;
use crate::status::ProjectionState;
use crate::transaction::Controlled;

/// The longest name and the longest reason of somebody who does something, in characters.
const MOST_TEXT: usize = 200;

impl Projections {
    /// Lets no process work on `P` any more, in any version, until somebody resumes it. `by` says who wanted that, or why, for
    /// others to see in [`ProjectionState::Paused`]; a pause that is there already stays as it was.
    ///
    /// From when this returns, no row of `P` and no checkpoint changes, whichever process runs it or is started: a batch that is
    /// under way elsewhere is not committed. The pause is stored, so it outlasts all processes; a version that is started
    /// meanwhile begins paused. Queries see the rows as they are, and waits time out.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_projections::ProjectionsExt;
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(PerTill).start().await?;
    /// views.pause::<PerTill>("the night's backup").await?;
    /// // Nothing writes into the table now.
    /// assert!(views.resume::<PerTill>().await?);
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ControlError`]; nothing is paused then, unless it is [`ControlError::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it paused or not.
    pub async fn pause<P: Controlled>(&self, by: &str) -> Result<(), ControlError> {
        check_text("by", by)?;
        self.known_to_control::<P>()?;
        let now = self.shared().clock.now();
        match self.shared().database.pause(P::__NAME, by, now).await.map_err(refused)? {
            Some(Paused { by, .. }) => tracing::info!(projection = P::__NAME, by, "paused"),
            None => return Err(self.unknown_to_control::<P>()),
        }
        // So that the status says it soon. What was paused is paused whether anybody hears this or not.
        self.order(Order::Look).ok();
        Ok(())
    }

    /// Ends the pause of `P`: one of the processes that run it continues. False if it was not paused. Any process may do it.
    ///
    /// # Errors
    /// As of [`Projections::pause`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it paused or not.
    pub async fn resume<P: Controlled>(&self) -> Result<bool, ControlError> {
        self.known_to_control::<P>()?;
        let resumed = self.shared().database.resume(P::__NAME).await.map_err(refused)?;
        self.order(Order::Look).ok();
        Ok(resumed)
    }

    /// Starts `P` again in this process, after it has stopped here and what stopped it was fixed in the database, in an event's
    /// upcaster's input or elsewhere outside of this program; or, after [`StopCause::ProcessEnded`](crate::StopCause::ProcessEnded),
    /// in a build that was deployed since. False if it has not stopped. It continues with the event that it stopped before; a fault
    /// that is still there stops it again.
    ///
    /// # Errors
    /// [`ControlError::Unknown`] if `P` was not started; [`ControlError::Closed`] if all are closed; others as of
    /// [`Projections::pause`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it stopped or started.
    pub async fn start_again<P: Controlled>(&self) -> Result<bool, ControlError> {
        let status = self.known_to_control::<P>()?;
        if !matches!(status, ProjectionState::Stopped(_)) {
            return Ok(false);
        }
        self.shared().database.forget_tries(P::__NAME).await.map_err(refused)?;
        let (done, starts) = oneshot::channel();
        self.order(Order::StartAgain(P::__NAME, done))?;
        // It is dropped when that is done.
        starts.await.ok();
        Ok(true)
    }

    fn known_to_control<P: Controlled>(&self) -> Result<ProjectionState, ControlError> {
        let state = self.status_of::<P>().map(|status| status.state);
        state.ok_or_else(|| self.unknown_to_control::<P>())
    }

    pub(crate) fn unknown_to_control<P: Controlled>(&self) -> ControlError {
        ControlError::Unknown { name: P::__NAME.to_owned(), known: self.names_of_all() }
    }
}

/// Checks what people say of what they do.
pub(crate) fn check_text(field: &'static str, text: &str) -> Result<(), Invalid> {
    let length = text.chars().count();
    if (1..=MOST_TEXT).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let problem = format!("has {length} characters, or some that cannot be printed");
    Err(Invalid::new(field, problem, "give it 1 to 200 printable characters"))
}

pub(crate) fn refused(fault: Fault) -> ControlError {
    if fault.transient { ControlError::Unavailable(fault.source) } else { ControlError::Database(fault.source) }
}
