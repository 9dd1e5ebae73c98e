//! What the shop does when something that it needs is slow or gone: pools that keep its parts apart, and lesser answers.

mod fallback;
mod notifications;
mod pages;
mod pools;
mod preferences;
mod recommendations;
mod toggles;
mod whole;

pub use fallback::{AnsweredBy, Given, WithFallback};
pub use notifications::Notifications;
pub use pages::{Page, Pages, Shown};
pub use pools::{Lanes, Reads};
pub use preferences::{Preferences, PreferencesEvent, PreferencesOf, Profile, Theme};
pub use recommendations::Recommendations;
pub use toggles::{Change, Switched, ToggleEvent, ToggleId, Toggles};
pub use whole::Degradation;
