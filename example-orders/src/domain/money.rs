//! Money as stored data needs it: whole minor units and a currency, never a float.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A currency by its ISO code: `EUR` or `USD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Currency {
    /// Euro.
    #[serde(rename = "EUR")]
    Eur,
    /// US dollar.
    #[serde(rename = "USD")]
    Usd,
}

annals::projections::text_column!(Currency);

/// An amount in minor units (cents) of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Money {
    /// Cents.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

impl Money {
    /// An amount in euro cents.
    pub const fn euro_cents(minor: i64) -> Self {
        Self { minor, currency: Currency::Eur }
    }

    /// The sum; none if the currencies differ or it overflows.
    pub fn plus(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_add(other.minor)?;
        (self.currency == other.currency).then_some(Self { minor, ..self })
    }

    /// The same amount with the other sign.
    pub fn negated(self) -> Self {
        Self { minor: -self.minor, ..self }
    }

    /// `count` times the amount; none if it overflows.
    pub fn times(self, count: u32) -> Option<Self> {
        Some(Self { minor: self.minor.checked_mul(i64::from(count))?, ..self })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eur => "EUR",
            Self::Usd => "USD",
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", decimal(self.minor), self.currency)
    }
}

/// An amount in minor units as it is printed: `12.50`.
pub fn decimal(minor: i64) -> String {
    // The sign is separate, because an integer has no -0 for amounts below one.
    let (sign, minor) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    format!("{sign}{}.{:02}", minor / 100, minor % 100)
}
