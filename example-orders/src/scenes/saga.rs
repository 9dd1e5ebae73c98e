//! The scene `-- saga`: four checkouts. One is completed. One is not possible, and what was done is undone. In one the process
//! ends in the middle, and the next process goes on. One waits for a person, who decides.
//!
//! Where a saga stands is in its own stream of events, and nowhere else. So there is nothing to restore after a crash.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use annals::sagas::{By, Intervention, SagaEvent, SagaId, Sagas, SagasExt};
use annals::{EventStore, EventStoreExt, PostgresOptions, StreamId, Tenant};
use futures::TryStreamExt;

use crate::Fault;
use crate::checkout::definition::{Checkout, Participants, checkout};
use crate::checkout::services::Mood;
use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderId, PaymentId, total_of};
use crate::location::Location;

/// Short, so that the scene is. The default of 5 seconds costs fewer small writes, and forgives a process that is late.
const LEASE: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(60);

/// The checkouts of a shop, and who takes part in them.
struct Checkouts {
    store: std::sync::Arc<dyn EventStore>,
    participants: Participants,
    sagas: Sagas,
}

impl Checkouts {
    async fn open(location: &Location) -> Result<Self, Fault> {
        match location {
            Location::File(path) => Self::over(annals::sqlite(path).await?).await,
            Location::Postgres(url) => Self::over(PostgresOptions::new(url).migrate().open().await?).await,
        }
    }

    /// Runs the sagas in this process: new ones, and those that another process has left.
    async fn over(store: impl EventStore + SagasExt + Clone) -> Result<Self, Fault> {
        let participants = Participants::of(&store)?;
        let sagas = store.sagas().with(checkout(&participants)?).lease(LEASE).start().await?;
        Ok(Self { store: store.shared(), participants, sagas })
    }

    async fn close(self) {
        self.sagas.close().await;
        self.store.close().await;
    }
}

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let shop = Checkouts::open(location).await?;
    let played = play_at_once(&shop, number, out).await;
    shop.close().await;
    played?;

    writeln!(out, "\nThe process that checks out the next order ends in the middle: the warehouse has set the pieces")?;
    writeln!(out, "aside, and nobody has its answer.")?;
    die(location, number + 2)?;
    let shop = Checkouts::open(location).await?;
    let played = play_after_the_crash(&shop, number, out).await;
    shop.close().await;
    played
}

async fn play_at_once(shop: &Checkouts, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(out, "The steps of a checkout, each with those before it:")?;
    for step in checkout(&shop.participants)?.outline().lines() {
        writeln!(out, "  {step}")?;
    }

    writeln!(out, "\nAlice checks out, and all goes well.")?;
    start(shop, number).await?;
    ended(shop, number, out).await?;

    writeln!(
        out,
        "\nThe warehouse is closed when Alice checks out again. So she gets her money back, and the order is"
    )?;
    writeln!(out, "cancelled: each step that may have had its effect is undone, the last one first.")?;
    shop.participants.stock.set(Mood::Closed);
    start(shop, number + 1).await?;
    ended(shop, number + 1, out).await?;
    shop.participants.stock.set(Mood::Open);
    Ok(())
}

/// Starts another process of this program, which dies. The `exit` is in the call of the warehouse.
fn die(location: &Location, number: i64) -> Result<(), Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    match location {
        Location::File(path) => command.arg("--db").arg(path),
        Location::Postgres(url) => command.env("DATABASE_URL", url),
    };
    let command = command.args(["--first", &number.to_string(), "saga", "--dies"]);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).status()?.code() {
        Some(1) => Ok(()),
        other => Err(format!("the other process was to exit with 1, and gave {other:?}").into()),
    }
}

/// What the process does that dies.
pub async fn be_the_one_that_dies(location: &Location, number: i64) -> Result<(), Fault> {
    let shop = Checkouts::open(location).await?;
    shop.participants.stock.set(Mood::EndsTheProcess);
    start(&shop, number).await?;
    shop.sagas.wait_for(&saga(number)?, SOON).await?;
    shop.close().await;
    Ok(())
}

