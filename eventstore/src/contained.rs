//! Code of the user whose panic is an error like any other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it; a panic is an error that says what it said. What `run` changes must be thrown away after an error.
pub(crate) fn contained<T, E: From<String>>(run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(E::from(format!("it panicked: {}", text_of(&*panic)))))
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}
