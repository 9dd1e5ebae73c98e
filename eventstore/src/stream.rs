//! Streams: whose history it is, how long it is, and what a writer requires of it.

use std::fmt;
use std::sync::Arc;

use crate::event::{EventId, RecordedEvent};
use crate::invalid::Invalid;
use crate::name::check_name;

/// The tenant a stream belongs to; names of one tenant never meet those of another.
///
/// Text of 1 to 200 bytes without control characters, not beginning with `$` or `__`, compared byte for byte.
/// Applications with one tenant use [`Tenant::default`], which is called `default`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Checks `name` and makes a tenant of it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `tenant` if the name breaks the rule above.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
        check_name("tenant", name.as_ref())?;
        Ok(Self(name.as_ref().into()))
    }

    /// The tenant's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name read from a store; it was checked when it was written.
    pub(crate) fn stored(name: Arc<str>) -> Self {
        Self(name)
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({:?})", &*self.0)
    }
}

/// The name of one stream: tenant, aggregate type and aggregate id.
///
/// Each part is text of 1 to 200 bytes without control characters, not beginning with `$` or `__`, compared byte for
/// byte: `007` and `7`, `A` and `a`, composed and decomposed accents are different streams. Cloning is cheap.
///
/// It is displayed as `tenant/type/id`. As the parts may contain slashes, that cannot be parsed.
///
/// ```
/// use annals_eventstore::{StreamId, Tenant};
///
/// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
/// assert_eq!(stream.to_string(), "default/order/o-17");
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    tenant: Tenant,
    aggregate_type: Arc<str>,
    aggregate_id: Arc<str>,
}

impl StreamId {
    /// Checks the parts and makes a stream name of them.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_type` or `aggregate_id` if a part breaks the rule above.
    pub fn new(
        tenant: Tenant,
        aggregate_type: impl AsRef<str>,
        aggregate_id: impl AsRef<str>,
    ) -> Result<Self, Invalid> {
        check_name("aggregate_type", aggregate_type.as_ref())?;
        check_name("aggregate_id", aggregate_id.as_ref())?;
        Ok(Self { tenant, aggregate_type: aggregate_type.as_ref().into(), aggregate_id: aggregate_id.as_ref().into() })
    }

    /// A name read from a store; it was checked when it was written.
    pub(crate) fn stored(tenant: Tenant, aggregate_type: Arc<str>, aggregate_id: Arc<str>) -> Self {
        Self { tenant, aggregate_type, aggregate_id }
    }

    /// The three parts, to be bound without copying.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn parts(&self) -> (Arc<str>, Arc<str>, Arc<str>) {
        (Arc::clone(&self.tenant.0), Arc::clone(&self.aggregate_type), Arc::clone(&self.aggregate_id))
    }

    /// Whose stream it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The type of its aggregate.
    #[must_use]
    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    /// The id of its aggregate.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.aggregate_type, self.aggregate_id)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

/// How many events a stream has, which is also the version of its last event.
///
/// The first event has version 1; [`StreamVersion::NONE`] (0) means that there is no stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamVersion(i64);

impl StreamVersion {
    /// No stream: zero events.
    pub const NONE: Self = Self(0);

    /// Checks `version` (0 or more) and makes a stream version of it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `version` if it is negative.
    pub fn new(version: i64) -> Result<Self, Invalid> {
        if version < 0 {
            return Err(Invalid::new(
                "version",
                format!("is {version}, but versions count events"),
                "use 0 for a stream that does not exist, 1 for its first event",
            ));
        }
        Ok(Self(version))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The version after `events` more events; `None` when the stream would be full.
    ///
    /// ```
    /// # use annals_eventstore::StreamVersion;
    /// let last_but_one = StreamVersion::new(i64::MAX - 1)?;
    /// assert_eq!(last_but_one.plus(1), Some(StreamVersion::new(i64::MAX)?));
    /// assert_eq!(last_but_one.plus(2), None);
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    #[must_use]
    pub fn plus(self, events: usize) -> Option<Self> {
        i64::try_from(events).ok().and_then(|n| self.0.checked_add(n)).map(Self)
    }

    /// A number that a store has returned or counted; never negative.
    pub(crate) fn stored(version: i64) -> Self {
        debug_assert!(version >= 0, "stores count versions from 1");
        Self(version)
    }
}

impl fmt::Display for StreamVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}", self.0)
    }
}