async fn play_after_the_crash(shop: &Checkouts, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(
        out,
        "The next process finds the saga, and makes the call again under its key. The warehouse has the key in"
    )?;
    writeln!(out, "its book, and sets nothing aside a second time.")?;
    ended(shop, number + 2, out).await?;

    writeln!(
        out,
        "\nThe carrier refuses Alice's next parcel. That is behind the pivot, so the saga waits for a person."
    )?;
    shop.participants.shipping.set(Mood::Closed);
    let (stuck, next) = (saga(number + 3)?, number + 3);
    start(shop, next).await?;
    ended(shop, next, out).await?;

    writeln!(out, "\nCarol looks at what waits, and at what her decisions would do. Nothing is stored by that.")?;
    shop.sagas.projections().caught_up(SOON).await?;
    for row in shop.sagas.stuck(100).await?.iter().filter(|row| row.saga_id == stuck.as_str()) {
        let step = row.current_step.as_deref().unwrap_or_default();
        writeln!(out, "  {}  at `{step}`: {}", row.saga_id, row.last_error.as_deref().unwrap_or_default())?;
    }
    let carol = By::new("carol", "the carrier is open again")?;
    match shop.sagas.preview(&stuck, Intervention::Compensate, &carol).await {
        Err(refused) => writeln!(out, "  compensate: {refused}")?,
        Ok(would) => return Err(format!("a parcel would be taken back: {would:?}").into()),
    }
    writeln!(out, "  retry:")?;
    for event in shop.sagas.preview(&stuck, Intervention::Retry, &carol).await? {
        print(&event, out)?;
    }

    writeln!(out, "\nShe retries. The saga goes on where it was.")?;
    shop.participants.shipping.set(Mood::Open);
    let seen = events(shop, next).await?.len();
    shop.sagas.intervene(&stuck, Intervention::Retry, &carol).await?;
    shop.sagas.wait_for(&stuck, SOON).await?;
    for event in &events(shop, next).await?[seen..] {
        print(event, out)?;
    }
    print_effects(shop, next, out).await
}

async fn start(shop: &Checkouts, number: i64) -> Result<(), Fault> {
    let lines = vec![Line { product: "grinder".to_owned(), quantity: 1, price: Money::euro_cents(12_900) }];
    let checkout = Checkout {
        order: order(number)?,
        customer: CustomerId::new("alice")?,
        total: total_of(&lines)?,
        lines,
        payment: PaymentId::new(format!("pay-{number}"))?,
        tracking: String::new(),
    };
    Ok(shop.sagas.start(&saga(number)?, checkout).await?)
}

/// Waits until a saga has ended or is stuck, and prints its stream, and what it has led to.
async fn ended(shop: &Checkouts, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    shop.sagas.wait_for(&saga(number)?, SOON).await?;
    for event in events(shop, number).await? {
        print(&event, out)?;
    }
    print_effects(shop, number, out).await
}

/// The stream of a saga.
async fn events(shop: &Checkouts, number: i64) -> Result<Vec<SagaEvent>, Fault> {
    let stream = StreamId::new(Tenant::default(), "saga", saga(number)?)?;
    let stored: Vec<_> = shop.store.load(&stream).try_collect().await?;
    let mut events = Vec::new();
    for event in stored {
        events.extend(event.decode::<SagaEvent>()?);
    }
    Ok(events)
}

fn print(event: &SagaEvent, out: &mut dyn Write) -> std::io::Result<()> {
    match event {
        SagaEvent::Started { saga, .. } => writeln!(out, "  {saga} started"),
        SagaEvent::Begun { step, direction, attempt } => writeln!(out, "    {direction} {step}: call {attempt}"),
        SagaEvent::Succeeded { step, direction, .. } => writeln!(out, "    {direction} {step}: ok"),
        SagaEvent::Refused { step, direction, reason, .. } => {
            writeln!(out, "    {direction} {step}: refused, {reason}")
        }
        SagaEvent::Failed { step, direction, error, .. } => writeln!(out, "    {direction} {step}: {error}"),
        SagaEvent::PivotPassed => writeln!(out, "    -- pivot --"),
        SagaEvent::CompensationBegun { .. } => writeln!(out, "    -- from here on it is undone --"),
        SagaEvent::Intervened { intervention, actor, reason, .. } => {
            writeln!(out, "    {actor}: {intervention}, because {reason}")
        }
        SagaEvent::Stuck { .. } => writeln!(out, "  stuck"),
        SagaEvent::Completed => writeln!(out, "  completed"),
        SagaEvent::Compensated => writeln!(out, "  compensated"),
        SagaEvent::ApprovalAsked { step, .. } => writeln!(out, "    {step} waits for approval"),
        SagaEvent::TimerSet { .. } | SagaEvent::SignalReceived { .. } | SagaEvent::WaitBegun { .. } => Ok(()),
    }
}

/// The order, and the entries of the services.
async fn print_effects(shop: &Checkouts, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let (id, of) = (order(number)?, &shop.participants);
    let loaded = of.orders.load(&id).await?;
    let paid = loaded.state.paid.as_ref().map_or(Money::euro_cents(0), |(_, paid)| *paid);
    write!(out, "  {id} is {}, {paid} are paid", loaded.state.status)?;
    for (name, service) in [("payments", &of.payments), ("stock", &of.stock), ("shipping", &of.shipping)] {
        write!(out, "; {name}: {}", service.entry_of(&id).await?)?;
    }
    Ok(writeln!(out)?)
}

fn order(number: i64) -> Result<OrderId, annals::Invalid> {
    OrderId::new(format!("o-{number}"))
}

fn saga(number: i64) -> Result<SagaId, annals::Invalid> {
    SagaId::new(format!("checkout-{number}"))
}
