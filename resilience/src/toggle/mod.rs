#![doc = include_str!("../../docs/toggle.md")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How many changes a reader of them may be behind without missing one.
const CHANGES_KEPT: usize = 256;

/// A typed value that can be changed while the process runs. Clones share it.
#[derive(Clone)]
pub struct Toggle<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    name: Arc<str>,
    state: Mutex<State<T>>,
    changed: watch::Sender<u64>,
}

struct State<T> {
    value: T,
    number: u64,
    changes: VecDeque<Change<T>>,
}

/// One change of a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// 1 for the first of this toggle, without gaps.
    pub number: u64,
    /// The toggle.
    pub name: Arc<str>,
    /// The value before.
    pub from: T,
    /// The value after.
    pub to: T,
    /// Who changed it, as they said.
    pub by: String,
}

/// A reader of changes was too slow; it goes on with the oldest that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} changes are no longer kept")]
pub struct MissedChanges {
    /// How many changes it did not see.
    pub count: u64,
}

impl<T: Clone + PartialEq> Toggle<T> {
    /// A toggle with its first value.
    pub fn new(name: impl Into<Arc<str>>, value: T) -> Self {
        let state = Mutex::new(State { value, number: 0, changes: VecDeque::new() });
        Self { shared: Arc::new(Shared { name: name.into(), state, changed: watch::Sender::new(0) }) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The value now.
    pub fn get(&self) -> T {
        self.lock().value.clone()
    }

    /// Changes the value, and says who does it. Setting the value that it has is no change. Gives the value before.
    pub fn set(&self, value: T, by: impl Into<String>) -> T {
        let (by, mut state) = (by.into(), self.lock());
        let from = state.value.clone();
        if from == value {
            return from;
        }
        state.value = value.clone();
        state.number += 1;
        let change = Change {
            number: state.number,
            name: self.shared.name.clone(),
            from: from.clone(),
            to: value,
            by: by.clone(),
        };
        if state.changes.len() == CHANGES_KEPT {
            state.changes.pop_front();
        }
        state.changes.push_back(change);
        let number = state.number;
        self.shared.changed.send_replace(number);
        // What writes the log may ask the toggle.
        drop(state);
        tracing::info!(toggle = &*self.shared.name, by, number, "a toggle was changed");
        from
    }

    /// Follows every change from now on.
    pub fn changes(&self) -> Changes<T> {
        let receiver = self.shared.changed.subscribe();
        let seen = self.lock().number;
        Changes { toggle: self.clone(), receiver, seen }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Toggle<bool> {
    /// Whether the feature is on.
    pub fn is_on(&self) -> bool {
        self.get()
    }
}

/// Every change of a toggle in order, from [`Toggle::changes`].
pub struct Changes<T> {
    toggle: Toggle<T>,
    receiver: watch::Receiver<u64>,
    seen: u64,
}

impl<T: Clone + PartialEq> Changes<T> {
    /// The next change, when there is one.
    ///
    /// # Errors
    /// [`MissedChanges`] if this reader fell more than 256 changes behind.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Change<T>, MissedChanges> {
        loop {
            if let Some(next) = self.kept() {
                return next;
            }
            if self.receiver.changed().await.is_err() {
                // This reader keeps the toggle, so the sender is there.
                return std::future::pending().await;
            }
        }
    }

    fn kept(&mut self) -> Option<Result<Change<T>, MissedChanges>> {
        let state = self.toggle.lock();
        let oldest = state.changes.front()?.number;
        let wanted = self.seen + 1;
        if wanted < oldest {
            self.seen = oldest - 1;
            return Some(Err(MissedChanges { count: oldest - wanted }));
        }
        let change = state.changes.get(usize::try_from(wanted - oldest).ok()?)?.clone();
        self.seen = change.number;
        Some(Ok(change))
    }
}

impl<T: fmt::Debug + Clone + PartialEq> fmt::Debug for Toggle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toggle").field("name", &self.shared.name).field("value", &self.get()).finish()
    }
}

impl<T> fmt::Debug for Changes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
