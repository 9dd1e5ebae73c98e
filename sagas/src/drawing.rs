//! A definition as a picture.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::definition::{Kind, Step, Undo};
use crate::instance::{End, Instance, StepState};

/// The size of a box, and the space between boxes, in pixels.
const WIDTH: usize = 220;
const HEIGHT: usize = 48;
const GAP: usize = 36;

/// How many characters of the line below a name fit into a box.
const FITS: usize = 31;

/// What a page serves as a stylesheet to which [`Definition::svg`](crate::Definition::svg) and
/// [`Definition::svg_after`](crate::Definition::svg_after) are dark where the reader prefers that. Their elements have the classes that it names, so that a stylesheet
/// of your own can take its place.
///
/// The pictures need no stylesheet: without one they are light. They have neither a `style` element nor `style` attributes, which a content
/// security policy such as `style-src 'self'` refuses.
pub const SVG_STYLES: &str = "@media (prefers-color-scheme: dark) {
.saga text { fill: #e6edf3; }
.saga .paper { fill: #0d1117; }
.saga rect { fill: #1c2430; stroke: #9198a1; }
.saga .paper { stroke: none; }
.saga .arrow { stroke: #9198a1; }
.saga marker path { fill: #9198a1; }
.saga .pivot path { stroke: #e6edf3; }
.saga .undo rect { stroke: #f0a04b; }
.saga .undo .more { fill: #f0a04b; }
.saga .waits rect { fill: #1c2430; stroke: #9198a1; }
.saga .waits .more, .saga .skipped .more { fill: #9198a1; }
.saga .under-way rect { fill: #14263f; stroke: #7fb2ff; }
.saga .under-way .more { fill: #7fb2ff; }
.saga .done rect { fill: #12301f; stroke: #6fd19b; }
.saga .done .more { fill: #6fd19b; }
.saga .failed rect { fill: #3c171b; stroke: #ff8f99; }
.saga .failed .more { fill: #ff8f99; }
.saga .is-undone rect, .saga .undone rect { fill: #38270c; stroke: #f0b35c; }
.saga .is-undone .more, .saga .undone .more { fill: #f0b35c; }
}
";

const ARROW: &str = "<defs><marker id=\"saga-arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
                     <path fill=\"#59636e\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n";

/// How a box looks: the class of its group, and its colours without a stylesheet.
#[derive(Clone, Copy)]
struct Look {
    class: &'static str,
    /// How the step stands; empty in a picture of no instance.
    word: &'static str,
    ground: &'static str,
    line: &'static str,
}

const fn look(class: &'static str, word: &'static str, ground: &'static str, line: &'static str) -> Look {
    Look { class, word, ground, line }
}

const PLAIN: Look = look("plain", "", "#f3f5f8", "#59636e");
const UNDO: Look = look("undo", "", "#f3f5f8", "#b35900");
const WAITS: Look = look("waits", "waits", "#f3f5f8", "#59636e");
const NOT_DONE: Look = look("waits", "not done", "#f3f5f8", "#59636e");
const UNDER_WAY: Look = look("under-way", "under way", "#e5effc", "#0a58ca");
const AGAIN: Look = look("failed", "failed, is called again", "#fbe7e9", "#b02a37");
const FAILED: Look = look("failed", "failed", "#fbe7e9", "#b02a37");
const SKIPPED: Look = look("skipped", "skipped", "#f3f5f8", "#59636e");
const DONE: Look = look("done", "done", "#e3f4ea", "#146c43");
const PASSED: Look = look("done", "passed", "#e3f4ea", "#146c43");
const IS_UNDONE: Look = look("is-undone", "is undone", "#fdf1dc", "#8a5300");
const NOT_UNDONE: Look = look("failed", "its undo has failed", "#fbe7e9", "#b02a37");
const UNDONE: Look = look("undone", "undone", "#fdf1dc", "#8a5300");

/// The steps as an SVG picture: boxes from top to bottom, those of branches beside each other, with an arrow from each step to those
/// that need it. A box whose step has an undo is dashed, and the pivot is a line from side to side. With an instance, each box says
/// how the step stands.
pub(crate) fn svg<C>(name: &str, steps: &[Step<C>], instance: Option<&Instance>) -> String {
    let corners = corners(steps);
    let width = GAP + WIDTH + corners.iter().map(|(x, _)| *x).max().unwrap_or(GAP);
    let height = GAP + HEIGHT + corners.iter().map(|(_, y)| *y).max().unwrap_or(GAP);
    let boxes: Vec<_> = steps.iter().map(|step| (step, text_of(step), look_of(step, instance))).collect();
    let in_words: Vec<_> = boxes.iter().map(|(step, more, look)| in_words(&step.name, more, look)).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"saga\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" text-anchor=\"middle\">\n<title>saga {}</title>\n<desc>{}</desc>\n\
         {ARROW}<rect class=\"paper\" fill=\"#ffffff\" width=\"{width}\" height=\"{height}\"/>\n",
        escaped(name),
        in_words.iter().map(|words| escaped(words)).collect::<Vec<_>>().join(";\n")
    );
    for (step, (x, y)) in steps.iter().zip(&corners) {
        if let Kind::Pivot = step.kind {
            let _ = writeln!(
                svg,
                "<g class=\"pivot\"><path stroke=\"#1f2328\" stroke-width=\"3\" d=\"M0 {}H{width}\"/></g>",
                y + HEIGHT / 2
            );
        }
        for &before in &step.after {
            let (from_x, from_y) = (corners[before].0 + WIDTH / 2, corners[before].1 + HEIGHT);
            let (bend, to_x) = (y - GAP / 2, x + WIDTH / 2);
            let _ = writeln!(
                svg,
                "<path class=\"arrow\" fill=\"none\" stroke=\"#59636e\" marker-end=\"url(#saga-arrow)\" \
                 d=\"M{from_x} {from_y}V{bend}H{to_x}V{y}\"/>"
            );
        }
    }
    for ((one, words), &corner) in boxes.iter().zip(&in_words).zip(&corners) {
        draw(&mut svg, one, words, corner);
    }
    svg + "</svg>\n"
}

/// How a step stands in an instance.
fn look_of<C>(step: &Step<C>, instance: Option<&Instance>) -> Look {
    let Some(instance) = instance else {
        return if has_undo(step) { UNDO } else { PLAIN };
    };
    let waits = if instance.goes_forward() { WAITS } else { NOT_DONE };
    if let Kind::Pivot = step.kind {
        return if instance.pivot_passed { PASSED } else { waits };
    }
    let StepState { done, undone, due, asked, .. } = instance.step(&step.name);
    match (done.end, undone.end) {
        (_, Some(End::Succeeded | End::Skipped)) => UNDONE,
        (_, Some(End::Failed)) => NOT_UNDONE,
        _ if undone.attempts > 0 => IS_UNDONE,
        (Some(End::Succeeded), _) => DONE,
        (Some(End::Skipped), _) => SKIPPED,
        (Some(End::Failed), _) => FAILED,
        _ if !instance.goes_forward() => waits,
        _ if done.open || asked || due.is_some() => UNDER_WAY,
        _ if done.attempts > 0 => AGAIN,
        _ => waits,
    }
}

fn has_undo<C>(step: &Step<C>) -> bool {
    !matches!(step.undo, Undo::Nothing(_))
}

/// What a step is.
fn text_of<C>(step: &Step<C>) -> String {
    let undo = match &step.undo {
        Undo::Local(_) | Undo::Remote(..) | Undo::Signal => ", undo".to_owned(),
        Undo::Nothing(why) if why.is_empty() => String::new(),
        Undo::Nothing(why) => format!(", no undo: {why}"),
    };
    let limit = match step.kind {
        Kind::Timer(wait) => format!(" of {wait:?}"),
        Kind::Approval(Some(limit)) => format!(" within {limit:?}"),
        _ => String::new(),
    };
    format!("{}{limit}{undo}", step.kind.word())
}

/// A step with all that is known of it.
fn in_words(name: &str, more: &str, look: &Look) -> String {
    if look.word.is_empty() { format!("{name}: {more}") } else { format!("{name}: {} ({more})", look.word) }
}

/// The upper left corner of each box: below those of the steps before it, and in the first column from theirs on that is free.
fn corners<C>(steps: &[Step<C>]) -> Vec<(usize, usize)> {
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut taken = BTreeSet::new();
    for step in steps {
        let row = step.after.iter().map(|&before| places[before].1 + 1).max().unwrap_or(0);
        let first = step.after.iter().map(|&before| places[before].0).min().unwrap_or(0);
        let column = (first..).find(|&column| taken.insert((column, row))).unwrap_or(first);
        places.push((column, row));
    }
    places.into_iter().map(|(column, row)| (GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + GAP))).collect()
}

fn draw<C>(svg: &mut String, (step, more, look): &(&Step<C>, String, Look), in_words: &str, (x, y): (usize, usize)) {
    let Look { class, word, ground, line } = *look;
    let (middle, words) = (x + WIDTH / 2, escaped(in_words));
    let dashes = if has_undo(step) { " stroke-dasharray=\"4 3\"" } else { "" };
    let _ = write!(
        svg,
        "<g class=\"{class}\"><title>{words}</title><rect fill=\"{ground}\" stroke=\"{line}\"{dashes} x=\"{x}\" y=\"{y}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>"
    );
    let mut text = |class: &str, colour: &str, size: &str, below: usize, text: &str| {
        let _ = write!(
            svg,
            "<text{class} fill=\"{colour}\" {size} x=\"{middle}\" y=\"{}\">{}</text>",
            y + below,
            escaped(text)
        );
    };
    let is_pivot = matches!(step.kind, Kind::Pivot);
    let second = match (is_pivot, word.is_empty()) {
        (true, true) => "",
        (false, true) => more.as_str(),
        (_, false) => word,
    };
    let first = if second.is_empty() { 29 } else { 20 };
    text("", "#1f2328", "font-size=\"14\" font-weight=\"600\"", first, &shortened(&step.name, FITS - 6));
    if !second.is_empty() {
        let colour = if class == PLAIN.class { "#1f2328" } else { line };
        text(" class=\"more\"", colour, "font-size=\"12\"", 38, &shortened(second, FITS));
    }
    svg.push_str("</g>\n");
}

/// At most `most` characters, with a mark where some are missing.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// As text of XML, which has no control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
