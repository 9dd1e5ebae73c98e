//! `tenants`: how long a tenant waits while another one appends much.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annals::engine::{Limits, Payload};
use annals::{
    Append, EventId, EventStore, ExpectedVersion, NewEvent, PostgresOptions, SqliteOptions, StreamId, StreamVersion,
    Tenant,
};
use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;

use crate::lag::{millis, quantile};
use crate::server::MeasuredServer;
use crate::{Fault, Store, sample};

/// What the quiet tenant may wait at most, in milliseconds: for an append and for a load.
const BOUND_MS: f64 = 1_000.0;

/// Measures the appends and loads of one tenant, one after the other, while another tenant appends as fast as it can.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// What the other tenant appends.
    #[arg(long, value_enum, default_value_t = Load::Large)]
    load: Load,
    /// How many of its appends are unanswered at any time.
    #[arg(long, default_value_t = 300)]
    at_once: usize,
    /// How long it is measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    /// Events of 900 kB.
    Large,
    /// Events of two streams each.
    TwoStreams,
    /// One event of about 100 bytes each.
    Small,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: String,
    load: String,
    at_once: usize,
    /// Appends of the other tenant per second.
    others_per_second: f64,
    rounds: usize,
    append_p50_ms: f64,
    append_max_ms: f64,
    load_p50_ms: f64,
    load_max_ms: f64,
    bound_ms: f64,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.append_max_ms.max(self.load_max_ms) <= self.bound_ms
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, load, at_once, others_per_second, rounds, bound_ms, .. } = self;
        writeln!(
            f,
            "a tenant beside {at_once} appends ({load}) of another on {store}, {others_per_second:.0} /s; {rounds} rounds"
        )?;
        writeln!(f, "  append  p50 {:.1} ms   at most {:.1} ms", self.append_p50_ms, self.append_max_ms)?;
        writeln!(f, "  load    p50 {:.1} ms   at most {:.1} ms", self.load_p50_ms, self.load_max_ms)?;
        write!(f, "  wanted: at most {bound_ms:.0} ms, {}", if self.holds() { "which holds" } else { "WHICH FAILS" })
    }
}

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    // The measured tenant is not to be refused, and the other one neither.
    let limits = Limits { queued_bytes: 1 << 40, ..Limits::default() };
    match options.store {
        Store::Memory => Err("the memory store has no queue: use `--store sqlite` or `--store postgres`".into()),
        Store::Sqlite => {
            let folder = tempfile::tempdir()?;
            let store = SqliteOptions::new(folder.path().join("log.db")).limits(limits).open().await?;
            on(Arc::new(store), options).await
        }
        Store::Postgres => {
            let mut server = MeasuredServer::find().await?;
            let url = server.database("tenants").await?;
            let store = PostgresOptions::new(url).limits(limits).migrate().open().await?;
            let report = on(Arc::new(store), options).await?;
            server.remove().await?;
            Ok(report)
        }
    }
}

async fn on(store: Arc<dyn EventStore>, options: &Options) -> Result<Report, Fault> {
    let (ended, others) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let large = Payload::of(&"x".repeat(900_000))?;
    let loud = {
        let (store, ended, others, load, at_once) =
            (Arc::clone(&store), Arc::clone(&ended), Arc::clone(&others), options.load, options.at_once);
        tokio::spawn(async move {
            let running = stream::iter(0_u64..).take_while(|_| std::future::ready(!ended.load(Ordering::Acquire)));
            let appends = running.map(|n| {
                let (store, append) = (Arc::clone(&store), loud_append(load, n, &large));
                async move {
                    match store.append_many(append?).await {
                        Ok(_) => Ok(true),
                        // More than its share.
                        Err(error) if error.is_transient() => Ok(false),
                        Err(error) => Err(Fault::from(error)),
                    }
                }
            });
            let mut appends = appends.buffer_unordered(at_once);
            while let Some(done) = appends.next().await {
                others.fetch_add(usize::from(done?), Ordering::AcqRel);
            }
            Ok::<_, Fault>(())
        })
    };
    let (mut appends, mut loads, begun) = (Vec::new(), Vec::new(), Instant::now());
    let mine = sample::stream("quiet");
    while begun.elapsed() < Duration::from_secs_f64(options.seconds) {
        let called = Instant::now();
        store.append(&mine, ExpectedVersion::Any, vec![sample::event(appends.len() as u64)]).await?;
        appends.push(millis(called.elapsed()));
        let called = Instant::now();
        store.load_page(&mine, StreamVersion::NONE, 10).await?;
        loads.push(millis(called.elapsed()));
    }
    let took = begun.elapsed().as_secs_f64();
    let others_per_second = others.load(Ordering::Acquire) as f64 / took;
    ended.store(true, Ordering::Release);
    loud.await??;
    store.close().await;
    Ok(Report {
        case: "tenants",
        store: format!("{:?}", options.store).to_lowercase(),
        load: format!("{:?}", options.load).to_lowercase(),
        at_once: options.at_once,
        others_per_second,
        rounds: appends.len(),
        append_p50_ms: quantile(&mut appends, 0.5),
        append_max_ms: quantile(&mut appends, 1.0),
        load_p50_ms: quantile(&mut loads, 0.5),
        load_max_ms: quantile(&mut loads, 1.0),
        bound_ms: BOUND_MS,
    })
}

fn loud_append(load: Load, n: u64, large: &Payload) -> Result<Append, Fault> {
    let stream = |kind: &str| StreamId::new(Tenant::new("loud")?, "order", format!("{kind}-{n}"));
    let any = ExpectedVersion::Any;
    Ok(match load {
        Load::Large => {
            let event = NewEvent::raw(EventId::new(sample::id())?, sample::NAME, 1, large.clone())?;
            Append::to(stream("a")?, any, vec![event])
        }
        Load::TwoStreams => {
            Append::to(stream("a")?, any, vec![sample::event(n)]).and(stream("b")?, any, vec![sample::event(n)])
        }
        Load::Small => Append::to(stream("a")?, any, vec![sample::event(n)]),
    })
}
