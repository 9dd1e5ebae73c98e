//! Appends through the library, each repeated until its outcome is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals::{
    Append, AppendError, Appended, ErrorFamily, EventStore, ExpectedVersion, NewEvent, PostgresStore, StreamVersion,
};
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::sample;
use crate::torture::Fault;
use crate::torture::fact::{Fact, HOT_STREAMS, new_event, stream_id};
use crate::torture::place::PATIENCE;
use crate::torture::writers::desk::Desk;
use crate::torture::writers::own::Own;

/// How many callers one writer has at work at once, so that their appends meet in the queue of the handle.
pub(super) const CALLERS: u32 = 16;

pub(super) struct Library {
    store: PostgresStore,
    own: Own,
    /// Whether it waits for readers that are far behind.
    patient: bool,
    /// What streams of many were seen to have last.
    seen: HashMap<u32, StreamVersion>,
    random: Rng,
}

/// What is asked for one stream.
struct Asked {
    stream: u32,
    expected: ExpectedVersion,
    events: Vec<NewEvent>,
}

impl Library {
    /// One of the callers of a writer.
    pub(super) fn new(store: PostgresStore, writer: u32, caller: u32, random: Rng) -> Self {
        // One of them goes on whatever readers do.
        let patient = caller > 0;
        Self { store, own: Own::share(writer, caller, CALLERS), patient, seen: HashMap::new(), random }
    }

    pub(super) async fn write(mut self, desk: Arc<Desk>) -> Result<(), Fault> {
        while let Some(_at_work) = if self.patient { desk.enter_slowly().await } else { desk.enter().await } {
            let asked = self.ask()?;
            let mut append: Option<Append> = None;
            for part in &asked {
                let (stream, events) = (stream_id(part.stream)?, part.events.clone());
                append = Some(match append {
                    None => Append::to(stream, part.expected, events),
                    Some(append) => append.and(stream, part.expected, events),
                });
            }
            let Some(append) = append else { continue };
            if let Some(appended) = self.settle(append, &desk).await? {
                desk.acknowledge(&self.learn(&asked, &appended)?)?;
                desk.count().library += asked.len() as u64;
            }
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<Vec<Asked>, Fault> {
        let random = &mut self.random;
        let own = |random: &mut Rng| self.own.stream(random.u32(..));
        let mut streams = match random.u8(..10) {
            0 => vec![random.u32(HOT_STREAMS)],
            1 => (0..random.u8(2..5))
                .map(|_| if random.bool() { own(random) } else { random.u32(HOT_STREAMS) })
                .collect(),
            _ => vec![own(random)],
        };
        streams.sort_unstable();
        streams.dedup();
        random.shuffle(&mut streams);
        let mut asked = Vec::new();
        for stream in streams {
            let expected = if self.own.has(stream) {
                ExpectedVersion::Exact(StreamVersion::new(self.own.known_version(stream))?)
            } else if random.u8(..4) == 0 {
                // It was so a while ago.
                ExpectedVersion::Exact(self.seen.get(&stream).copied().unwrap_or_default())
            } else {
                ExpectedVersion::Any
            };
            let count = if random.u8(..4) == 0 { random.u8(2..7) } else { 1 };
            let events = (0..count).map(|_| new_event(stream, sample::id())).collect::<Result<_, Fault>>()?;
            asked.push(Asked { stream, expected, events });
        }
        Ok(asked)
    }

    /// Appends until the answer is known; nothing if it was refused.
    async fn settle(&mut self, append: Append, desk: &Desk) -> Result<Option<Appended>, Fault> {
        let begun = Instant::now();
        loop {
            let error = match self.store.append_many(append.clone()).await {
                Ok(appended) => {
                    desk.count().repeated += u64::from(appended.repeated);
                    return Ok(Some(appended));
                }
                Err(error) => error,
            };
            match error.family() {
                ErrorFamily::Conflict => {
                    desk.count().conflicts += 1;
                    self.check_conflict(error)?;
                    return Ok(None);
                }
                ErrorFamily::OutcomeUnknown if begun.elapsed() < PATIENCE => desk.count().unknown += 1,
                ErrorFamily::Transient if begun.elapsed() < PATIENCE => {}
                _ => return Err(error.into()),
            }
            sleep(Duration::from_millis(self.random.u64(5..50))).await;
        }
    }

    /// Nobody else writes to the streams of one's own, so none of them can have moved.
    fn check_conflict(&mut self, error: AppendError) -> Result<(), Fault> {
        let AppendError::WrongExpectedVersion { stream, actual, .. } = &error else { return Err(error.into()) };
        let number = stream.aggregate_id().trim_start_matches('s').parse()?;
        if self.own.has(number) {
            return Err(format!("an untrue conflict: {error}").into());
        }
        self.seen.insert(number, *actual);
        Ok(())
    }

    /// The facts of an append that was answered.
    fn learn(&mut self, asked: &[Asked], appended: &Appended) -> Result<Vec<Fact>, Fault> {
        let mut facts = Vec::new();
        for (part, done) in asked.iter().zip(&appended.streams) {
            if done.positions.len() != part.events.len() {
                return Err(format!("{} positions for {} events", done.positions.len(), part.events.len()).into());
            }
            let first = done.version.get() - part.events.len() as i64 + 1;
            for ((event, position), version) in part.events.iter().zip(&done.positions).zip(first..) {
                facts.push(Fact::new(position.get(), part.stream, version, event.event_id.get())?);
            }
            self.own.set(part.stream, Some(done.version.get()));
            self.seen.insert(part.stream, done.version);
        }
        Ok(facts)
    }
}
