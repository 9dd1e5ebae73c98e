//! The figures as people and programs read them.

use annals_peers::Fault;
use serde::Serialize;

use crate::Options;
use crate::cases::Case;
use crate::peers::{OURS, peers};
use crate::place::Engine;
use crate::run::{Figure, Figures, Spread};

/// Prints a table in Markdown, and what must be said about it.
pub fn print(engine: Engine, options: &Options, figures: &Figures) {
    let heads: Vec<_> = options.cases.iter().map(|case| case.name()).collect();
    println!("\n| {engine} | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
    let peers = peers(engine, &options.only);
    for peer in &peers {
        let cells: Vec<_> = options.cases.iter().map(|case| cell(figures.get(&(peer.name, *case)))).collect();
        println!("| {} | {} |", peer.name, cells.join(" | "));
    }
    let ratios: Vec<_> = options.cases.iter().map(|case| ratio(figures, *case)).collect();
    println!("| {OURS} / best other | {} |\n", ratios.join(" | "));
    for peer in &peers {
        for case in &options.cases {
            match figures.get(&(peer.name, *case)) {
                Some(Figure::Rates { refused, .. }) if *refused > 0 => {
                    println!(
                        "{}, {}: {refused} appends were refused, though no stream has two writers.",
                        peer.name,
                        case.name()
                    );
                }
                Some(Figure::Missed { repeated, .. }) if *repeated > 0 => {
                    println!("{}: {repeated} events came more than once.", peer.name);
                }
                Some(Figure::Failed(why)) => println!("{}, {}: {why}", peer.name, case.name()),
                _ => {}
            }
        }
    }
}

fn cell(figure: Option<&Figure>) -> String {
    match figure {
        Some(figure @ Figure::Rates { .. }) => figure.per_second().map_or_else(String::new, spread),
        Some(Figure::Missed { missed, stored, .. }) => format!("{missed} of {}", number(*stored as f64)),
        Some(Figure::Lacking) => "-".to_owned(),
        Some(Figure::Failed(_)) => "failed".to_owned(),
        None => String::new(),
    }
}

/// The median, and the ends where they lie more than a quarter of it apart.
fn spread(Spread { median, slowest, fastest }: Spread) -> String {
    let text = number(median);
    if fastest - slowest <= median / 4.0 {
        return text;
    }
    format!("{text} ({}-{})", number(slowest), number(fastest))
}

fn number(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The median of the fastest of the others.
fn best_other(figures: &Figures, case: Case) -> Option<f64> {
    let others = figures.iter().filter(|((name, of), _)| *of == case && *name != OURS);
    others.filter_map(|(_, figure)| Some(figure.per_second()?.median)).max_by(f64::total_cmp)
}

fn ratio(figures: &Figures, case: Case) -> String {
    let ours = figures.get(&(OURS, case)).and_then(Figure::per_second);
    match (ours, best_other(figures, case)) {
        (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours.median / other),
        _ => String::new(),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    engine: String,
    peer: &'a str,
    case: &'a str,
    per_second: Option<f64>,
    slowest: Option<f64>,
    fastest: Option<f64>,
    refused: Option<u64>,
    missed: Option<u64>,
    repeated: Option<u64>,
    stored: Option<u64>,
    failed: Option<&'a str>,
}

/// Prints a JSON line per figure.
pub fn print_lines(engine: Engine, figures: &Figures) -> Result<(), Fault> {
    for ((peer, case), figure) in figures {
        let rates = figure.per_second();
        let mut line = Line {
            engine: engine.to_string(),
            peer,
            case: case.name(),
            per_second: rates.map(|rates| rates.median),
            slowest: rates.map(|rates| rates.slowest),
            fastest: rates.map(|rates| rates.fastest),
            refused: None,
            missed: None,
            repeated: None,
            stored: None,
            failed: None,
        };
        match figure {
            Figure::Rates { refused, .. } => line.refused = Some(*refused),
            Figure::Missed { missed, repeated, stored } => {
                (line.missed, line.repeated, line.stored) = (Some(*missed), Some(*repeated), Some(*stored));
            }
            Figure::Failed(why) => line.failed = Some(why),
            Figure::Lacking => {}
        }
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}
