//! How many pages may be open: with one key, of one shop, and in all. So nobody takes what others need.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals::Tenant;

/// All shops together; those who run the service have as many more as are left.
const OF_SHOPS: usize = 900;
const ALL: usize = 1_000;
const OF_A_SHOP: usize = 500;
const OF_A_KEY: usize = 250;

/// The open pages.
#[derive(Debug, Default)]
pub struct Rooms(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    shops: HashMap<Tenant, usize>,
    keys: HashMap<Arc<str>, usize>,
}

/// Room for one page, until it is dropped.
#[derive(Debug)]
pub struct Room {
    counts: Arc<Mutex<Counts>>,
    /// Nothing for those who run the service.
    shop: Option<Tenant>,
    key: Arc<str>,
}

impl Rooms {
    /// Room for a page of this key, of a shop or of those who run the service; `None` if there is none left.
    pub fn take(&self, shop: Option<Tenant>, key: Arc<str>) -> Option<Room> {
        let mut counts = lock(&self.0);
        let of_shop = shop.as_ref().map_or(0, |shop| counts.shops.get(shop).copied().unwrap_or_default());
        let of_key = counts.keys.get(&key).copied().unwrap_or_default();
        let most = if shop.is_some() { OF_SHOPS } else { ALL };
        if counts.all >= most || of_shop >= OF_A_SHOP || of_key >= OF_A_KEY {
            return None;
        }
        counts.all += 1;
        if let Some(shop) = &shop {
            *counts.shops.entry(shop.clone()).or_default() += 1;
        }
        *counts.keys.entry(key.clone()).or_default() += 1;
        drop(counts);
        Some(Room { counts: self.0.clone(), shop, key })
    }
}

impl Room {
    /// How many pages its shop has open, or its key if it is of no shop.
    pub fn beside(&self) -> usize {
        let counts = lock(&self.counts);
        let beside = match &self.shop {
            Some(shop) => counts.shops.get(shop),
            None => counts.keys.get(&self.key),
        };
        beside.copied().unwrap_or_default()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all = counts.all.saturating_sub(1);
        if let Some(shop) = &self.shop {
            one_less(&mut counts.shops, shop);
        }
        one_less(&mut counts.keys, &self.key);
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_pages_of_others_and_a_page_that_is_closed_is_room_again() {
        let rooms = Rooms::default();
        let take = |shop: &str, key: String| {
            let shop = (!shop.is_empty()).then(|| Tenant::new(shop).expect("a tenant"));
            rooms.take(shop, key.into())
        };
        let many = |shop: &'static str, key: &'static str| -> Vec<Room> {
            std::iter::from_fn(|| take(shop, key.to_owned())).collect()
        };
        // One key takes what one key may have, and one shop what one shop may have.
        let carol = many("beta", "carol");
        assert_eq!(carol.len(), OF_A_KEY);
        let dave = many("beta", "dave");
        assert_eq!((dave.len(), dave[0].beside()), (OF_A_SHOP - OF_A_KEY, OF_A_SHOP));
        assert!(take("beta", "erin".to_owned()).is_none());
        // The others still have theirs, and those who run the service whatever comes.
        let alice = many("alpha", "alice");
        assert_eq!((alice.len(), alice[0].beside()), (OF_A_KEY, OF_A_KEY));
        let bob = many("alpha", "bob");
        assert_eq!(bob.len(), OF_SHOPS - OF_A_SHOP - OF_A_KEY);
        let operators = many("", "operator");
        assert_eq!(operators.len(), ALL - OF_SHOPS);
        drop((carol, dave, alice, bob, operators));
        assert!(rooms.0.lock().expect("a lock").shops.is_empty());
        assert_eq!(many("beta", "carol").len(), OF_A_KEY);
    }
}
