//! Order sagas against a payment service outside of this process, for checkers that let it fail.

use std::sync::Arc;
use std::time::Duration;

use annals::resilience::Policy;
use annals::resilience::breaker::Mode;
use annals::resilience::retry::Retry;
use annals::sagas::{Call, Definition, Saga, SagaError, SagaId, SagaStatus, Sagas, StepError, StepRetry};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::line::{Line, monotonic, print};
use crate::pay::{Payment, Service};
use crate::{Fault, target};

/// Runs order sagas: charge at the service, reserve in this process, and then ship in this process. A JSON line for each end.
#[derive(Args)]
pub(crate) struct Options {
    /// The store and the table of sagas: `sqlite:FILE` or `postgres://..`.
    #[arg(long)]
    db: String,
    /// Where payments and refunds are posted: `http://host:port/path`.
    #[arg(long)]
    pay: String,
    /// How many orders there are. Those that an earlier run has begun are continued.
    #[arg(long, default_value_t = 10)]
    orders: u64,
    /// The number of the first order.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The stock refuses each order whose number this divides; 0 for none.
    #[arg(long, default_value_t = 0)]
    refuse_every: u64,
    /// How many sagas are in flight at most.
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// How long a payment or refund may take, in milliseconds. Later its outcome is unknown.
    #[arg(long, default_value_t = 1_000)]
    timeout_ms: u64,
    /// How often each payment and each refund is posted at most.
    #[arg(long, default_value_t = 5)]
    attempts: u32,
    /// The wait after the first attempt, in milliseconds. It doubles after each, and a longer one that the service asks for counts.
    #[arg(long, default_value_t = 100)]
    wait_ms: u64,
    /// How long this process may be silent before others take over, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    lease_ms: u64,
    /// How long one saga is waited for.
    #[arg(long, default_value_t = 60.0)]
    secs: f64,
}

#[derive(Serialize, Deserialize, Clone)]
struct Order {
    order: String,
    cents: u64,
    in_stock: bool,
}

fn orders(options: &Options, service: &Service) -> Result<Definition<Order>, Fault> {
    let timeout = Duration::from_millis(options.timeout_ms);
    // Each attempt is one of the saga, so that all of them are recorded.
    let once = Retry { attempts: 1, ..Retry::default() };
    let payments = Policy::slow("payments").timeout(timeout).deadline(timeout).retry(once);
    let payments = payments.breaker_mode(Mode::Disabled).build()?;
    let (stock, shipping) = (Policy::fast("stock").build()?, Policy::fast("shipping").build()?);
    let wait = Duration::from_millis(options.wait_ms);
    let retry = StepRetry { attempts: options.attempts, first: wait, most: wait.saturating_mul(64) };
    let post = |kind: &'static str| {
        let service = service.clone();
        move |order: Arc<Order>, call: Call| {
            let service = service.clone();
            async move { service.post(&Payment { kind, order: &order.order, cents: order.cents }, call.key()).await }
        }
    };
    let saga = Saga::<Order>::new("drive-order")
        .remote("charge", &payments, post("charge"))
        .retry(retry)
        .undo(post("refund"))
        .retry_undo(retry)
        .remote("reserve", &stock, |order, _| async move {
            if order.in_stock { Ok(()) } else { Err(StepError::refused("out of stock")) }
        })
        .no_undo("nothing is kept")
        .pivot()
        .remote("ship", &shipping, |_, _| async { Ok(()) })
        .build()?;
    Ok(saga)
}

pub(crate) async fn run(options: &Options) -> Result<(), Fault> {
    let service = Service::at(&options.pay)?;
    let (store, sagas) = target::open_with_sagas(&options.db).await?;
    let lease = Duration::from_millis(options.lease_ms);
    let sagas = sagas.with(orders(options, &service)?).lease(lease).in_flight(options.in_flight).start().await?;
    let numbers = options.first..options.first.saturating_add(options.orders);
    let ends = stream::iter(numbers).map(|number| one(&sagas, options, number)).buffer_unordered(options.in_flight);
    let ended: Result<Vec<bool>, Fault> = ends.try_collect().await;
    sagas.close().await;
    store.close().await;
    match ended?.iter().filter(|ended| !**ended).count() {
        0 => Ok(()),
        some => Err(format!("{some} sagas have neither ended nor become stuck after {} s", options.secs).into()),
    }
}

/// Starts the saga of an order, or continues it, and prints its end. Whether it has one.
async fn one(sagas: &Sagas, options: &Options, number: u64) -> Result<bool, Fault> {
    let t0 = monotonic();
    let id = SagaId::new(format!("order-{number}"))?;
    let in_stock = options.refuse_every == 0 || !number.is_multiple_of(options.refuse_every);
    sagas.start(&id, Order { order: id.to_string(), cents: 1_250, in_stock }).await?;
    let (status, ended): (SagaStatus, bool) = match sagas.wait_for(&id, Duration::from_secs_f64(options.secs)).await {
        Ok(status) => (status, true),
        Err(SagaError::TimedOut { status, .. }) => (*status, false),
        Err(error) => return Err(error.into()),
    };
    print(&Line::Saga {
        id: id.as_str(),
        r: &status.status.to_string(),
        at: status.stuck_at.as_deref(),
        why: status.reason.as_deref(),
        t0,
        t1: monotonic(),
    })?;
    Ok(ended)
}