/// What a writer requires of a stream at the moment of the append.
///
/// There is no default on purpose: a writer that accepts any version passes [`ExpectedVersion::Any`], and one that only adds to
/// what others have begun passes [`ExpectedVersion::StreamExists`]. One that has read the stream
/// passes [`ExpectedVersion::LastEvent`], which also holds after a failover or a restore: there the stream may be as long
/// as before, with other events. `ExpectedVersion::from` creates it from the last event that was read, and
/// [`Loaded::expected`](crate::Loaded::expected) of a loaded aggregate.
///
/// ```
/// use annals_eventstore::{EventId, ExpectedVersion, IdSource, StreamVersion, TimeOrderedIds};
///
/// let (version, event_id) = (StreamVersion::new(3)?, EventId::new(TimeOrderedIds.next_id())?);
/// let expected = ExpectedVersion::LastEvent { version, event_id };
/// assert!(expected.holds(version, Some(event_id)));
/// let other = EventId::new(TimeOrderedIds.next_id())?;
/// assert!(!expected.holds(version, Some(other)));
/// assert!(ExpectedVersion::Exact(version).holds(version, Some(other)));
/// assert!(ExpectedVersion::NoStream.holds(StreamVersion::NONE, None));
/// assert!(ExpectedVersion::StreamExists.holds(version, Some(other)));
/// assert!(!ExpectedVersion::StreamExists.holds(StreamVersion::NONE, None));
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// The stream must not exist; the same as `Exact` of version 0.
    NoStream,
    /// The stream must be exactly at this version. One beyond its end is a conflict like any other.
    Exact(StreamVersion),
    /// The stream must be exactly at this version, and its last event must be this one.
    LastEvent {
        /// The version of the last event.
        version: StreamVersion,
        /// Its id.
        event_id: EventId,
    },
    /// The events are appended whatever the stream's version is; they begin it if there is none.
    Any,
    /// The stream must have at least one event; which version it is at does not matter.
    StreamExists,
}

impl ExpectedVersion {
    /// Whether a stream at `actual`, whose last event is `last_event`, is as required.
    #[must_use]
    pub fn holds(self, actual: StreamVersion, last_event: Option<EventId>) -> bool {
        let at_version = match self {
            Self::StreamExists => actual > StreamVersion::NONE,
            _ => self.version().is_none_or(|version| version == actual),
        };
        at_version && self.last_event().is_none_or(|event_id| last_event == Some(event_id))
    }

    /// The stream must end as it did when it was read.
    pub(crate) fn end(version: StreamVersion, last_event: Option<EventId>) -> Self {
        match last_event {
            Some(event_id) => Self::LastEvent { version, event_id },
            None => Self::Exact(version),
        }
    }

    /// The version that the stream must have; `None` for any, also if the stream must exist.
    #[must_use]
    pub fn version(self) -> Option<StreamVersion> {
        match self {
            Self::NoStream => Some(StreamVersion::NONE),
            Self::Exact(version) | Self::LastEvent { version, .. } => Some(version),
            Self::Any | Self::StreamExists => None,
        }
    }

    /// The id that the stream's last event must have; `None` for any.
    #[must_use]
    pub fn last_event(self) -> Option<EventId> {
        match self {
            Self::LastEvent { event_id, .. } => Some(event_id),
            Self::NoStream | Self::Exact(_) | Self::Any | Self::StreamExists => None,
        }
    }
}

/// The stream must end with this event.
impl From<&RecordedEvent> for ExpectedVersion {
    fn from(last: &RecordedEvent) -> Self {
        Self::LastEvent { version: last.version, event_id: last.event_id }
    }
}

impl From<StreamVersion> for ExpectedVersion {
    fn from(version: StreamVersion) -> Self {
        Self::Exact(version)
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStream => f.write_str("no stream"),
            Self::Exact(version) => version.fmt(f),
            Self::LastEvent { version, event_id } => write!(f, "{version} with event `{event_id}`"),
            Self::Any => f.write_str("any version"),
            Self::StreamExists => f.write_str("a stream with events"),
        }
    }
}
