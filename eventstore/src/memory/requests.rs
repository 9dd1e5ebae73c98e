//! The request keys of a memory store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::append::Appended;
use crate::error::AppendError;
use crate::request::{Fingerprint, RequestKey};
use crate::stream::Tenant;

/// How many expired keys one append takes away at most, so that no append pays for a flood of them.
const SWEEP: usize = 100;

type Key = (Tenant, Arc<str>);

#[derive(Default)]
pub(super) struct Requests {
    remembered: HashMap<Key, Remembered>,
    /// The same keys, the next to expire first.
    by_expiry: BTreeSet<(Timestamp, Key)>,
}

struct Remembered {
    fingerprint: Fingerprint,
    answer: Appended,
    expires: Timestamp,
}

impl Requests {
    /// The first answer to a request, unless it has expired by `now`.
    pub(super) fn find(
        &self,
        tenant: &Tenant,
        request: &RequestKey,
        now: Timestamp,
    ) -> Result<Option<Appended>, AppendError> {
        let key = (tenant.clone(), Arc::from(request.key()));
        match self.remembered.get(&key) {
            Some(found) if found.expires <= now => Ok(None),
            Some(found) if found.fingerprint != request.fingerprint() => {
                Err(AppendError::RequestKeyReused { tenant: tenant.clone(), key: request.key().to_owned() })
            }
            Some(found) => Ok(Some(found.answer.again())),
            None => Ok(None),
        }
    }

    /// Stores the answer to a request, for its lifetime from `begins`, and removes some of those that have expired by `now`.
    pub(super) fn remember(
        &mut self,
        tenant: &Tenant,
        request: &RequestKey,
        answer: Appended,
        begins: Timestamp,
        now: Timestamp,
    ) {
        self.sweep(now);
        let key = (tenant.clone(), Arc::from(request.key()));
        let expires = request.expires(begins);
        let remembered = Remembered { fingerprint: request.fingerprint(), answer, expires };
        if let Some(old) = self.remembered.insert(key.clone(), remembered) {
            self.by_expiry.remove(&(old.expires, key.clone()));
        }
        self.by_expiry.insert((expires, key));
    }

    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            match self.by_expiry.first() {
                Some((expires, _)) if *expires <= now => {}
                _ => return,
            }
            if let Some((_, key)) = self.by_expiry.pop_first() {
                self.remembered.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(text: &str, lifetime: Duration) -> RequestKey {
        RequestKey::new(text, Fingerprint::of_bytes(text.as_bytes())).expect("it is sound").with_lifetime(lifetime)
    }

    #[test]
    fn expired_keys_are_swept_in_bounded_batches_until_none_is_left() {
        let mut requests = Requests::default();
        let tenant = Tenant::default();
        let answer = || Appended::new(Vec::new(), Timestamp::UNIX_EPOCH, false);
        for i in 0..250 {
            let request = key(&format!("r{i}"), Duration::from_secs(1));
            requests.remember(&tenant, &request, answer(), Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        }
        let later = Timestamp::from_second(2).expect("it is sound");
        let mut left = Vec::new();
        for i in 0..4 {
            let request = key(&format!("later{i}"), Duration::from_secs(60));
            requests.remember(&tenant, &request, answer(), later, later);
            left.push((requests.remembered.len(), requests.by_expiry.len()));
        }
        assert_eq!(left, [(151, 151), (52, 52), (3, 3), (4, 4)]);
    }

    #[test]
    fn a_key_stored_again_expires_by_its_new_lifetime() {
        let mut requests = Requests::default();
        let tenant = Tenant::default();
        let at = |second| Timestamp::from_second(second).expect("it is sound");
        let answer = || Appended::new(Vec::new(), Timestamp::UNIX_EPOCH, false);
        requests.remember(&tenant, &key("r", Duration::from_secs(5)), answer(), at(0), at(0));
        requests.remember(&tenant, &key("r", Duration::from_secs(5)), answer(), at(8), at(8));
        requests.sweep(at(9));
        assert!(requests.find(&tenant, &key("r", Duration::ZERO), at(9)).expect("it is sound").is_some());
        assert_eq!(requests.by_expiry.len(), 1);
    }

    #[test]
    fn a_key_stored_again_before_the_sweep_is_not_swept_as_the_old_one() {
        let mut requests = Requests::default();
        let tenant = Tenant::default();
        let at = |second| Timestamp::from_second(second).expect("it is sound");
        let answer = || Appended::new(Vec::new(), Timestamp::UNIX_EPOCH, false);
        for i in 0..150 {
            requests.remember(&tenant, &key(&format!("r{i}"), Duration::from_secs(1)), answer(), at(0), at(0));
        }
        // The last of those that expire together: the first sweep does not reach it.
        requests.remember(&tenant, &key("r99", Duration::from_secs(60)), answer(), at(2), at(2));
        requests.sweep(at(2));
        assert!(requests.find(&tenant, &key("r99", Duration::ZERO), at(3)).expect("it is sound").is_some());
        assert_eq!((requests.remembered.len(), requests.by_expiry.len()), (1, 1));
    }
}
