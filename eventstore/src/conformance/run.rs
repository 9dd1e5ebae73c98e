//! Runs a clause by its name.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::conformance::backend::Backend;
use crate::conformance::case::Case;
use crate::conformance::list::CLAUSES;

/// How long a clause may take before it counts as stuck. A clause that does its work takes milliseconds.
const STUCK: Duration = Duration::from_secs(30);

/// A promise, and how it is checked.
pub(super) struct Clause {
    pub(super) name: &'static str,
    pub(super) check: fn(Case) -> BoxFuture<'static, ()>,
}

/// The names of all clauses, `theme::claim`, in the order of the list: for those who run them by [`run`], in their own
/// harness. Most use [`suite!`](super::suite).
#[must_use]
pub fn names() -> Vec<&'static str> {
    CLAUSES.iter().map(|clause| clause.name).collect()
}

/// Checks one clause on the store of `backend`, in its own runtime. `backend` must be new: a clause expects
/// an empty store.
///
/// # Panics
/// If the store breaks the clause, if the clause is stuck for 30 s, or if no clause has this name.
pub fn run(name: &str, backend: impl Backend) {
    let clause = CLAUSES.iter().find(|clause| clause.name == name);
    let clause = clause.unwrap_or_else(|| panic!("no clause is called `{name}`"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let work = async {
        // Its own task, so that the timeout also works for a clause that never awaits.
        let case = Case::open(Arc::new(backend)).await;
        tokio::spawn((clause.check)(case)).await
    };
    let outcome = runtime.block_on(async { tokio::time::timeout(STUCK, work).await });
    // Tasks that still run must not delay the result.
    runtime.shutdown_background();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => panic!("`{name}` is stuck: {STUCK:?} have passed"),
    }
}
