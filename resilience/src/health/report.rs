use std::collections::BTreeMap;

use serde::Serialize;

/// The answer to one question about health; serialized, the body of the HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The answer in one word.
    pub status: Status,
    /// The checks behind it, by name.
    pub checks: BTreeMap<&'static str, CheckReport>,
}

/// What a question about health is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// All is well.
    Up,
    /// An informational check failed.
    Degraded,
    /// A critical check failed, or the runtime is blocked.
    Down,
    /// The start is not done.
    Starting,
    /// Shutdown began.
    Draining,
}

/// What is known of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Up or down.
    pub status: Status,
    /// Whether the service cannot work without it.
    pub critical: bool,
    /// Why it is down. Everyone who may read the route reads this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The age of this result.
    pub age_ms: u64,
}

impl Report {
    pub(super) fn of(status: Status) -> Self {
        Self { status, checks: BTreeMap::new() }
    }

    pub(super) fn of_checks(reports: Vec<(&'static str, CheckReport)>) -> Self {
        let failed =
            |critical| reports.iter().any(|(_, check)| check.critical == critical && check.status != Status::Up);
        let status = match (failed(true), failed(false)) {
            (true, _) => Status::Down,
            (false, true) => Status::Degraded,
            (false, false) => Status::Up,
        };
        Self { status, checks: reports.into_iter().collect() }
    }

    /// The status of the HTTP answer: 200 if the status is up or degraded, else 503.
    pub fn code(&self) -> u16 {
        match self.status {
            Status::Up | Status::Degraded => 200,
            Status::Down | Status::Starting | Status::Draining => 503,
        }
    }
}
