//! How values are written: times in UTC, amounts with their currency. Each keeps its exact value for programs.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use crate::domain::money::{Money, decimal};

/// A time to the second; its exact value is in the attribute `datetime`.
pub fn time(at: Timestamp) -> Markup {
    let text = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    html! { time datetime=(at) title=(at) { (text) } }
}

/// The same with its milliseconds, where many happen in one second.
pub fn moment(at: Timestamp) -> Markup {
    let text = at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    html! { time datetime=(at) title=(at) { (text) } }
}

/// The time of the day alone, where the day is today.
pub fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(at) { (at.strftime("%H:%M:%S").to_string()) } }
}

/// A time in prose, with its zone.
pub fn time_utc(at: Timestamp) -> Markup {
    html! { (time(at)) " UTC" }
}

/// An amount of a currency; the whole minor units are in the attribute `value`.
pub fn money(amount: Money) -> Markup {
    amount_of(amount.minor, &amount.currency.to_string())
}

/// The same of an amount and a name.
pub fn amount_of(minor: i64, currency: &str) -> Markup {
    html! { data.amount value=(minor) { (grouped(&decimal(minor))) "\u{a0}" (currency) } }
}

/// A count.
pub fn count(number: i64) -> Markup {
    html! { data.amount value=(number) { (grouped(&number.to_string())) } }
}

/// A count with the word for what is counted, for one and for many.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(&number.to_string()), if number == 1 { one } else { many })
}

/// A time span in its largest unit.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Groups of three digits before the point, divided by a narrow space.
fn grouped(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let mut grouped = String::new();
    for (place, character) in number.char_indices() {
        let follow = whole.saturating_sub(place);
        if place > 0 && place < whole && follow.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push('\u{202f}');
        }
        grouped.push(character);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many_and_none_is() {
        let streams = |number| counted(number, "stream is set aside", "streams are set aside");
        assert_eq!(streams(0), "0 streams are set aside");
        assert_eq!(streams(1), "1 stream is set aside");
        assert_eq!(streams(1_021), "1\u{202f}021 streams are set aside");
    }

    #[test]
    fn digits_are_grouped_before_the_point_only_and_a_sign_is_no_digit() {
        for (number, text) in [
            ("0", "0"),
            ("999", "999"),
            ("-999.00", "-999.00"),
            ("1000.05", "1\u{202f}000.05"),
            ("-123456.00", "-123\u{202f}456.00"),
            ("9223372036854775807", "9\u{202f}223\u{202f}372\u{202f}036\u{202f}854\u{202f}775\u{202f}807"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
