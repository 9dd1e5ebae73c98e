use std::time::Duration;

/// When the fault begins, when it ends, and when the run ends.
pub(super) const BEGIN: Duration = Duration::from_secs(30);
pub(super) const END: Duration = Duration::from_secs(90);
pub(super) const LENGTH: Duration = Duration::from_secs(180);

/// A way in which a dependency fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Three of ten attempts are answered with 503.
    Errors,
    /// Answers take thirty times as long.
    Slowness,
    /// Eight times the usual calls, more than the dependency can process.
    Overload,
    /// Down for four seconds, up for six, repeated.
    Flapping,
    /// Every attempt is answered with 503.
    Outage,
}

/// How a dependency handles an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Health {
    /// The share of attempts that fail.
    pub(super) errors: f64,
    /// The factor of its time per attempt.
    pub(super) slowdown: u32,
}

impl Profile {
    pub(super) const ALL: [Self; 5] = [Self::Errors, Self::Slowness, Self::Overload, Self::Flapping, Self::Outage];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Slowness => "slowness",
            Self::Overload => "overload",
            Self::Flapping => "flapping",
            Self::Outage => "outage",
        }
    }

    /// The factor of the usual rate of calls.
    pub(super) fn load(self, at: Duration) -> f64 {
        if self == Self::Overload && is_on(at) { 8.0 } else { 1.0 }
    }

    pub(super) fn health(self, at: Duration) -> Health {
        let well = Health { errors: 0.0, slowdown: 1 };
        if !is_on(at) {
            return well;
        }
        match self {
            Self::Errors => Health { errors: 0.3, ..well },
            Self::Slowness => Health { slowdown: 30, ..well },
            Self::Overload => well,
            Self::Flapping if (at - BEGIN).as_secs() % 10 >= 4 => well,
            Self::Flapping | Self::Outage => Health { errors: 1.0, ..well },
        }
    }
}

fn is_on(at: Duration) -> bool {
    (BEGIN..END).contains(&at)
}
