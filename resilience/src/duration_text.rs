//! Durations in settings files: `250ms`, `1.5s`, `10min`, `24h`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// Each with its nanoseconds. Longest first where one unit ends with another.
const UNITS: [(&str, u64); 6] =
    [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("min", 60 * SECOND), ("h", 3_600 * SECOND), ("s", SECOND)];
const SECOND: u64 = 1_000_000_000;

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = UNITS.iter().find_map(|(unit, length)| Some((text.strip_suffix(unit)?, *length)))?;
    let plain = number.trim();
    if plain.bytes().all(|byte| byte.is_ascii_digit()) {
        // A float would be off by some nanoseconds after three months.
        let nanoseconds = plain.parse::<u128>().ok()?.checked_mul(unit.into())?;
        let seconds = u64::try_from(nanoseconds / u128::from(SECOND)).ok()?;
        return Some(Duration::new(seconds, (nanoseconds % u128::from(SECOND)) as u32));
    }
    if !plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let seconds = plain.parse::<f64>().ok()? * (unit as f64 / SECOND as f64);
    // Whole microseconds, so that 0.1 s is no nanosecond off; only `ns` asks for more.
    let nanoseconds = if text.ends_with("ns") { seconds * 1e9 } else { (seconds * 1e6).round() * 1e3 };
    (nanoseconds < u64::MAX as f64).then(|| Duration::from_nanos(nanoseconds.round() as u64))
}

fn text(duration: Duration) -> String {
    if !duration.subsec_nanos().is_multiple_of(1_000) {
        format!("{}ns", duration.as_nanos())
    } else if !duration.subsec_micros().is_multiple_of(1_000) {
        format!("{}us", duration.as_micros())
    } else if duration.subsec_millis() != 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}s", duration.as_secs())
    }
}

/// What is left of a wait as people read it: in whole milliseconds, rounded up so that it is long enough.
pub(crate) fn whole_millis(duration: Duration) -> Duration {
    match duration.subsec_nanos() % 1_000_000 {
        0 => duration,
        over => duration.saturating_add(Duration::from_nanos(u64::from(1_000_000 - over))),
    }
}

pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Duration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration as `250ms`, `1.5s`, `10min` or `24h`")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Text)
}

/// The same for durations that may be left out.
pub(crate) mod option {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] Duration);

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(Wrapped).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// Durations of a state that people read: whole milliseconds.
pub(crate) mod shown {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        super::serialize(&whole_millis(*duration), serializer)
    }

    pub(crate) mod option {
        use super::*;

        #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
        pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            crate::duration_text::option::serialize(&duration.map(whole_millis), serializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown_in_whole_milliseconds_and_never_as_less() {
        for (nanos, shown) in
            [(0, "0ns"), (1, "1ms"), (1_000_000, "1ms"), (499_988_206, "500ms"), (29_000_000_001, "29.001s")]
        {
            assert_eq!(format!("{:?}", whole_millis(Duration::from_nanos(nanos))), shown);
        }
        assert_eq!(whole_millis(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 250, 1_000, 1_500, 90_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&text(duration)), Some(duration));
        }
        for nanos in [1, 1_001, 1_000_000_001, (1 << 53) + 1, u64::MAX] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&text(duration)), Some(duration));
        }
        for longest in [Duration::from_secs(u64::MAX), Duration::MAX] {
            assert_eq!(parse(&text(longest)), Some(longest));
        }
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("10min"), Some(Duration::from_secs(600)));
        for wrong in ["", "5", "s", "-1s", "1e3s", "1 day", "NaNs", "infs", "99999999999999999999h"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
