//! Where a command reads, decides and appends: the store itself, or a transaction on it.

use async_trait::async_trait;

use crate::append::{Append, Appended};
use crate::error::{AppendError, ReadError};
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// What a command needs of the place where it is executed.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(unreachable_pub, reason = "it seals `UnitOfWork`, which is public with an engine only")
)]
#[async_trait]
pub trait CommandScope: Send {
    /// Whether appends may still be rolled back. Then they are not cached, and not repeated after an unknown outcome.
    const IS_TRANSACTION: bool;

    /// The events of the stream after a version, as the scope sees them.
    async fn load_page(
        &mut self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError>;

    /// The stored answer to a request, of this scope or an earlier one.
    async fn find_request(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError>;

    /// Appends; a conflict leaves the scope usable.
    async fn append_once(&mut self, append: Append) -> Result<Appended, AppendError>;
}

/// The store itself.
pub(super) struct Direct<'s>(pub(super) &'s dyn EventStore);

#[async_trait]
impl CommandScope for Direct<'_> {
    const IS_TRANSACTION: bool = false;

    async fn load_page(
        &mut self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        self.0.load_page(stream, after, limit).await
    }

    async fn find_request(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.0.find_request(tenant, request).await
    }

    async fn append_once(&mut self, append: Append) -> Result<Appended, AppendError> {
        self.0.append_many(append).await
    }
}
