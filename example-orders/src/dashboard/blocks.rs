//! What blocks an order, in one line: what somebody who is asked "where is it?" would answer.

use annals::sagas::{SagaInstance, Status as SagaStatus};
use jiff::civil::Date;
use maud::{Markup, html};

use crate::dashboard::steps::{State, Step};
use crate::domain::order::Status;

/// The line, and its class.
#[derive(Debug, PartialEq, Eq)]
pub struct Blocks(&'static str, String);

impl Blocks {
    /// For an order of this status, with the row and the steps of its checkout, if it has one. `open` names a service that is not
    /// called at the moment, because it fails.
    pub fn of(
        order: Option<Status>,
        delivery: Option<Date>,
        checkout: Option<(&SagaInstance, &[Step])>,
        open: Option<&str>,
    ) -> Self {
        if let Some((row, steps)) = checkout
            && let Some(blocks) = Self::of_checkout(order, row, steps, open)
        {
            return blocks;
        }
        let line = match (order, delivery) {
            (None | Some(Status::Unknown), _) => return Self("", "It was not placed yet.".to_owned()),
            (Some(Status::Placed), _) => "It waits for its payment.".to_owned(),
            (Some(Status::Paid), _) => "It waits for a warehouse to set its pieces aside.".to_owned(),
            (Some(Status::Reserved), _) => "It waits for a carrier.".to_owned(),
            (Some(Status::Shipped), Some(day)) => format!("The parcel is under way, and should arrive on {day}."),
            (Some(Status::Shipped), None) => "The parcel is under way.".to_owned(),
            (Some(Status::Delivered), _) => return Self("good", "Nothing: it is delivered.".to_owned()),
            (Some(Status::Cancelled), _) => return Self("", "Nothing: it is cancelled.".to_owned()),
            (Some(Status::Returned), _) => return Self("", "Nothing: it was sent back.".to_owned()),
        };
        Self("busy", line)
    }

    fn of_checkout(order: Option<Status>, row: &SagaInstance, steps: &[Step], open: Option<&str>) -> Option<Self> {
        let why = row.last_error.as_deref().map_or("no reason was recorded", |why| why.trim_end_matches('.'));
        let at = row.current_step.as_deref().unwrap_or("its beginning");
        Some(match row.status {
            SagaStatus::Stuck => Self("bad", format!("Its checkout waits for a person: {why}.")),
            SagaStatus::Compensating => {
                Self("warn", format!("Its checkout is being undone, now at `{at}`, because {why}."))
            }
            SagaStatus::Running => {
                let failed = steps.iter().find_map(|step| match &step.state {
                    State::Failed(why, again) => Some((step, why, again)),
                    _ => None,
                });
                let breaker = open.map(|name| format!(" The service {name} is not called, because it fails."));
                let breaker = breaker.unwrap_or_default();
                match failed {
                    Some((step, why, Some(again))) => Self(
                        "warn",
                        format!(
                            "`{}` has failed ({why}), and is tried again at {}.{breaker}",
                            step.name,
                            again.strftime("%H:%M:%S UTC on %Y-%m-%d")
                        ),
                    ),
                    Some((step, why, None)) => Self("warn", format!("`{}` has failed: {why}.{breaker}", step.name)),
                    None => Self("busy", format!("Its checkout is under way, at `{at}`.{breaker}")),
                }
            }
            SagaStatus::Completed if order.is_none() => Self("good", "Nothing: its checkout is completed.".to_owned()),
            SagaStatus::Compensated if order.is_none() => Self("", "Nothing: its checkout is undone.".to_owned()),
            _ => return None,
        })
    }

    /// As it is shown.
    pub fn show(&self) -> Markup {
        html! { p #blocks class={ "notice " (self.0) } { strong { "What blocks it? " } (self.1) } }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn row_of(stream: &annals::StreamId) -> SagaInstance {
        SagaInstance {
            tenant: stream.tenant().clone(),
            saga_id: stream.aggregate_id().to_owned(),
            slot: 0,
            saga_type: "checkout".to_owned(),
            definition: String::new(),
            current_step: None,
            attempt: 0,
            status: SagaStatus::Running,
            payload: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            version: 1,
            wake_at: None,
            deadline: None,
            last_error: None,
            correlation_id: None,
            asks: Vec::new(),
            asked_at: None,
        }
    }

    #[test]
    fn an_order_without_a_checkout_is_blocked_by_its_next_step() {
        let line = |status| Blocks::of(status, None, None, None).1;
        assert_eq!(line(None), "It was not placed yet.");
        assert_eq!(line(Some(Status::Placed)), "It waits for its payment.");
        assert_eq!(line(Some(Status::Cancelled)), "Nothing: it is cancelled.");
        // An operator sees the checkout, and not the order.
        let stream = annals::StreamId::new(annals::Tenant::default(), "saga", "checkout-o-1").expect("a stream");
        let mut row = row_of(&stream);
        for (status, line) in [
            (SagaStatus::Completed, "Nothing: its checkout is completed."),
            (SagaStatus::Compensated, "Nothing: its checkout is undone."),
        ] {
            row.status = status;
            assert_eq!(Blocks::of(None, None, Some((&row, &[])), None).1, line);
            let delivered = Blocks::of(Some(Status::Delivered), None, Some((&row, &[])), None);
            assert_eq!(delivered.1, "Nothing: it is delivered.");
        }
        let day = Date::new(2026, 3, 2).ok();
        assert_eq!(
            Blocks::of(Some(Status::Shipped), day, None, None).1,
            "The parcel is under way, and should arrive on 2026-03-02."
        );
    }
}
