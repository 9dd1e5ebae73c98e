//! A chart: a picture for the eye, and the same figures as a table, which is there without scripts, too.

use maud::{Markup, html};
use serde::Serialize;

/// A chart over time.
#[derive(Serialize)]
pub struct Chart {
    /// Seconds since 1970.
    pub x: Vec<i64>,
    pub series: Vec<Series>,
    /// Behind each number of the axis.
    pub unit: &'static str,
}

/// One line of it, or the bars of it.
#[derive(Serialize)]
pub struct Series {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// What is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over minutes.
    Hour,
    /// Bars over days.
    Days,
}

impl Chart {
    /// The picture, named by its title. Its table stands beside it.
    pub fn show(&self, title: &str, kind: Kind) -> Markup {
        // Texts and numbers are always JSON.
        let points = serde_json::to_string(self).unwrap_or_default();
        let name = match kind {
            Kind::Hour => "hour",
            Kind::Days => "days",
        };
        html! {
            @if self.series.len() > 1 {
                ul.keys { @for (n, series) in self.series.iter().enumerate() { li class={ "series-" (n + 1) } { (series.name) } } }
            }
            div.chart.small[kind == Kind::Hour] role="img" aria-label={ (title) ", the figures are in the table" } data-chart=(name)
                data-points=(points) hx-morph-skip-children {}
        }
    }
}
