//! The payment service, the warehouse and the carrier: services that have an effect once, however often they are asked.
//!
//! Two rules make a service safe for a saga. What was done and is asked for again is answered as the first time. And what was undone,
//! even if it was never done, is not done later: the first request may arrive behind the one that takes it back. Here each service
//! has a book with an entry per order, which is an aggregate, so it outlives the process.
//!
//! Left out: the network. The services stand in this process.

use std::fmt;
use std::sync::{Arc, Mutex};

use annals::resilience::Policy;
use annals::sagas::{Call, StepError};
use annals::{Aggregate, Context, Decide, Event, EventStore, Evolve, ExecuteError, Repository, prelude::*, text_id};
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::domain::order::OrderId;

text_id! {
    /// A service and an order, for example `payments-o-1001`.
    pub struct EntryId;
}

/// What a service has done for an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum EntryEvent {
    /// The effect: money was taken, pieces were set aside, a parcel was fetched.
    #[event(name = "service.done")]
    Done,
    /// It was taken back.
    #[event(name = "service.undone")]
    Undone,
}

/// The entry of an order in the book of a service.
#[derive(Aggregate, Default, Clone, Debug)]
#[aggregate(name = "service", id = EntryId, event = EntryEvent)]
pub struct Entry {
    done: bool,
    undone: bool,
}

impl Evolve for Entry {
    fn evolve(&mut self, event: &EntryEvent) {
        match event {
            EntryEvent::Done => self.done = true,
            EntryEvent::Undone => self.undone = true,
        }
    }
}

/// What is asked of a service.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Do,
    Undo,
}

#[derive(Debug, thiserror::Error)]
#[error("it was taken back before")]
pub struct TakenBack;

impl Decide<Request> for Entry {
    type Rejection = TakenBack;

    fn decide(&self, request: &Request) -> Result<Vec<EntryEvent>, TakenBack> {
        match request {
            Request::Do if self.undone => Err(TakenBack),
            Request::Do if self.done => Ok(Vec::new()),
            Request::Do => Ok(vec![EntryEvent::Done]),
            Request::Undo if self.undone => Ok(Vec::new()),
            Request::Undo => Ok(vec![EntryEvent::Undone]),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.done, self.undone) {
            (false, false) => "nothing",
            (true, false) => "done",
            (true, true) => "done and undone",
            (false, true) => "undone before it was done",
        })
    }
}

/// How a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Open,
    /// It refuses what it is asked to do.
    Closed,
    /// The process ends behind the effect, before anybody has the answer.
    EndsTheProcess,
}

/// One of the services. Clones are the same service.
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    book: Repository<Entry>,
    mood: Arc<Mutex<Mood>>,
    /// All calls of it go through this.
    pub policy: Policy,
}

impl Service {
    pub fn new(name: &'static str, store: &(impl EventStore + Clone)) -> Result<Self, Fault> {
        let mood = Arc::new(Mutex::new(Mood::Open));
        Ok(Self { name, book: store.aggregate(), mood, policy: Policy::medium(name).build()? })
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().expect("no holder panics") = mood;
    }

    /// Has the effect for an order; the answer is the number under which the service knows it.
    pub async fn fulfil(&self, order: &OrderId, call: &Call) -> Result<String, StepError> {
        let mood = *self.mood.lock().expect("no holder panics");
        if mood == Mood::Closed {
            return Err(StepError::refused(format!("{} is closed", self.name)));
        }
        let number = self.ask(order, Request::Do, call).await?;
        if mood == Mood::EndsTheProcess {
            std::process::exit(1);
        }
        Ok(number)
    }

    /// Takes it back.
    pub async fn take_back(&self, order: &OrderId, call: &Call) -> Result<(), StepError> {
        self.ask(order, Request::Undo, call).await.map(drop)
    }

    /// A real service gets the key and the deadline of the call in two headers. In this one the entry names the request, as an order
    /// has one in each book; the key is noted beside the event.
    async fn ask(&self, order: &OrderId, request: Request, call: &Call) -> Result<String, StepError> {
        let id = self.entry(order).map_err(StepError::refused)?;
        let context = Context::default().with_deadline(call.deadline()).with_note("key", call.key().as_str());
        match self.book.with(context).send(&id, request).await {
            Ok(_) => Ok(id.to_string()),
            Err(ExecuteError::Rejected(no)) => Err(StepError::refused(no)),
            // It may be stored all the same. If the saga is undone, so is this.
            Err(error) => Err(StepError::unknown(error)),
        }
    }

    /// What the book says about an order.
    pub async fn entry_of(&self, order: &OrderId) -> Result<Entry, Fault> {
        Ok((*self.book.load(&self.entry(order)?).await?.state).clone())
    }

    fn entry(&self, order: &OrderId) -> Result<EntryId, annals::Invalid> {
        EntryId::new(format!("{}-{order}", self.name))
    }
}
