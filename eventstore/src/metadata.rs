//! The metadata of events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;
use crate::name::check_name;

macro_rules! id_text {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text: 1 to 200 bytes, no control characters, not beginning with `$` or `__`.
            ///
            /// # Errors
            #[doc = concat!("[`Invalid`] with the field `", $field, "`.")]
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                check_name($field, text.as_ref())?;
                Ok(Self(text.as_ref().into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, to be bound without copying.
            #[allow(dead_code, reason = "not every id of this kind has a column of its own")]
            pub(crate) fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }

            /// A text read from a store; it was checked when it was written.
            #[allow(dead_code, reason = "not every id of this kind has a column of its own")]
            pub(crate) fn stored(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_text! {
    /// Groups all events that follow from one request: each has the same correlation id.
    CorrelationId, "correlation_id"
}
id_text! {
    /// The message that led to an event: the id of a command, a request, or the event before it, whose
    /// [`EventId`](crate::EventId) becomes one by `into`.
    CausationId, "causation_id"
}
id_text! {
    /// Who made the request: a user, a service, an operator. Never a secret, as it is stored forever.
    Actor, "actor"
}
id_text! {
    /// The W3C trace context (`traceparent` header) under which an event was recorded. It is stored as given; its form is not
    /// checked.
    TraceParent, "trace_parent"
}

impl From<crate::event_id::EventId> for CausationId {
    fn from(event: crate::event_id::EventId) -> Self {
        Self(event.to_string().into())
    }
}

/// The data of an event beside its payload; the events of one command usually share it.
///
/// At most 16 KiB as JSON by default ([`Limits::metadata_bytes`](crate::Limits::metadata_bytes)), which is checked when
/// the event is appended. It does not count when two appends are compared for being the same.
///
/// ```
/// use annals_eventstore::{Actor, Metadata};
///
/// let mut metadata = Metadata::default();
/// metadata.actor = Some(Actor::new("alice")?);
/// metadata.extra.insert("channel".to_owned(), "web".to_owned());
/// assert!(metadata.correlation_id.is_none());
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The correlation id of the event.
    pub correlation_id: Option<CorrelationId>,
    /// The message that led to the event.
    pub causation_id: Option<CausationId>,
    /// Who made the request.
    pub actor: Option<Actor>,
    /// The W3C trace context.
    pub trace_parent: Option<TraceParent>,
    /// Anything else. Names are 1 to 200 bytes without control characters, not beginning with `$` or `__`; values hold
    /// no U+0000.
    pub extra: BTreeMap<String, String>,
}

impl Metadata {
    /// The bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: Option<&str>| text.map_or(0, str::len);
        text(self.correlation_id.as_ref().map(CorrelationId::as_str))
            + text(self.causation_id.as_ref().map(CausationId::as_str))
            + text(self.actor.as_ref().map(Actor::as_str))
            + text(self.trace_parent.as_ref().map(TraceParent::as_str))
            + self.extra.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// The same metadata, which takes from `other` what it lacks itself.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn or(self, other: &Self) -> Self {
        let mut extra = other.extra.clone();
        extra.extend(self.extra);
        Self {
            correlation_id: self.correlation_id.or_else(|| other.correlation_id.clone()),
            causation_id: self.causation_id.or_else(|| other.causation_id.clone()),
            actor: self.actor.or_else(|| other.actor.clone()),
            trace_parent: self.trace_parent.or_else(|| other.trace_parent.clone()),
            extra,
        }
    }
}

/// The part of the metadata that has no columns of its own, as stored in the `metadata` column.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMetadata<'a> {
    #[serde(rename = "$actor", default, skip_serializing_if = "Option::is_none")]
    actor: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "$trace", default, skip_serializing_if = "Option::is_none")]
    trace_parent: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "$extra", default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, String>,
}

impl Metadata {
    /// The text for the `metadata` column: a JSON object of the fields without their own column.
    ///
    /// # Errors
    /// [`Invalid`] if an extra name is reserved or the whole is larger than `limit` bytes.
    pub(crate) fn to_json(&self, limit: usize) -> Result<String, Invalid> {
        if self.actor.is_none() && self.trace_parent.is_none() && self.extra.is_empty() {
            return Ok("{}".to_owned());
        }
        for (name, value) in &self.extra {
            check_name("metadata", name)
                .map_err(|e| Invalid::new(format!("metadata.{}", name.escape_debug()), e.problem, e.fix))?;
            if value.contains('\0') {
                return Err(Invalid::new(
                    format!("metadata.{}", name.escape_debug()),
                    "holds the character U+0000, which PostgreSQL cannot store",
                    "remove it",
                ));
            }
        }
        let stored = StoredMetadata {
            actor: self.actor.as_ref().map(|a| a.as_str().into()),
            trace_parent: self.trace_parent.as_ref().map(|t| t.as_str().into()),
            extra: self.extra.clone(),
        };
        let json = serde_json::to_string(&stored)
            .map_err(|e| Invalid::new("metadata", format!("cannot be written: {e}"), "use plain text values"))?;
        if json.len() > limit {
            return Err(Invalid::new(
                "metadata",
                format!("has {} bytes as JSON, the most is {limit}", json.len()),
                "keep large values in the event, or outside and only their address here",
            ));
        }
        Ok(json)
    }

    /// Reads the JSON of [`CheckedEvent::metadata_json`](crate::CheckedEvent::metadata_json) back; for those who implement
    /// a store. The correlation and causation id, which it does not hold, are for the caller to add.
    ///
    /// # Errors
    /// What serde found, and where: it is not such JSON.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        Self::from_stored(json, None, None)
    }

    /// Reads the `metadata` column back, together with its two other columns.
    pub(crate) fn from_stored(
        json: &str,
        correlation_id: Option<Arc<str>>,
        causation_id: Option<Arc<str>>,
    ) -> Result<Self, serde_json::Error> {
        let correlation_id = correlation_id.map(CorrelationId::stored);
        let causation_id = causation_id.map(CausationId::stored);
        if json == "{}" {
            return Ok(Self { correlation_id, causation_id, ..Self::default() });
        }
        let stored: StoredMetadata<'_> = serde_json::from_str(json)?;
        Ok(Self {
            correlation_id,
            causation_id,
            actor: stored.actor.map(|a| Actor::stored((*a).into())),
            trace_parent: stored.trace_parent.map(|t| TraceParent::stored((*t).into())),
            extra: stored.extra,
        })
    }
}
