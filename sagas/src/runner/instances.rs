//! The table of instances: a stream projection of their streams.

use annals_eventstore::{Recorded, StreamId, Tenant};
use annals_macros::ReadModel;
use annals_projections::{ProjectionError, StreamProjection, StreamRow, slot_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Direction, Intervention, SagaEvent};
use crate::instance::Status;
use crate::text;

/// Into how many slots the instances are divided: what one process has at least, and so how many processes share them at most.
pub(crate) const SLOTS: u32 = 16;

/// A row of the table `saga_instances`: an instance, as its stream says. The table may lag behind the streams and can be built anew
/// at any time; nothing relies on it but who looks for instances.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(
    table = "saga_instances",
    key("tenant", "saga_id"),
    index("saga_type", "wake_at"),
    index("status", "updated_at"),
    index("asked_at")
)]
pub struct SagaInstance {
    /// The tenant.
    pub tenant: Tenant,
    /// What names it.
    pub saga_id: String,
    /// In which share of all instances it is, from 0: one process at a time has each.
    pub slot: u32,
    /// The name of its saga.
    pub saga_type: String,
    /// The hash of the definition of the build that started it.
    pub definition: String,
    /// The step that its last event was about.
    pub current_step: Option<String>,
    /// Which call of that step; 0 for one without calls.
    pub attempt: u32,
    /// Where it stands: in SQL the text `running`, `compensating`, `stuck`, `completed` or `compensated`.
    #[column(text)]
    pub status: Status,
    /// Its input; null if that is nothing.
    #[column(json)]
    pub payload: Option<Value>,
    /// When it was started.
    pub created_at: Timestamp,
    /// When its last event was recorded.
    pub updated_at: Timestamp,
    /// The version of its stream.
    pub version: i64,
    /// From when on something is to be done for it. Since its start, if a process is at it or has left it in the middle; null if only a
    /// signal or a person continues it, or it has ended.
    pub wake_at: Option<Timestamp>,
    /// Until when it must be completed.
    pub deadline: Option<Timestamp>,
    /// The last failure, or why it is compensated or stuck.
    pub last_error: Option<String>,
    /// The correlation id of all that it led to.
    pub correlation_id: Option<String>,
    /// The steps that wait for the approval of a person, in the order in which they have asked.
    #[column(json)]
    pub asks: Vec<Ask>,
    /// Since when the first of these waits; null while the instance is stuck, as it takes no answer then.
    pub asked_at: Option<Timestamp>,
}

/// A step that waits for the approval of a person.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The step.
    pub step: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when it can be answered; `None` if there is no limit.
    pub until: Option<Timestamp>,
}

/// The projection that builds the table.
#[derive(Clone, Copy, Debug)]
pub struct SagaInstances;

impl StreamProjection for SagaInstances {
    type Event = SagaEvent;
    type Row = SagaInstance;
    const AGGREGATES: &'static [&'static str] = &["saga"];

    fn apply(&self, event: &Recorded<SagaEvent>, row: &mut StreamRow<'_, SagaInstance>) -> Result<(), ProjectionError> {
        if let SagaEvent::Started { .. } = event.event {
            row.insert(SagaInstance::started(&event.stream));
        }
        let row = row.require()?;
        row.correlation_id =
            row.correlation_id.take().or_else(|| event.metadata.correlation_id.as_ref().map(ToString::to_string));
        row.take_in(&event.event, event.version.get(), event.recorded_at);
        Ok(())
    }
}

impl SagaInstance {
    /// The row of a stream before its first event.
    pub(crate) fn started(stream: &StreamId) -> Self {
        Self {
            tenant: stream.tenant().clone(),
            saga_id: stream.aggregate_id().to_owned(),
            slot: slot_of(stream, SLOTS),
            saga_type: String::new(),
            definition: String::new(),
            current_step: None,
            attempt: 0,
            status: Status::NotStarted,
            payload: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            version: 0,
            wake_at: None,
            deadline: None,
            last_error: None,
            correlation_id: None,
            asks: Vec::new(),
            asked_at: None,
        }
    }

    /// Takes in the next event of the stream.
    pub(crate) fn take_in(&mut self, event: &SagaEvent, version: i64, recorded_at: Timestamp) {
        (self.version, self.updated_at) = (version, recorded_at);
        if let Some(error) = event.error_in(self.status) {
            self.last_error = Some(text::storable(&error));
        }
        match event {
            SagaEvent::Started { saga, definition, data, at, deadline } => {
                self.saga_type.clone_from(saga);
                self.definition.clone_from(definition);
                self.payload = Some(storable(data)).filter(|data| !data.is_null());
                (self.created_at, self.deadline, self.status) = (*at, *deadline, Status::Running);
            }
            SagaEvent::Begun { step, attempt, .. }
            | SagaEvent::Succeeded { step, attempt, .. }
            | SagaEvent::Refused { step, attempt, .. }
            | SagaEvent::Failed { step, attempt, .. } => self.is_at(step, *attempt),
            SagaEvent::TimerSet { step, .. } | SagaEvent::ApprovalAsked { step, .. } => self.is_at(step, 0),
            SagaEvent::WaitBegun { step: Some(step), .. } | SagaEvent::Stuck { step: Some(step), .. }
                if self.current_step.as_ref() != Some(step) =>
            {
                self.is_at(step, 0);
            }
            SagaEvent::Intervened { intervention, until, .. } => {
                self.last_error = None;
                if matches!(intervention, Intervention::Retry | Intervention::Skip) {
                    self.deadline = None;
                }
                self.status = match intervention {
                    Intervention::Complete => Status::Completed,
                    _ if until.is_some() => Status::Compensating,
                    _ => Status::Running,
                };
            }
            SagaEvent::CompensationBegun { .. } => self.status = Status::Compensating,
            SagaEvent::Completed => self.status = Status::Completed,
            SagaEvent::Compensated => self.status = Status::Compensated,
            SagaEvent::SignalReceived { .. }
            | SagaEvent::PivotPassed
            | SagaEvent::WaitBegun { .. }
            | SagaEvent::Stuck { .. } => {}
        }
        if let SagaEvent::Stuck { .. } = event {
            self.status = Status::Stuck;
        }
        self.ask(event);
        self.wake_at = match event {
            SagaEvent::WaitBegun { until, .. } => *until,
            _ => Some(self.created_at).filter(|_| matches!(self.status, Status::Running | Status::Compensating)),
        };
    }

    fn ask(&mut self, event: &SagaEvent) {
        match event {
            SagaEvent::ApprovalAsked { step, at, until } => {
                self.asks.push(Ask { step: step.clone(), at: as_in_a_column(*at), until: until.map(as_in_a_column) });
            }
            SagaEvent::Succeeded { step, direction: Direction::Do, .. }
            | SagaEvent::Refused { step, direction: Direction::Do, .. } => self.asks.retain(|ask| ask.step != *step),
            _ if !matches!(self.status, Status::Running | Status::Stuck) => self.asks.clear(),
            _ => {}
        }
        self.asked_at = self.asks.first().map(|ask| ask.at).filter(|_| self.status == Status::Running);
    }

    fn is_at(&mut self, step: &str, attempt: u32) {
        (self.current_step, self.attempt) = (Some(step.to_owned()), attempt);
    }
}

/// In microseconds, so that it is equal to the columns that have the same time.
fn as_in_a_column(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// PostgreSQL holds no character 0, in JSON neither. The stream has the input as it was.
fn storable(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text::without_nul(text)),
        Value::Array(values) => values.iter().map(storable).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (text::without_nul(name), storable(value))).collect()
        }
        other => other.clone(),
    }
}
