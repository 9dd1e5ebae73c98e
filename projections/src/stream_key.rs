//! Keys of rows that are named by streams.

use std::any::type_name;
use std::fmt::Display;
use std::str::FromStr;

use annals_eventstore::{Invalid, StreamId, Tenant};

use crate::read_model::{Part, RowKey};

/// A key that the name of a stream gives: that of a row of a [`StreamProjection`](crate::StreamProjection).
///
/// | key | made of |
/// |---|---|
/// | an id: of [`text_id!`](annals_eventstore::text_id), `String`, `Uuid`, an integer, any [`Column`](crate::Column) type with `FromStr` and `Display` | the aggregate id |
/// | `(String, id)` | aggregate type and aggregate id |
/// | `(Tenant, id)` | tenant and aggregate id |
/// | `(Tenant, String, id)` | all three |
///
/// An id that is displayed in another way than it is written in the stream's name is refused: as integers, `7` and `007` are the
/// same, and these are two streams.
///
/// # Obligations on the implementer
/// Two streams that differ in their aggregate ids give different keys, or an error; so do two of different aggregate types if
/// [`StreamKey::HAS_AGGREGATE_TYPE`], and two of different tenants if [`StreamKey::HAS_TENANT`]. The same stream always gives
/// the same key, and [`StreamKey::to_stream`] leads back from it.
#[diagnostic::on_unimplemented(
    message = "no stream names a row whose key is `{Self}`",
    label = "not made of the name of a stream",
    note = "the key of a stream projection's row is an id (a column type with `FromStr` and `Display`), `(String, id)` with the aggregate type, `(Tenant, id)`, or `(Tenant, String, id)`",
    note = "a read model with another key is built by `Projection`, which chooses its rows itself"
)]
pub trait StreamKey: RowKey {
    /// Whether streams of different tenants have different keys. Without it, the rows of a table that is not per tenant are those of
    /// one tenant.
    const HAS_TENANT: bool = false;
    /// Whether streams of different aggregate types have different keys. Without it, the rows are those of one aggregate type.
    const HAS_AGGREGATE_TYPE: bool = false;

    /// The key of the stream's row.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_id` if the id is not one of this type.
    fn of_stream(stream: &StreamId) -> Result<Self, Invalid>;

    /// The stream whose row has this key: of `tenant` and `aggregate_type`, unless they are in the key.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_type` or `aggregate_id` if no stream can have such a name.
    fn to_stream(&self, tenant: &Tenant, aggregate_type: &str) -> Result<StreamId, Invalid>;
}

impl<T: Part + FromStr + Display> StreamKey for T {
    fn of_stream(stream: &StreamId) -> Result<Self, Invalid> {
        id(stream)
    }

    fn to_stream(&self, tenant: &Tenant, aggregate_type: &str) -> Result<StreamId, Invalid> {
        StreamId::new(tenant.clone(), aggregate_type, self.to_string())
    }
}

impl<T: Part + FromStr + Display> StreamKey for (String, T) {
    const HAS_AGGREGATE_TYPE: bool = true;

    fn of_stream(stream: &StreamId) -> Result<Self, Invalid> {
        Ok((stream.aggregate_type().to_owned(), id(stream)?))
    }

    fn to_stream(&self, tenant: &Tenant, _: &str) -> Result<StreamId, Invalid> {
        let (aggregate_type, id) = self;
        StreamId::new(tenant.clone(), aggregate_type, id.to_string())
    }
}

impl<T: Part + FromStr + Display> StreamKey for (Tenant, T) {
    const HAS_TENANT: bool = true;

    fn of_stream(stream: &StreamId) -> Result<Self, Invalid> {
        Ok((stream.tenant().clone(), id(stream)?))
    }

    fn to_stream(&self, _: &Tenant, aggregate_type: &str) -> Result<StreamId, Invalid> {
        let (tenant, id) = self;
        StreamId::new(tenant.clone(), aggregate_type, id.to_string())
    }
}

impl<T: Part + FromStr + Display> StreamKey for (Tenant, String, T) {
    const HAS_TENANT: bool = true;
    const HAS_AGGREGATE_TYPE: bool = true;

    fn of_stream(stream: &StreamId) -> Result<Self, Invalid> {
        Ok((stream.tenant().clone(), stream.aggregate_type().to_owned(), id(stream)?))
    }

    fn to_stream(&self, _: &Tenant, _: &str) -> Result<StreamId, Invalid> {
        let (tenant, aggregate_type, id) = self;
        StreamId::new(tenant.clone(), aggregate_type, id.to_string())
    }
}

/// The aggregate id as a `T`, if no other text is read as the same.
fn id<T: FromStr + Display>(stream: &StreamId) -> Result<T, Invalid> {
    let text = stream.aggregate_id();
    let fix = "make the key a type that reads the id and displays it as it was, `String` say";
    let id: T = text
        .parse()
        .map_err(|_| Invalid::new("aggregate_id", format!("`{text}` is not a {}", type_name::<T>()), fix))?;
    let displayed = id.to_string();
    if displayed == text {
        return Ok(id);
    }
    let problem = format!("`{text}` is read as the {} `{displayed}`, which names another stream", type_name::<T>());
    Err(Invalid::new("aggregate_id", problem, fix))
}
