//! `policy`: a resilience policy and a dependency with faults, simulated under paused time.

mod plot;
mod profile;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use crate::Fault;
use profile::Profile;
use run::{Run, Summary};

/// Runs a policy against a simulated dependency with faults: errors, slowness, overload, flapping, outage.
///
/// Each profile takes three simulated minutes: half a minute of health, a minute of the fault, and health again. Time is
/// paused, so a run takes seconds, and the same seed gives the same figures.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Calls per second, on average.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Seed of the random decisions; the same seed gives the same run.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Write a plot of load, goodput and the breaker's state over time to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Print a JSON line per profile instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1.0..=1_000.0).contains(rate));
    rate.ok_or_else(|| "a rate is from 1 to 1,000 calls per second".to_owned())
}

/// The figures of all profiles.
pub(crate) struct Report(Vec<Summary>);

pub(crate) fn measure(options: &Options) -> Result<Report, Fault> {
    let runs: Result<Vec<Run>, Fault> =
        Profile::ALL.into_iter().map(|profile| run::simulate(profile, options.rate, options.seed)).collect();
    let runs = runs?;
    if let Some(path) = &options.svg {
        let write = std::fs::write(path, plot::svg(&runs));
        write.map_err(|error| format!("the plot could not be written to `{}`: {error}", path.display()))?;
    }
    Ok(Report(runs.iter().map(Run::summary).collect()))
}

impl Report {
    pub(crate) fn print(&self, json: bool) -> Result<(), Fault> {
        if json {
            for summary in &self.0 {
                println!("{}", serde_json::to_string(summary)?);
            }
        } else {
            println!("{self}");
        }
        Ok(())
    }
}

const LEGEND: &str = "
goodput, rejected  of all calls that callers made, those that were answered, and those that a guard refused
amplification      attempts that reached the dependency per call that callers made, refused ones included, both during
                   the fault: at most 1.2 is wanted from 50 calls/s on; below 1, guards kept calls from the dependency
recovery           from the end of the fault to the last call that was not answered";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:>8} {:>9} {:>14} {:>12}", "profile", "goodput", "rejected", "amplification", "recovery")?;
        for Summary { profile, goodput, rejected, amplification, recovery_ms } in &self.0 {
            let (goodput, rejected) = (goodput * 100.0, rejected * 100.0);
            write!(f, "\n{profile:<10} {goodput:>6.1} % {rejected:>7.1} % {amplification:>14.3} {recovery_ms:>9} ms")?;
        }
        write!(f, "\n{LEGEND}")
    }
}
