//! Who is signed in. A session is kept here and named by a random token in a cookie, so that signing out ends it; the API key is
//! checked once, and not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::Tenant;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::service::access::{Caller, to_hex};

/// A session ends when nobody has used it for so long.
const IDLE: Duration = Duration::from_secs(8 * 3_600);
/// It ends after this time also if it is used: who has taken a cookie does not keep it for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// The most sessions of a key, and of all; one more ends the one that was not used for longest, of that key or of all.
const MOST_OF_KEY: usize = 20;
const MOST: usize = 10_000;

const COOKIE: &str = "dashboard";

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose key it was, and for which shop it is used now.
    pub caller: Caller,
    /// What the forms of this session bring back.
    pub form_token: Arc<str>,
    /// Whether names of customers of this shop are shown.
    pub shows_personal_data: bool,
    begun_at: Instant,
    used_at: Instant,
}

impl Session {
    /// What a page belongs to: a session, and the shop that it shows. Another tab of the browser may have begun another session, or have
    /// chosen another shop.
    pub fn name(&self) -> String {
        let shown = format!("{}/{}", self.form_token, self.caller.tenant);
        to_hex(&Sha256::digest(shown)[..8])
    }

    fn is_over(&self) -> bool {
        self.used_at.elapsed() >= IDLE || self.begun_at.elapsed() >= LONGEST
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    /// Begins one; gives its token.
    pub fn begin(&self, caller: Caller) -> Result<String, getrandom::Error> {
        let (token, form_token) = (random()?, random()?.into());
        let key = caller.key.clone();
        let now = Instant::now();
        let session = Session { caller, form_token, shows_personal_data: false, begun_at: now, used_at: now };
        let mut all = self.lock();
        end_oldest(&mut all, MOST_OF_KEY, |session| session.caller.key == key);
        end_oldest(&mut all, MOST, |_| true);
        all.insert(token.clone(), session);
        Ok(token)
    }

    /// The session of a token; used by that, if it is a person who asks, and not a page by itself.
    pub fn find(&self, token: &str, by_person: bool) -> Option<Session> {
        let mut all = self.lock();
        let session = all.get_mut(token).filter(|session| !session.is_over())?;
        if by_person {
            session.used_at = Instant::now();
        }
        Some(session.clone())
    }

    /// Whether it goes on. To ask does not use it: a page that is only left open ends as well.
    pub fn goes_on(&self, token: &str) -> bool {
        self.lock().get(token).is_some_and(|session| !session.is_over())
    }

    /// From now on it is about this shop. That names of another one's customers were asked for says nothing of its own.
    pub fn choose_shop(&self, token: &str, shop: Tenant) {
        if let Some(session) = self.lock().get_mut(token) {
            session.shows_personal_data &= session.caller.tenant == shop;
            session.caller.tenant = shop;
        }
    }

    /// Shows or hides names of customers.
    pub fn show_personal_data(&self, token: &str, shows: bool) {
        if let Some(session) = self.lock().get_mut(token) {
            session.shows_personal_data = shows;
        }
    }

    /// Ends one.
    pub fn end(&self, token: &str) {
        self.lock().remove(token);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what is over, and the one that was not used for longest, of those of a kind of which there are so many.
fn end_oldest(all: &mut HashMap<String, Session>, most: usize, is_of: impl Fn(&Session) -> bool) {
    if all.values().filter(|session| is_of(session)).count() < most {
        return;
    }
    all.retain(|_, session| !session.is_over());
    let of_kind: Vec<_> = all.iter().filter(|(_, session)| is_of(session)).collect();
    if of_kind.len() >= most {
        let oldest = of_kind.iter().min_by_key(|(_, session)| session.used_at).map(|(token, _)| (*token).clone());
        oldest.and_then(|token| all.remove(&token));
    }
}

/// The cookie that names a session; no script can read it, and no other site's request brings it.
pub fn cookie(token: &str, over_tls: bool) -> String {
    let secure = if over_tls { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/dashboard; HttpOnly; SameSite=Strict{secure}")
}

/// The cookie that removes it.
pub fn no_cookie() -> String {
    format!("{COOKIE}=; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// The tokens that a request brings. Another service of the same host may have set a cookie of this name, too.
pub fn tokens_of(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(to_hex(&bytes))
}

#[cfg(test)]
mod tests {
    use annals::Tenant;

    use super::*;
    use crate::service::access::Role;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_a_day_however_much_it_is_used() {
        let sessions = Sessions::default();
        let tenant = Tenant::new("alpha").expect("a tenant");
        let caller = Caller { key: "alpha-admin".into(), tenant, role: Role::Admin, customer: None };
        let token = sessions.begin(caller).expect("a session");
        for _ in 0..5 {
            tokio::time::advance(LONGEST / 6).await;
            assert!(sessions.find(&token, true).is_some());
        }
        tokio::time::advance(LONGEST / 6).await;
        assert!(!sessions.goes_on(&token) && sessions.find(&token, true).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_nobody_uses_it_and_there_are_never_too_many() {
        let sessions = Sessions::default();
        let tenant = Tenant::new("alpha").expect("a tenant");
        let caller = |key: &str| Caller { key: key.into(), tenant: tenant.clone(), role: Role::Admin, customer: None };
        let begin = |key: &str| sessions.begin(caller(key)).expect("a session");
        let first = begin("alpha-admin");
        tokio::time::advance(IDLE / 2).await;
        assert!(sessions.find(&first, true).is_some());
        tokio::time::advance(IDLE - Duration::from_secs(1)).await;
        // To look at an open page is no use of it, and neither is what the page asks for by itself.
        assert!(sessions.goes_on(&first) && sessions.find(&first, false).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!sessions.goes_on(&first) && sessions.find(&first, true).is_none());
        let oldest = begin("alpha-admin");
        tokio::time::advance(Duration::from_secs(1)).await;
        // One key ends sessions of its own.
        let carol = begin("carol");
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MOST_OF_KEY {
            begin("carol");
        }
        assert!(sessions.find(&carol, false).is_none() && sessions.find(&oldest, false).is_some());
        assert_eq!(sessions.lock().len(), 1 + MOST_OF_KEY);
        for n in 0..MOST {
            begin(&n.to_string());
        }
        assert!(sessions.find(&oldest, true).is_none());
        assert_eq!(sessions.lock().len(), MOST);
    }
}
