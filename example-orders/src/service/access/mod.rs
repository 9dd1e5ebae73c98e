//! Who may do what: each request has an API key, which says whose it is.
//!
//! The tenant comes from the key and from nowhere else: no route, query or body names one, so none can name another's.

mod caller;
mod guard;
mod keys;
mod rights;

pub use caller::{Caller, OfNoShop, Role};
pub use guard::guard;
pub use keys::{KeySettings, Keys, new_key, of_the_demo, to_hex};
pub use rights::Rights;
