use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use super::{Call, Policy};
use crate::class::{ByError, Class, ErrorJudge, Judge, ResultJudge};
use crate::deadline::Deadline;
use crate::error::CallError;

/// A call that is not made yet: `.await` makes it.
///
/// # Cancel safety
/// Dropping the future gives back slot, probe and retry at once. An attempt under way is dropped too, and may have had its
/// effect.
#[must_use = "a call is made when it is awaited"]
pub struct Pending<'a, F, J> {
    policy: Policy,
    repeatable: bool,
    deadline: Deadline,
    call: F,
    judge: J,
    borrows: PhantomData<&'a ()>,
}

impl<F> Pending<'_, F, ByError> {
    pub(super) fn new(policy: Policy, repeatable: bool, call: F) -> Self {
        Self { policy, repeatable, deadline: Deadline::NONE, call, judge: ByError, borrows: PhantomData }
    }
}

impl<'a, F, J> Pending<'a, F, J> {
    /// The caller's deadline. The earliest counts if it is given more than once.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = self.deadline.earlier(deadline);
        self
    }

    /// Judges errors by a closure, for those that do not implement [`Classify`](crate::Classify).
    ///
    /// ```
    /// # use annals_resilience::{Class, Policy};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let stock = Policy::fast("stock").build()?;
    /// let answer = stock
    ///     .idempotent(|_| async { Err::<(), u16>(404) })
    ///     .judged_by(|status| Class::of_status(*status, None))
    ///     .await;
    /// assert_eq!(answer.unwrap_err().source, Some(404));
    /// # Ok(())
    /// # }
    /// ```
    pub fn judged_by<E, G: Fn(&E) -> Class>(self, judge: G) -> Pending<'a, F, ErrorJudge<G>> {
        self.with_judge(ErrorJudge(judge))
    }

    /// Judges whole results by a closure, for clients that answer 503 as `Ok`. Such an answer is returned when no further
    /// attempt is made.
    pub fn results_judged_by<T, E, G: Fn(&Result<T, E>) -> Class>(self, judge: G) -> Pending<'a, F, ResultJudge<G>> {
        self.with_judge(ResultJudge(judge))
    }

    /// The policy's name, and until when an answer is of use if the wait for it begins now.
    pub(crate) fn wait(&self) -> (Arc<str>, Deadline) {
        (self.policy.engine.name.clone(), self.deadline.child(self.policy.longest()))
    }

    fn with_judge<K>(self, judge: K) -> Pending<'a, F, K> {
        let Self { policy, repeatable, deadline, call, judge: _, borrows } = self;
        Pending { policy, repeatable, deadline, call, judge, borrows }
    }

    /// As `.await`, without the box around the future.
    ///
    /// # Errors
    /// [`CallError`] says which guard refused, or how the last attempt ended.
    pub async fn run<T, E, Fut>(self) -> Result<T, CallError<E>>
    where
        F: FnMut(Call) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        J: Judge<T, E>,
    {
        self.policy.engine.run(|| self.repeatable, self.deadline, &self.judge, self.call).await
    }
}

impl<'a, F, J, Fut, T, E> IntoFuture for Pending<'a, F, J>
where
    F: FnMut(Call) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, E>> + Send + 'a,
    J: Judge<T, E> + Send + Sync + 'a,
    T: Send + 'a,
    E: Send + 'a,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<F, J> fmt::Debug for Pending<'_, F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("policy", &self.policy.name()).finish_non_exhaustive()
    }
}
