//! A version that has caught up takes the stable name.

use std::time::Duration;

use tokio::time::Instant;

use crate::database::{Shows, Switch};
use crate::member::{Member, chain};
use crate::pass::Shared;

/// How long after a view could not be switched it is tried again. A long query of the view blocks the switch, and a
/// switch that waits blocks all other readers of it, and the pass.
pub(crate) const SWITCH_AGAIN: Duration = Duration::from_secs(1);

/// Lets the stable name show a version that is at the end of the log, with its checkpoint stored, unless it shows a
/// higher one. What keeps it from that for a while is left to the next time; the name continues to show what it shows.
pub(crate) async fn switch(shared: &Shared, member: &mut Member) {
    let (projection, version) = (member.model.projection, member.model.version);
    let mut how = Switch::default();
    loop {
        match shared.database.show(&member.model, how).await {
            Ok(Shows::This) => {
                if member.settle() {
                    tracing::info!(projection, version, "the read model shows this version now");
                }
            }
            Ok(Shows::Stays(shown)) => {
                if member.settle() {
                    tracing::info!(projection, version, shown, "the read model continues to show another version");
                }
            }
            Ok(Shows::Further(shown)) if how.foreign != Some(shown) && shared.is_foreign(&shown).await => {
                how.foreign = Some(shown);
                continue;
            }
            // There are new events, which end the wait for such.
            Ok(Shows::Further(_)) => {}
            Err(fault) if fault.transient => {
                member.show_after = Some(Instant::now() + SWITCH_AGAIN);
                let error = chain(&fault.source);
                tracing::warn!(projection, error, "the read model cannot show this version yet; trying again");
                return;
            }
            Err(fault) => member.stop_by(fault),
        }
        member.show_after = None;
        return;
    }
}
