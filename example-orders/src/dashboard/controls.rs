//! What a person can do with a projection that runs, by its name: the functions of annals take its type.

use annals::projections::{ControlError, EventPlace, Retried};
use annals::sagas::SagaInstances;
use annals::{Projection, Projections, Reactor, StreamId, StreamProjection};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;

use crate::checkout::Checkouts;
use crate::dashboard::format::counted;
use crate::degradation::Notifications;
use crate::read_models::analytics::{DailySales, ShopSales};
use crate::read_models::customers::Customers;
use crate::read_models::detail::OrderDetail;
use crate::read_models::list::OrderList;
use crate::read_models::statement::CustomerStatement;
use crate::service::app::App;
use crate::service::problem::Problem;

/// Those that set streams aside.
const LIST: &str = <OrderList as StreamProjection>::NAME;
const SAGAS: &str = <SagaInstances as StreamProjection>::NAME;

type Done<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

/// What an operator wants to do with a projection.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Pause,
    Resume,
    StartAgain,
}

impl Act {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::StartAgain => "start again",
        }
    }
}

/// What can be done with a projection.
pub struct Control {
    /// Its name.
    pub name: &'static str,
    pause: for<'a> fn(&'a Projections, &'a str) -> Done<'a, ()>,
    resume: for<'a> fn(&'a Projections) -> Done<'a, bool>,
    start_again: for<'a> fn(&'a Projections) -> Done<'a, bool>,
}

const fn of<P: Projection>() -> Control {
    Control {
        name: P::NAME,
        pause: |views, by| Box::pin(views.pause::<P>(by)),
        resume: |views| Box::pin(views.resume::<P>()),
        start_again: |views| Box::pin(views.start_again::<P>()),
    }
}

static CONTROLS: [Control; 7] = [
    of::<OrderDetail>(),
    of::<DailySales>(),
    of::<ShopSales>(),
    of::<CustomerStatement>(),
    of::<Customers>(),
    of::<OrderList>(),
    of::<SagaInstances>(),
];

/// The projection of a name, and what runs it; `None` if there is none, or it is a reactor.
pub fn find(app: &App, name: &str) -> Option<(Projections, &'static Control)> {
    let control = CONTROLS.iter().find(|control| control.name == name)?;
    let runner = app.runners().into_iter().find(|views| views.status().iter().any(|one| &*one.name == name))?;
    Some((runner.clone(), control))
}

impl Control {
    /// Pauses it in all processes, resumes it, or starts it again in this one; says what came of it.
    pub async fn perform(&self, views: &Projections, act: Act, by: &str) -> Result<String, Problem> {
        let is_done = match act {
            Act::Pause => (self.pause)(views, by).await.map(|()| true),
            Act::Resume => (self.resume)(views).await,
            Act::StartAgain => (self.start_again)(views).await,
        };
        let outcome = match (act, is_done?) {
            (Act::Pause, _) => "It is paused in all processes.",
            (Act::Resume, true) => "It goes on.",
            (Act::Resume, false) => "It was not paused.",
            (Act::StartAgain, true) => "It is started again.",
            (Act::StartAgain, false) => "It has not stopped.",
        };
        Ok(outcome.to_owned())
    }
}

/// A stream that a projection or a reactor has set aside.
pub struct Letter {
    /// Whose.
    pub of: &'static str,
    /// The stream.
    pub stream: StreamId,
    /// The event that could not be applied: its version, name and position.
    pub event: (i64, String, i64),
    /// Why.
    pub reason: String,
    /// When, if that is kept.
    pub parked_at: Option<Timestamp>,
    /// How many events wait behind it, if that is kept.
    pub waiting: Option<u64>,
    /// Whether it can be given up. A reactor has only retries.
    pub can_drop: bool,
}

impl Letter {
    /// With what is kept of each.
    fn of(of: &'static str, event: EventPlace, reason: String) -> Self {
        let EventPlace { stream, version, name, position, .. } = event;
        let event = (version.get(), name.to_string(), position.get());
        Self { of, stream, event, reason, parked_at: None, waiting: None, can_drop: false }
    }
}

/// All streams that are set aside, in whichever process.
pub async fn letters(app: &App) -> Result<Vec<Letter>, ControlError> {
    let (views, sagas) = (&app.shop.views, app.checkouts.sagas.projections());
    let mut all = Vec::new();
    let of_projections =
        [(LIST, views.dead_letters::<OrderList>().await?), (SAGAS, sagas.dead_letters::<SagaInstances>().await?)];
    for (of, letters) in of_projections {
        all.extend(letters.into_iter().map(|letter| Letter {
            parked_at: Some(letter.parked_at),
            waiting: Some(letter.waiting),
            can_drop: true,
            ..Letter::of(of, letter.event, letter.reason)
        }));
    }
    let of_reactors = [
        (Checkouts::REACTOR, app.checkouts.parked().await?),
        (Notifications::NAME, views.parked::<Notifications>().await?),
    ];
    for (of, parked) in of_reactors {
        all.extend(parked.into_iter().map(|parked| Letter::of(of, parked.event, parked.error)));
    }
    Ok(all)
}

/// Applies or handles a stream that is set aside again.
pub async fn retry(app: &App, of: &str, stream: &StreamId) -> Result<String, Problem> {
    let (views, sagas) = (&app.shop.views, app.checkouts.sagas.projections());
    let retried = match of {
        LIST => views.retry::<OrderList>(stream).await?,
        SAGAS => sagas.retry::<SagaInstances>(stream).await?,
        Checkouts::REACTOR => return Ok(asked(app.checkouts.retry_parked(stream).await?)),
        Notifications::NAME => return Ok(asked(views.retry_parked::<Notifications>(stream).await?)),
        other => return Err(Problem::not_found("projection or reactor that sets streams aside", other.escape_debug())),
    };
    Ok(match retried {
        Retried::NothingParked => "It was not set aside.".to_owned(),
        Retried::Reopened { events } => {
            format!("{}, and the stream goes on.", counted(events, "event is applied", "events are applied"))
        }
        Retried::StillParked(letter) => format!("It is set aside still: {}", letter.reason),
        other => format!("{other:?}"),
    })
}

/// What came of asking a reactor for a retry: what comes of the retry itself is known later.
pub const ASKED: &str = "Asked for: it is handled again within a second, and set aside again if it is refused again.";

fn asked(is_parked: bool) -> String {
    if is_parked { ASKED } else { "It was not set aside." }.to_owned()
}

/// Gives up a stream's event that cannot be applied, and those behind it.
pub async fn give_up(app: &App, of: &str, stream: &StreamId, by: &str, why: &str) -> Result<String, Problem> {
    let (views, sagas) = (&app.shop.views, app.checkouts.sagas.projections());
    let dropped = match of {
        LIST => views.drop_dead_letter::<OrderList>(stream, by, why).await?,
        SAGAS => sagas.drop_dead_letter::<SagaInstances>(stream, by, why).await?,
        other => return Err(Problem::bad("parked", format!("what `{other}` sets aside cannot be given up; retry it"))),
    };
    Ok(if dropped { "Its events up to now are given up." } else { "It was not set aside." }.to_owned())
}
