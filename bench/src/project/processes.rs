//! Several processes that share the slots of one stream projection on PostgreSQL, beside one process.

use std::time::{Duration, Instant};

use annals::postgres::PostgresDatabase;
use annals::{EventStore, Position, PostgresOptions, Projections, StreamProjection};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use tokio::time::sleep;

use super::kinds::SplitList;
use super::{fill, orders};
use crate::baseline::postgres::tidy;
use crate::part::Part;
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, report};
use crate::{Fault, Options};

const SLOTS: u32 = 8;
/// Short, so that slots are shared soon, and soon taken over from a process that is killed.
const LEASE: Duration = Duration::from_millis(300);
/// How long after the beginning a process is killed.
const KILLED_AFTER: Duration = Duration::from_millis(200);
const MOST_TIME: Duration = Duration::from_secs(170);

const DELIVERED: &str = "
    SELECT count(*)
    FROM order_list_split
    WHERE status = 'delivered'
    ORDER BY 1
";

/// The task of a process.
#[derive(Serialize, Deserialize)]
struct Task {
    log: String,
    views: String,
}

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    for round in 0.. {
        build(&mut server, &format!("ours_{round}"), options, options.processes, &mut ours).await?;
        if !options.alone {
            build(&mut server, &format!("theirs_{round}"), options, 1, &mut theirs).await?;
        }
        if ours.busy >= options.time() {
            break;
        }
    }
    server.remove().await?;
    let baseline = (!options.alone).then_some(("annals in one process", theirs));
    let mut report = report("project", "postgres", 1, ours, baseline);
    report.processes = options.processes;
    Ok(report)
}

/// Builds the list. The processes have started, and pause, while the log is filled.
async fn build(
    server: &mut MeasuredServer,
    name: &str,
    options: &Options,
    processes: usize,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let log = server.database(&format!("{name}_log")).await?;
    let task = Task { log, views: server.database(name).await? };
    let store = PostgresOptions::new(&task.log).migrate().open().await?;
    let arguments = ["project", "--store", "postgres", "--part", &serde_json::to_string(&task)?].map(str::to_owned);
    let mut first = Part::start(&arguments).await?;
    first.ask("pause").await?;
    let mut others = Vec::new();
    for _ in 1..processes {
        others.push(Part::start(&arguments).await?);
    }
    fill(&store, options.events()).await?;
    tidy(&task.log).await?;
    let head = store.head().await?.position;
    store.close().await;

    let start = Instant::now();
    first.ask("resume").await?;
    if options.kill
        && let Some(victim) = others.pop()
    {
        sleep(KILLED_AFTER).await;
        victim.kill().await?;
    }
    first.ask(&head.get().to_string()).await?;
    tally.add(u64::try_from(head.get())?, start.elapsed(), [start.elapsed()]);

    for part in others.into_iter().chain([first]) {
        part.exit().await?;
    }
    let database = PostgresDatabase::open(task.views).await?;
    let row = sqlx::query(DELIVERED).fetch_one(&mut *database.read().await?).await?;
    assert_eq!(row.get::<i64, _>(0), orders(options.events()), "every order is in the list");
    database.close().await;
    Ok(())
}

impl Part {
    /// Lets a process do something, and waits until it is done.
    async fn ask(&mut self, what: &str) -> Result<(), Fault> {
        self.tell(what).await?;
        self.answer().await.map(drop)
    }
}

/// One of the processes. Each line is `pause`, `resume`, or a position to wait for.
pub(crate) async fn part(task: &str) -> Result<(), Fault> {
    let task: Task = serde_json::from_str(task)?;
    let store = PostgresOptions::new(&task.log).open().await?;
    let database = PostgresDatabase::open(task.views).await?;
    let views = Projections::of(&store, &database).with(SplitList.slots(SLOTS)).lease(LEASE).start().await?;
    println!("ready");
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "pause" => views.pause::<SplitList>("the measurement").await?,
            "resume" => drop(views.resume::<SplitList>().await?),
            position => views.wait_for(Position::new(position.parse()?)?, MOST_TIME).await?,
        }
        println!("done");
    }
    views.close().await;
    store.close().await;
    database.close().await;
    Ok(())
}
