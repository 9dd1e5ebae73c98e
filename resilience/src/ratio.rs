use std::fmt;

/// A share between 0 and 1, kept in millionths, so that "60 % of 10" is 6 and never 5.999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ratio(u32);

const WHOLE: u64 = 1_000_000;

impl Ratio {
    /// `None` unless `share` is a number from 0 to 1.
    pub(crate) fn new(share: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        Some(Self((share * WHOLE as f64).round() as u32))
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether `part` of `whole` is this share or more.
    pub(crate) fn is_reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * WHOLE >= u64::from(self.0) * u64::from(whole)
    }

    /// How often this share of `whole` goes up to a whole one: 2 for 0.2 of 14.
    pub(crate) fn of(self, whole: u64) -> u64 {
        let share = u128::from(self.0) * u128::from(whole) / u128::from(WHOLE);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / WHOLE as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_whole_numbers_are_exact() {
        for (share, whole, expected) in [(0.6, 10, 6), (0.3, 100, 30), (0.35, 100, 35), (0.1, 30, 3), (1.0, 7, 7)] {
            let ratio = Ratio::new(share).expect("a share");
            assert_eq!(ratio.of(u64::from(whole)), u64::from(expected), "{share} of {whole}");
            assert!(ratio.is_reached(expected, whole) && !ratio.is_reached(expected - 1, whole), "{share} of {whole}");
        }
    }

    #[test]
    fn only_numbers_from_0_to_1_are_shares() {
        for share in [-0.1, 1.5, 50.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::new(share), None, "{share}");
        }
    }
}
