use std::fmt;
use std::sync::Arc;

/// Settings that cannot work, alone or together. Fix the settings that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct SettingsError {
    /// The policy, breaker or other guard that was to be built.
    pub name: Arc<str>,
    /// The setting that was refused.
    pub setting: Setting,
    /// The setting with which it does not fit.
    pub other: Option<Setting>,
    /// What would go wrong.
    pub reason: String,
}

/// One setting as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As in a settings file: `breaker.window`.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl SettingsError {
    fn text(&self) -> String {
        let Self { name, setting, other, reason } = self;
        match other {
            None => format!("`{name}`: {setting} is refused: {reason}"),
            Some(other) => format!("`{name}`: {setting} does not fit {other}: {reason}"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = {}", self.name, self.value)
    }
}

/// The rules that several settings share.
pub(crate) struct Check<'a> {
    name: &'a str,
}

pub(crate) struct Two<'a> {
    name: &'a str,
    setting: Setting,
    other: Setting,
}

/// How a value looks in an error: as in a settings file.
pub(crate) trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($format:literal: $($type:ty),*) => { $(impl Shown for $type {
        fn shown(&self) -> String { format!($format, self) }
    })* };
}

shown!("{}": u32, u64, usize, f64, &str, String);
shown!("{:?}": std::time::Duration);

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Shown::shown)
    }
}

impl<'a> Check<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        Self { name }
    }

    pub(crate) fn refuse<V: Shown>(&self, name: &'static str, value: V, reason: &str) -> Result<(), SettingsError> {
        let setting = Setting { name, value: value.shown() };
        Err(SettingsError { name: self.name.into(), setting, other: None, reason: reason.to_owned() })
    }

    pub(crate) fn two<V: Shown, W: Shown>(&self, setting: (&'static str, V), other: (&'static str, W)) -> Two<'a> {
        Two {
            name: self.name,
            setting: Setting { name: setting.0, value: setting.1.shown() },
            other: Setting { name: other.0, value: other.1.shown() },
        }
    }

    pub(crate) fn not_zero<V: Shown + Default + PartialEq>(
        &self,
        name: &'static str,
        value: V,
    ) -> Result<(), SettingsError> {
        if value == V::default() {
            return self.refuse(name, value, "it must be above zero");
        }
        Ok(())
    }

    /// A rate of 0 would be reached by successes, one above 1 never.
    pub(crate) fn rate(&self, name: &'static str, rate: Option<f64>) -> Result<(), SettingsError> {
        match rate {
            Some(rate) if crate::ratio::Ratio::new(rate).is_none_or(crate::ratio::Ratio::is_zero) => {
                self.refuse(name, rate, "a rate is above 0 and at most 1")
            }
            _ => Ok(()),
        }
    }

    /// A growth below 1 would shrink what it is applied to.
    pub(crate) fn factor<V: Shown>(
        &self,
        name: &'static str,
        factor: f64,
        of: (&'static str, V),
    ) -> Result<(), SettingsError> {
        if factor.is_finite() && factor >= 1.0 {
            return Ok(());
        }
        self.two((name, factor), of).refuse("a growth is a number of 1 or more, or the times would shrink")
    }
}

impl Two<'_> {
    pub(crate) fn refuse(self, reason: &str) -> Result<(), SettingsError> {
        let Self { name, setting, other } = self;
        Err(SettingsError { name: name.into(), setting, other: Some(other), reason: reason.to_owned() })
    }
}
