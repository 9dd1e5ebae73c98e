//! Filters: which events and streams a read returns.

use crate::error::Invalid;
use crate::event::Event;
use crate::metadata::CorrelationId;
use crate::name::check_name;
use crate::stream::{StreamId, Tenant};

/// Which events of the log a read returns; by default all of them.
///
/// Conditions are joined by *and*; several names, or several aggregate types, are joined by *or*. A second tenant or
/// correlation takes the place of the first.
///
/// Names are stored names, compared as they are stored. So `order.placed` does not find an event that was stored as
/// `order.created`, although an upcaster reads it as `order.placed`, and a name that is only read for old events finds only these.
/// A reader of an event type takes [`Filter::of`], which has both names.
///
/// ```
/// use annals_eventstore::{Filter, Tenant};
///
/// // What was placed or paid in the north.
/// let filter = Filter::all().tenant(Tenant::new("north")?).event_name("order.placed")?.event_name("order.paid")?;
/// assert!(!filter.is_all());
/// assert_eq!(Filter::all().event_name("").unwrap_err().field, "event_type");
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub(crate) tenant: Option<Tenant>,
    pub(crate) aggregate_types: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) correlation_id: Option<CorrelationId>,
}

impl Filter {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Every event that `E` reads: those with the stored names of [`Event::READS`], so also events that were stored under a
    /// name which it no longer writes.
    ///
    /// # Errors
    /// [`Invalid`] with the field `event_type` if no event could have one of the names, or if there are none, as for a type
    /// that no derive has checked.
    pub fn of<E: Event>() -> Result<Self, Invalid> {
        if E::READS.is_empty() {
            let what = format!("`{}` reads no events", std::any::type_name::<E>());
            return Err(Invalid::new("event_type", what, "use `Filter::all()` for every event"));
        }
        let mut filter = Self::default();
        for shape in E::READS {
            if !filter.names.iter().any(|name| name == shape.name) {
                filter = filter.event_name(shape.name)?;
            }
        }
        Ok(filter)
    }

    /// Only events of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Only events of this aggregate type, or of those named before.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_type` if no stream could have it.
    pub fn aggregate_type(mut self, aggregate_type: impl Into<String>) -> Result<Self, Invalid> {
        let aggregate_type = aggregate_type.into();
        check_name("aggregate_type", &aggregate_type)?;
        self.aggregate_types.push(aggregate_type);
        Ok(self)
    }

    /// Only events with this stored name, or those named before.
    ///
    /// # Errors
    /// [`Invalid`] with the field `event_type` if no event could have it.
    pub fn event_name(mut self, name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        check_name("event_type", &name)?;
        self.names.push(name);
        Ok(self)
    }

    /// Only events with this correlation id. On the SQL stores an index finds them, however long the log is.
    #[must_use]
    pub fn correlation(mut self, correlation_id: CorrelationId) -> Self {
        self.correlation_id = Some(correlation_id);
        self
    }

    /// Its conditions, one by one; for those who implement a store whose engine can evaluate them.
    #[must_use]
    pub fn conditions(&self) -> FilterConditions<'_> {
        FilterConditions {
            tenant: self.tenant.as_ref(),
            aggregate_types: &self.aggregate_types,
            event_names: &self.names,
            correlation_id: self.correlation_id.as_ref(),
        }
    }

    /// Whether every event matches, as there is no condition.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every event of its correlation matches.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn is_correlation_only(&self) -> bool {
        self.tenant.is_none() && self.aggregate_types.is_empty() && self.names.is_empty()
    }

    /// Whether `event` matches. This defines the filter; stores may evaluate it in another way.
    #[must_use]
    pub fn matches(&self, event: &crate::event::RecordedEvent) -> bool {
        self.tenant.as_ref().is_none_or(|t| t == event.stream.tenant())
            && (self.aggregate_types.is_empty()
                || self.aggregate_types.iter().any(|t| t == event.stream.aggregate_type()))
            && (self.names.is_empty() || self.names.iter().any(|n| **n == *event.name))
            && (self.correlation_id.is_none() || self.correlation_id == event.metadata.correlation_id)
    }
}

/// The conditions of a [`Filter`]: an event matches if it meets all of them.
///
/// A version of annals with one more condition is a breaking change. Destructure the value without `..`, so that the
/// compiler reports it; a store that ignores a condition returns events that do not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterConditions<'a> {
    /// Events of this tenant; of all if there is none.
    pub tenant: Option<&'a Tenant>,
    /// Events of one of these aggregate types; of all if there are none.
    pub aggregate_types: &'a [String],
    /// Events with one of these stored names; with any if there are none.
    pub event_names: &'a [String],
    /// Events with this correlation id; with any or none if it is `None`.
    pub correlation_id: Option<&'a CorrelationId>,
}

/// Which streams a listing returns; by default all of them. Both conditions must hold; a second tenant or type
/// replaces the first.
///
/// ```
/// use annals_eventstore::{StreamFilter, StreamId, Tenant};
///
/// let orders = StreamFilter::all().aggregate_type("order")?;
/// assert!(orders.matches(&StreamId::new(Tenant::default(), "order", "o-17")?));
/// assert!(!orders.matches(&StreamId::new(Tenant::default(), "customer", "c-4")?));
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    pub(crate) tenant: Option<Tenant>,
    pub(crate) aggregate_type: Option<String>,
}

impl StreamFilter {
    /// Every stream.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only streams of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Only streams of this aggregate type.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_type` if no stream could have it.
    pub fn aggregate_type(mut self, aggregate_type: impl Into<String>) -> Result<Self, Invalid> {
        let aggregate_type = aggregate_type.into();
        check_name("aggregate_type", &aggregate_type)?;
        self.aggregate_type = Some(aggregate_type);
        Ok(self)
    }

    /// The tenant and the aggregate type of its conditions; for those who implement a store whose engine can evaluate them.
    #[must_use]
    pub fn conditions(&self) -> (Option<&Tenant>, Option<&str>) {
        (self.tenant.as_ref(), self.aggregate_type.as_deref())
    }

    /// Whether `stream` matches. This defines the filter; stores may evaluate it in another way.
    #[must_use]
    pub fn matches(&self, stream: &StreamId) -> bool {
        self.tenant.as_ref().is_none_or(|t| t == stream.tenant())
            && self.aggregate_type.as_ref().is_none_or(|t| t == stream.aggregate_type())
    }
}
