//! What a supervisor should think of a reactor.

use tokio::time::Instant;

use super::status::{ReactorState, ReactorStatus};
use crate::health::{LEASES_WITHOUT_OWNER, MOST_WITHOUT_PROGRESS, ProjectionHealth, Seen, Verdict, Watch};
use crate::member::chain;

impl Watch {
    pub(crate) fn reactor(&self, status: &ReactorStatus, seen: &mut Seen) -> ProjectionHealth {
        let kind = status.state.kind();
        let since = seen.state.filter(|(known, _)| *known == kind).map_or(self.now, |(_, since)| since);
        seen.state = Some((kind, since));
        let verdict = self.of_reactor(status, since);
        let no_progress = |since| self.reactor_without_progress(status, since);
        self.health(&status.name, 0, status.position, verdict, &mut seen.behind, no_progress)
    }

    /// What its state says; it is in that since `since`, as far as it was looked at.
    fn of_reactor(&self, status: &ReactorStatus, since: Instant) -> Verdict {
        let failed = |why| Verdict::Failed { why };
        let elapsed = self.now - since;
        match &status.state {
            ReactorState::Stopped(stopped) => failed(chain(stopped)),
            ReactorState::Closed => failed("it was closed".to_owned()),
            ReactorState::Retrying { fault } if elapsed >= MOST_WITHOUT_PROGRESS => {
                failed(format!("a fault blocks it since {}: {fault}", self.time_of(since)))
            }
            ReactorState::Retrying { fault } => Verdict::Retrying { fault: fault.clone() },
            ReactorState::Standby { owner: None } if elapsed >= self.lease * LEASES_WITHOUT_OWNER => {
                failed(format!("no process runs it since {}", self.time_of(since)))
            }
            ReactorState::Standby { .. } => Verdict::Healthy,
            ReactorState::CatchingUp | ReactorState::Live if status.parked > 0 => {
                Verdict::Degraded { parked: status.parked }
            }
            ReactorState::CatchingUp => Verdict::CatchingUp,
            ReactorState::Live => Verdict::Healthy,
        }
    }

    /// It is behind and comes no further. One that waits for a handler is not stuck, nor does one that runs elsewhere say here what is
    /// in its way.
    fn reactor_without_progress(&self, status: &ReactorStatus, since: Instant) -> Option<Verdict> {
        let what = match (&status.state, &status.last_error) {
            (ReactorState::Standby { .. }, _) => return None,
            (_, Some(error)) if status.retrying > 0 => error,
            _ if status.in_flight > 0 => return None,
            _ => "its database does not answer; look for locks held on its tables, and at the disk",
        };
        Some(Verdict::Failed { why: format!("it comes no further since {}: {what}", self.time_of(since)) })
    }
}
