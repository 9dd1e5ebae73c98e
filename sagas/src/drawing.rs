//! A definition as a picture.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::definition::{Kind, Step, Undo};

/// The size of a box, and the space between boxes, in pixels.
const WIDTH: usize = 220;
const HEIGHT: usize = 48;
const GAP: usize = 36;

/// How many characters of the line below a name fit into a box.
const FITS: usize = 31;

/// Light by default, and dark where the reader prefers that.
const HEAD: &str = "<style>
.saga text{font:600 14px sans-serif;fill:#1f2328;text-anchor:middle}
.saga text.more{font:12px sans-serif}
.saga text.back{fill:#b35900}
.saga rect{fill:#f3f5f8;stroke:#59636e}
.saga rect.paper{fill:#ffffff;stroke:none}
.saga rect.back{stroke:#b35900;stroke-dasharray:4 3}
.saga path{fill:none;stroke:#59636e}
.saga path.pivot{stroke:#1f2328;stroke-width:3}
.saga marker path{fill:#59636e;stroke:none}
@media (prefers-color-scheme:dark){
.saga text{fill:#e6edf3}
.saga text.back{fill:#f0a04b}
.saga rect{fill:#1c2430;stroke:#9198a1}
.saga rect.paper{fill:#0d1117}
.saga rect.back{stroke:#f0a04b}
.saga path{stroke:#9198a1}
.saga path.pivot{stroke:#e6edf3}
.saga marker path{fill:#9198a1}
}
</style>
<defs><marker id=\"saga-arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
<path d=\"M0 0L8 4L0 8z\"/></marker></defs>
";

/// The steps as an SVG picture: boxes from top to bottom, those of branches beside each other, with an arrow from each step to those
/// that need it. A box whose step has an undo is dashed, and the pivot is a line from side to side.
pub(crate) fn svg<C>(name: &str, steps: &[Step<C>]) -> String {
    let corners = corners(steps);
    let width = GAP + WIDTH + corners.iter().map(|(x, _)| *x).max().unwrap_or(GAP);
    let height = GAP + HEIGHT + corners.iter().map(|(_, y)| *y).max().unwrap_or(GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"saga\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<title>saga {}</title>\n{HEAD}\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n",
        escaped(name)
    );
    for (step, (x, y)) in steps.iter().zip(&corners) {
        if let Kind::Pivot = step.kind {
            let _ = writeln!(svg, "<path class=\"pivot\" d=\"M0 {}H{width}\"/>", y + HEIGHT / 2);
        }
        for &before in &step.after {
            let (from_x, from_y) = (corners[before].0 + WIDTH / 2, corners[before].1 + HEIGHT);
            let (bend, to_x) = (y - GAP / 2, x + WIDTH / 2);
            let _ = writeln!(svg, "<path marker-end=\"url(#saga-arrow)\" d=\"M{from_x} {from_y}V{bend}H{to_x}V{y}\"/>");
        }
    }
    for (step, &corner) in steps.iter().zip(&corners) {
        draw(&mut svg, step, corner);
    }
    svg + "</svg>\n"
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

fn draw<C>(svg: &mut String, step: &Step<C>, (x, y): (usize, usize)) {
    let (class, undo) = match &step.undo {
        Undo::Local(_) | Undo::Remote(..) | Undo::Signal => ("back", ", undo".to_owned()),
        Undo::Nothing(why) if why.is_empty() => ("step", String::new()),
        Undo::Nothing(why) => ("step", format!(", no undo: {why}")),
    };
    let limit = match step.kind {
        Kind::Timer(wait) => format!(" of {wait:?}"),
        Kind::Approval(Some(limit)) => format!(" within {limit:?}"),
        _ => String::new(),
    };
    let more = format!("{}{limit}{undo}", step.kind.word());
    let middle = x + WIDTH / 2;
    let _ = write!(
        svg,
        "<g><title>{}: {}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>",
        escaped(&step.name),
        escaped(&more)
    );
    if let Kind::Pivot = step.kind {
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\">pivot</text></g>", y + 29);
        return;
    }
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\">{}</text><text class=\"more {class}\" x=\"{middle}\" y=\"{}\">{}</text></g>",
        y + 20,
        escaped(&shortened(&step.name, FITS - 6)),
        y + 38,
        escaped(&shortened(&more, FITS)),
    );
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
