//! Permits for connections, of which there are only so many: tenants take turns, and the calls of each come in their order. So a tenant
//! with hundreds of reads keeps another waiting for those that run, and not for those that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::stream::Tenant;

/// A number of permits. Clones share them.
#[derive(Clone)]
pub(crate) struct Permits(Arc<Inner>);

struct Inner {
    count: usize,
    state: Mutex<State>,
    /// Said when nobody has one any more.
    all_back: Notify,
}

#[derive(Default)]
struct State {
    free: usize,
    /// How many have come back.
    given_back: u64,
    closed: bool,
    /// Those who wait, while none is free. What concerns all tenants has a queue as one of them has.
    waiting: HashMap<Option<Tenant>, VecDeque<oneshot::Sender<Permit>>>,
    /// The queues in the order in which they are served.
    order: VecDeque<Option<Tenant>>,
}

/// The right to one connection; it goes back when it is dropped.
pub(crate) struct Permit(Option<Permits>);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        let state = Mutex::new(State { free: count, ..State::default() });
        Self(Arc::new(Inner { count, state, all_back: Notify::new() }))
    }

    /// Waits for one; none if they are closed. Dropping the future takes nothing.
    pub(crate) async fn take(&self, tenant: Option<&Tenant>) -> Option<Permit> {
        let taken = {
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            if state.free > 0 {
                state.free -= 1;
                return Some(Permit(Some(self.clone())));
            }
            let (sender, taken) = oneshot::channel();
            let queue = state.waiting.entry(tenant.cloned()).or_default();
            let is_first = queue.is_empty();
            // Those who have given up are not kept until it is their turn.
            while queue.pop_front_if(|waiting| waiting.is_closed()).is_some() {}
            queue.push_back(sender);
            if is_first {
                state.order.push_back(tenant.cloned());
            }
            taken
        };
        taken.await.ok()
    }

    /// How many there are.
    #[cfg(feature = "postgres")]
    pub(crate) fn count(&self) -> usize {
        self.0.count
    }

    /// How many nobody has.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn free(&self) -> usize {
        self.lock().free
    }

    /// How many have come back so far.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn given_back(&self) -> u64 {
        self.lock().given_back
    }

    /// Waits until nobody has one or waits for one.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) async fn all_back(&self) {
        loop {
            let mut back = std::pin::pin!(self.0.all_back.notified());
            // From here on nothing is missed.
            back.as_mut().enable();
            if self.free() == self.0.count {
                return;
            }
            back.await;
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives none any more, also to those who wait.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            state.order.clear();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives one on to the next who still waits. Who has given up has no turn.
    fn give_back(&self) {
        let mut state = self.lock();
        state.given_back += 1;
        while let Some(tenant) = state.order.pop_front() {
            let Some(queue) = state.waiting.get_mut(&tenant) else { continue };
            let mut is_given = false;
            while let Some(next) = queue.pop_front() {
                match next.send(Permit(Some(self.clone()))) {
                    Ok(()) => {
                        is_given = true;
                        break;
                    }
                    // It must not be dropped here, where it would come back.
                    Err(mut permit) => permit.0 = None,
                }
            }
            if queue.is_empty() {
                state.waiting.remove(&tenant);
            } else {
                state.order.push_back(tenant);
            }
            if is_given {
                return;
            }
        }
        state.free += 1;
        if state.free == self.0.count {
            self.0.all_back.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn tenant(name: &str) -> Option<Tenant> {
        Some(Tenant::new(name).expect("a name"))
    }

    #[test]
    fn tenants_take_turns_and_the_calls_of_each_come_in_their_order() {
        let permits = Permits::new(1);
        let held = permits.take(None).now_or_never().flatten();
        assert!(held.is_some() && permits.free() == 0);
        let names = ["a", "a", "a", "b", "", "b"].map(|name| if name.is_empty() { None } else { tenant(name) });
        let mut waiting: Vec<_> =
            names.iter().enumerate().map(|(n, name)| (n, Box::pin(permits.take(name.as_ref())))).collect();
        let mut take = || {
            let taken = waiting.iter_mut().find_map(|(n, take)| Some((*n, take.now_or_never()?.expect("open"))));
            waiting.retain(|(n, _)| taken.as_ref().is_none_or(|(taken, _)| n != taken));
            taken
        };
        assert!(take().is_none());
        drop(held);
        let mut order = Vec::new();
        while let Some((n, permit)) = take() {
            assert!(take().is_none(), "there is one permit");
            order.push(n);
            drop(permit);
        }
        assert_eq!(order, [0, 3, 4, 1, 5, 2]);
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn a_permit_goes_past_those_who_wait_no_more_and_is_never_lost() {
        let permits = Permits::new(1);
        let held = permits.take(None).now_or_never().flatten();
        let (a, b) = (tenant("a"), tenant("b"));
        let mut gone = Box::pin(permits.take(a.as_ref()));
        let mut unread = Box::pin(permits.take(a.as_ref()));
        let mut last = Box::pin(permits.take(b.as_ref()));
        let mut all_back = Box::pin(permits.all_back());
        assert!((&mut all_back).now_or_never().is_none());
        for waiting in [&mut gone, &mut unread, &mut last] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(gone);
        drop(held);
        // It was given to one who does not take it up.
        drop(unread);
        let permit = last.now_or_never().flatten();
        assert!(permit.is_some());
        assert!((&mut all_back).now_or_never().is_none());
        drop(permit);
        assert_eq!((permits.free(), all_back.now_or_never()), (1, Some(())));
    }

    /// With deadlines shorter than a turn, a tenant whose calls gave up never got a permit.
    #[test]
    fn who_has_given_up_uses_up_no_turn_of_the_tenant_and_is_not_kept() {
        let permits = Permits::new(1);
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        let wait = |tenant: &Option<Tenant>| {
            let (permits, tenant) = (permits.clone(), tenant.clone());
            let mut waiting = Box::pin(async move { permits.take(tenant.as_ref()).await });
            assert!((&mut waiting).now_or_never().is_none());
            waiting
        };
        let held = permits.take(None).now_or_never().flatten();
        let (first, second, third) = (wait(&loud), wait(&loud), wait(&loud));
        let before: Vec<_> = (0..3).map(|_| wait(&quiet)).collect();
        drop(before);
        let live = wait(&quiet);
        let gone = wait(&quiet);
        drop(gone);
        let last = wait(&quiet);
        assert_eq!(permits.lock().waiting[&quiet].len(), 3, "those that were first are gone");
        drop(held);
        for turn in [first, live, second, last, third] {
            drop(turn.now_or_never().flatten().expect("it has its turn"));
        }
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn closing_ends_all_waits() {
        let permits = Permits::new(1);
        let held = permits.take(None).now_or_never().flatten();
        let mut waiting = Box::pin(permits.take(None));
        assert!((&mut waiting).now_or_never().is_none());
        permits.close();
        assert!(waiting.now_or_never().is_some_and(|taken| taken.is_none()));
        drop(held);
        assert!(permits.take(None).now_or_never().is_some_and(|taken| taken.is_none()));
    }
}
