//! The checkout of an order as it is, or as it was: its events, its row, and its steps.

use annals::sagas::{Definition, SagaEvent, SagaId, SagaInstance, SagaInstances, timeline};
use annals::{AsOf, Recorded, Tenant};
use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};

use crate::checkout::Flow;
use crate::checkout::definition::checkout;
use crate::checkout::timeline::{for_its_customer, for_staff, why_for_its_customer};
use crate::dashboard::sagas::state;
use crate::dashboard::steps::{self, Step};
use crate::dashboard::visitor::Visitor;
use crate::domain::order::OrderId;
use crate::service::access::Role;
use crate::service::api::checkouts;
use crate::service::app::App;
use crate::service::problem::Problem;

/// A checkout up to a moment.
pub struct Checkout {
    pub id: SagaId,
    /// Its row at the moment.
    pub row: Option<SagaInstance>,
    /// Its events up to then.
    pub events: Vec<Recorded<SagaEvent>>,
    /// When something has happened in it, also afterwards.
    pub moments: Vec<Timestamp>,
    pub steps: Vec<Step>,
    /// The graph of its steps; a choreographed one has none, as nobody directs it.
    picture: Option<String>,
}

impl Checkout {
    /// The checkout of an order that the visitor sees, if there is one.
    pub async fn of(visitor: &Visitor, order: &OrderId, as_of: Option<Timestamp>) -> Result<Option<Self>, Problem> {
        let (app, tenant) = (&visitor.dashboard.app, &visitor.caller().tenant);
        let (id, standing) = match checkouts::find(app, visitor.caller(), order).await {
            Ok(found) => found,
            Err(problem) if problem.is_not_found() => return Ok(None),
            Err(problem) => return Err(problem),
        };
        if visitor.caller().role != Role::Customer {
            return Self::at(app, tenant, id, standing.flow, as_of, for_staff).await.map(Some);
        }
        let mut checkout = Self::at(app, tenant, id, standing.flow, as_of, for_its_customer).await?;
        if let Some(row) = &mut checkout.row {
            row.last_error = row.last_error.take().map(|_| why_for_its_customer(row.status).to_owned());
        }
        Ok(Some(checkout))
    }

    /// The checkout of this id as it was, for its customer or for staff.
    pub async fn at(
        app: &App,
        tenant: &Tenant,
        id: SagaId,
        flow: Flow,
        as_of: Option<Timestamp>,
        shown: fn(&mut SagaEvent),
    ) -> Result<Self, Problem> {
        let mut events = timeline(&app.shop.store, tenant, &id).await?;
        let moments: Vec<Timestamp> = events.iter().map(|event| event.recorded_at).collect();
        events.retain(|event| as_of.is_none_or(|as_of| event.recorded_at <= as_of));
        events.iter_mut().for_each(|event| shown(&mut event.event));
        // The row is folded from the same events, also for now: the table may be a moment behind.
        let sagas = app.checkouts.sagas.projections();
        let row = match as_of.or(moments.last().copied()) {
            Some(time) => {
                let key = (tenant.clone(), id.to_string());
                sagas.find_as_of::<SagaInstances>(&key, AsOf::time(time)).await?.row
            }
            None => None,
        };
        let definition = match flow {
            Flow::Orchestrated => Some(checkout(&app.checkouts.orders, &app.checkouts.services)?),
            Flow::Choreographed => None,
        };
        let outline = definition.as_ref().map(Definition::outline);
        let steps = steps::after(outline.as_deref(), events.iter());
        let picture = definition.map(|definition| definition.svg_after(events.iter().map(|event| &event.event)));
        // Inside of a page nobody asks for the name of its language, which looks like an address elsewhere.
        let picture = picture.map(|picture| picture.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1));
        Ok(Self { id, row, events, moments, steps, picture })
    }

    /// Where it stands, and its steps.
    pub fn show(&self, order: &OrderId) -> Markup {
        html! {
            section.card aria-labelledby="checkout" {
                h2 #checkout { "Checkout" }
                @match &self.row {
                    None => p.quiet { "It had not begun yet." },
                    Some(row) => p { (state(row.status)) " " span.quiet { (row.saga_type) " " code { (self.id) } } },
                }
                @if let Some(picture) = &self.picture {
                    // SVG of the library, in which no text is markup.
                    (PreEscaped(picture))
                    details { summary { "The steps in words" } (steps::list(order, &self.steps)) }
                } @else { (steps::list(order, &self.steps)) }
            }
        }
    }
}
