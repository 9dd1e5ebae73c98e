//! What travels with a command: for whom, why, by whom, until when.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::metadata::{Actor, CausationId, CorrelationId, Metadata, TraceParent};
use crate::request::RequestKey;
use crate::stream::Tenant;

/// The circumstances of a command. They travel explicitly and land in the metadata of its events.
#[derive(Clone, Debug, Default)]
pub struct Context {
    tenant: Tenant,
    metadata: Metadata,
    deadline: Option<Instant>,
    request: Option<RequestKey>,
}

impl Context {
    /// The circumstances of a command of `tenant`, with nothing else known.
    #[must_use]
    pub fn of(tenant: Tenant) -> Self {
        Self { tenant, ..Self::default() }
    }

    /// The story that the command belongs to.
    #[must_use]
    pub fn correlation(mut self, id: CorrelationId) -> Self {
        self.metadata.correlation_id = Some(id);
        self
    }

    /// The message that led to the command.
    #[must_use]
    pub fn causation(mut self, id: CausationId) -> Self {
        self.metadata.causation_id = Some(id);
        self
    }

    /// Who asked.
    #[must_use]
    pub fn actor(mut self, actor: Actor) -> Self {
        self.metadata.actor = Some(actor);
        self
    }

    /// The W3C trace context.
    #[must_use]
    pub fn trace_parent(mut self, trace_parent: TraceParent) -> Self {
        self.metadata.trace_parent = Some(trace_parent);
        self
    }

    /// A note of any other kind; at most 16 KiB in all.
    #[must_use]
    pub fn note(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.extra.insert(name.into(), value.into());
        self
    }

    /// The moment after which the caller has gone. An append that has not been sent by then is withdrawn.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The key under which the request has one effect and one answer, however often it comes.
    #[must_use]
    pub fn request(mut self, request: RequestKey) -> Self {
        self.request = Some(request);
        self
    }

    /// For whom.
    #[must_use]
    pub fn tenant_ref(&self) -> &Tenant {
        &self.tenant
    }

    /// What lands in the events.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Notes of other kinds.
    #[must_use]
    pub fn notes(&self) -> &BTreeMap<String, String> {
        &self.metadata.extra
    }

    /// Until when.
    #[must_use]
    pub fn deadline_at(&self) -> Option<Instant> {
        self.deadline
    }

    /// Under which key.
    #[must_use]
    pub fn request_key(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }
}
