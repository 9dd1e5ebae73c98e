//! A chart per profile: load and goodput as lines, the breaker's state as a band below them.

use std::fmt::Write;
use std::time::Duration;

use annals::resilience::breaker::BreakerState;

use super::profile::{BEGIN, END, LENGTH};
use super::run::{Called, Ended, Run};

const LEFT: f64 = 60.0;
const WIDTH: f64 = 720.0;
const CHART: f64 = 110.0;
pub(super) const BAND: f64 = 14.0;
/// From one chart's top to the next one's.
const STEP: f64 = 190.0;
const TOP: f64 = 70.0;

const LOAD: &str = "#7a7a7a";
const GOODPUT: &str = "#0072b2";

pub(super) fn svg(runs: &[Run]) -> String {
    let (width, height) = (LEFT + WIDTH + 20.0, TOP + STEP * runs.len() as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let legend = [
        ("calls per second", LOAD),
        ("answered per second", GOODPUT),
        ("closed", colour(BreakerState::Closed)),
        ("half-open", colour(BreakerState::HalfOpen)),
        ("open", colour(BreakerState::Open)),
    ];
    for (number, (name, colour)) in legend.into_iter().enumerate() {
        let left = LEFT + 160.0 * number as f64;
        element(&mut out, "rect", &format!("x=\"{left}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\""));
        text(&mut out, left + 18.0, 25.0, "start", name);
    }
    for (number, run) in runs.iter().enumerate() {
        chart(&mut out, run, TOP + STEP * number as f64);
    }
    out + "</svg>\n"
}

fn chart(out: &mut String, run: &Run, top: f64) {
    let seconds = LENGTH.as_secs() as usize;
    let load = per_second(&run.calls, seconds, |_| true);
    let goodput = per_second(&run.calls, seconds, |call| call.ended == Ended::Answered);
    let highest = load.iter().copied().max().unwrap_or(0).max(1);
    text(out, LEFT, top - 8.0, "start", &format!("{}, the fault from {BEGIN:?} to {END:?}", run.profile.name()));
    let (begin, length) = (x(BEGIN), x(END) - x(BEGIN));
    element(
        out,
        "rect",
        &format!("x=\"{begin:.1}\" y=\"{top}\" width=\"{length:.1}\" height=\"{CHART}\" fill=\"#f3ede0\""),
    );
    for (height, label) in [(0.0, highest.to_string()), (CHART, "0".to_owned())] {
        text(out, LEFT - 6.0, top + height + 4.0, "end", &label);
    }
    for (counts, colour) in [(load, LOAD), (goodput, GOODPUT)] {
        let points = counts.iter().enumerate().map(|(second, count)| {
            let y = top + CHART * (1.0 - f64::from(*count) / f64::from(highest));
            format!("{:.1},{y:.1}", x(Duration::from_secs(second as u64)))
        });
        let points = points.collect::<Vec<_>>().join(" ");
        element(
            out,
            "polyline",
            &format!("points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\""),
        );
    }
    let band = top + CHART + 6.0;
    let changes = run.transitions.iter().map(|transition| (transition.at, transition.to));
    let states: Vec<_> = std::iter::once((Duration::ZERO, BreakerState::Closed)).chain(changes).collect();
    for (number, (from, state)) in states.iter().enumerate() {
        let to = states.get(number + 1).map_or(LENGTH, |(at, _)| *at).min(LENGTH);
        // A state that lasted only for an instant is visible too.
        let (left, wide) = (x(*from), (x(to) - x(*from)).max(1.0));
        let colour = colour(*state);
        element(
            out,
            "rect",
            &format!("x=\"{left:.1}\" y=\"{band}\" width=\"{wide:.1}\" height=\"{BAND}\" fill=\"{colour}\""),
        );
    }
    for second in (0..=seconds).step_by(30) {
        text(out, x(Duration::from_secs(second as u64)), band + BAND + 16.0, "middle", &format!("{second} s"));
    }
}

fn per_second(calls: &[Called], seconds: usize, counts: impl Fn(&Called) -> bool) -> Vec<u32> {
    let mut sums = vec![0; seconds];
    for call in calls.iter().filter(|call| counts(call)) {
        if let Some(sum) = sums.get_mut(call.at.as_secs() as usize) {
            *sum += 1;
        }
    }
    sums
}

fn x(at: Duration) -> f64 {
    LEFT + WIDTH * at.as_secs_f64() / LENGTH.as_secs_f64()
}

fn colour(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "#9fd8b8",
        BreakerState::HalfOpen => "#f0c808",
        BreakerState::Open => "#d55e00",
    }
}

fn element(out: &mut String, name: &str, attributes: &str) {
    writeln!(out, "<{name} {attributes}/>").expect("writing to a String cannot fail");
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .expect("writing to a String cannot fail");
}
