//! The slider that moves a page through time. Each of its places is a moment at which something has happened, so it shows every state
//! and none twice; the last is now. The page of a moment has an address of its own, and the figures of the API's `as_of`.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::dashboard::format::{counted, moment};
use crate::dashboard::query::Then;

/// The slider of the page at `path`, which is shown as of a time or now. The moments are in order.
pub fn slider(path: &str, moments: &[Timestamp], then: &Then) -> Markup {
    let (as_of, wrong) = (then.at, then.wrong.as_deref());
    let written = wrong.map(str::to_owned).or_else(|| then.of_the_api());
    let last = moments.len();
    let place = as_of.map_or(last, |as_of| moments.partition_point(|moment| *moment <= as_of).saturating_sub(1));
    let all: Vec<String> = moments.iter().map(ToString::to_string).chain([String::new()]).collect();
    let all = serde_json::to_string(&all).unwrap_or_default();
    let text = as_of.map_or("now".to_owned(), |as_of| format!("{} UTC", as_of.strftime("%Y-%m-%d %H:%M:%S%.3f")));
    html! {
        form.card.slider method="get" action=(path) data-at-once {
            div.row {
                div { label for="moment" { "As of" } strong.when #when { (text) } }
                div.exact {
                    label for="as_of" { "Exact time (UTC)" }
                    input #as_of name="as_of" value=[written] placeholder="2026-03-02 09:30" autocomplete="off" spellcheck="false"
                        aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| "as_of-problem")];
                    button type="submit" { "Show" }
                    @if as_of.is_some() || wrong.is_some() { a.button href=(path) { "Back to now" } }
                }
            }
            @if wrong.is_some() {
                p.problem #as_of-problem role="alert" data-code="as-of-invalid" {
                    "This is no time that is over, so that the page shows now. Write one as 2026-03-02 09:30, or as 09:30 for today."
                }
            }
            input #moment type="range" min="0" max=(last) step="1" value=(place) data-moments=(all) aria-valuetext=(text)
                aria-describedby="moment-help" autocomplete="off";
            p.quiet #moment-help {
                "The whole page moves through " (counted(last as u64, "moment", "moments"))
                @match moments {
                    [] => ", as none before now can be shown",
                    [only] => { ", " (moment(*only)) " UTC" },
                    [first, .., last] => { ", from " (moment(*first)) " to " (moment(*last)) " UTC" },
                }
                "."
            }
        }
    }
}
