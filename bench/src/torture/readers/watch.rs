//! The reader that measures how long it waits where a number is missing, and how old the oldest writer is meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::{EventStore, Filter, Position, PostgresOptions};
use serde::Serialize;
use sqlx::Row;
use tokio::time::{Instant, sleep, timeout};

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::place::{Link, Place};
use crate::torture::readers::shelf::Shelf;

/// Who holds the fence. The keys are those of the trigger.
const HOLDERS: &str = "
    SELECT DISTINCT virtualtransaction
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND classid = 1634627180 AND objid = 1718510437 AND objsubid = 2
    ORDER BY 1
";

/// How often the writers are looked at, which is how exact their age is known.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// How long ages are remembered: longer than any wait.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The longest wait of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Wait {
    /// For how long a read did not go on though there was more in the log, a missing number included.
    pub(crate) waited_ms: f64,
    /// How old the oldest writer that held a number became meanwhile.
    pub(crate) oldest_writer_ms: f64,
}

impl Wait {
    fn longer(self, other: Self) -> Self {
        if other.waited_ms > self.waited_ms { other } else { self }
    }

    fn over(self) -> f64 {
        self.waited_ms - self.oldest_writer_ms
    }
}

/// What is known of waits so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) longest: Wait,
    /// The one that was longest beyond the age of the oldest writer.
    pub(crate) most_over: Option<Wait>,
}

impl Waits {
    fn add(&mut self, wait: Wait) {
        self.longest = self.longest.longer(wait);
        if self.most_over.is_none_or(|most| wait.over() > most.over()) {
            self.most_over = Some(wait);
        }
    }
}

/// How old the oldest writer was, of late.
#[derive(Clone, Default)]
pub(crate) struct Ages(Arc<Mutex<VecDeque<(Instant, Duration)>>>);

impl Ages {
    fn add(&self, now: Instant, oldest: Duration) {
        let mut ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.push_back((now, oldest));
        while ages.front().is_some_and(|(then, _)| now - *then > REMEMBERED) {
            ages.pop_front();
        }
    }

    /// The greatest age since then.
    fn oldest_since(&self, then: Instant) -> Duration {
        let ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.iter().rev().take_while(|(at, _)| *at >= then).map(|(_, age)| *age).max().unwrap_or_default()
    }
}

/// Looks at the writers until it is dropped.
pub(crate) async fn look_at_writers(place: Place, ages: Ages) -> Result<(), Fault> {
    let mut link = Link::new(&place);
    let mut since: HashMap<String, Instant> = HashMap::new();
    loop {
        match sqlx::query(HOLDERS).fetch_all(link.get().await?).await {
            Ok(rows) => {
                let now = Instant::now();
                let holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                since.retain(|holder, _| holders.contains(holder));
                for holder in holders {
                    since.entry(holder).or_insert(now);
                }
                ages.add(now, since.values().map(|begun| now - *begun).max().unwrap_or_default());
            }
            Err(_) => {
                since.clear();
                link.mend().await;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Reads every event through one handle that stays open through the whole run.
pub(crate) async fn read(
    place: Place,
    reader: usize,
    ages: Ages,
    tell: impl Fn(u64, &Waits) + Send,
) -> Result<Waits, Fault> {
    let mut shelf = Shelf::resume(&place, reader)?;
    let store = PostgresOptions::new(place.url()).connections(2).open().await?;
    let mut news = store.watch();
    let mut waits = Waits::default();
    let mut after = Position::START;
    // Since when the read that is due has not come.
    let mut due = Instant::now();
    while !shelf.is_done() {
        news.borrow_and_update();
        let page = match store.read_page(after, &Filter::all(), 1_000).await {
            Ok(page) => page,
            Err(error) if error.is_transient() => {
                sleep(Duration::from_millis(20)).await;
                // The server is away: no wait for a writer.
                due = Instant::now();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page.events {
            shelf.add(&Fact::of_event(event)?)?;
        }
        if let Some(upto) = page.upto {
            shelf.reached(&upto)?;
            after = upto.position;
            let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
            let oldest_writer_ms = millis(ages.oldest_since(due));
            waits.add(Wait { waited_ms: millis(due.elapsed()), oldest_writer_ms });
            tell(shelf.position(), &waits);
            due = Instant::now();
        } else if page.end {
            // Others wake it by polling only; nothing is lost if they do not.
            timeout(Duration::from_millis(100), news.changed()).await.ok();
            due = Instant::now();
        }
    }
    store.close().await;
    Ok(waits)
}
