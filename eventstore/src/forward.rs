//! Wrappers around a store: every method that they do not write themselves is the one of the inner store.

/// The methods of [`EventStore`](crate::EventStore) that a wrapper passes on to the store inside it: all, `except` those
/// that the wrapper writes itself. It stands in the `impl`, which needs `#[async_trait]` only for methods of its own.
///
/// A method that is added to the trait later is passed on too. `append` is not, because the trait defines it by the wrapper's own
/// `append_many`.
///
/// ```
/// use std::sync::Mutex;
///
/// use annals_eventstore::{Append, AppendError, Appended, EventStore, Tenant, forward_event_store};
/// use async_trait::async_trait;
///
/// /// Counts the appends of one tenant.
/// struct Counting<S> {
///     inner: S,
///     tenant: Tenant,
///     appends: Mutex<u64>,
/// }
///
/// #[async_trait]
/// impl<S: EventStore> EventStore for Counting<S> {
///     forward_event_store!(self => self.inner; except append_many);
///
///     async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
///         if *append.tenant() == self.tenant {
///             *self.appends.lock().unwrap() += 1;
///         }
///         self.inner.append_many(append).await
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_event_store {
    ($self:ident => $inner:expr $(; except $($own:ident),+)?) => {
        $crate::forward_event_store! {
            @all $self $inner; [$($($own)+)?]
            incarnation limits ids append_many find_request load_page read_page streams_page head log_as_of check_checkpoint watch close
            snapshots
        }
    };
    (@all $self:ident $inner:expr; $own:tt $($method:ident)+) => {
        $($crate::forward_event_store! { @$method $self $inner; $own })+
    };

    // The wrapper writes it itself.
    (@incarnation $self:ident $inner:expr; [incarnation $($own:ident)*]) => {};
    (@limits $self:ident $inner:expr; [limits $($own:ident)*]) => {};
    (@ids $self:ident $inner:expr; [ids $($own:ident)*]) => {};
    (@append_many $self:ident $inner:expr; [append_many $($own:ident)*]) => {};
    (@find_request $self:ident $inner:expr; [find_request $($own:ident)*]) => {};
    (@load_page $self:ident $inner:expr; [load_page $($own:ident)*]) => {};
    (@read_page $self:ident $inner:expr; [read_page $($own:ident)*]) => {};
    (@streams_page $self:ident $inner:expr; [streams_page $($own:ident)*]) => {};
    (@head $self:ident $inner:expr; [head $($own:ident)*]) => {};
    (@log_as_of $self:ident $inner:expr; [log_as_of $($own:ident)*]) => {};
    (@check_checkpoint $self:ident $inner:expr; [check_checkpoint $($own:ident)*]) => {};
    (@watch $self:ident $inner:expr; [watch $($own:ident)*]) => {};
    (@close $self:ident $inner:expr; [close $($own:ident)*]) => {};
    (@snapshots $self:ident $inner:expr; [snapshots $($own:ident)*]) => {};
    (@$method:ident $self:ident $inner:expr; [$other:ident $($own:ident)*]) => {
        $crate::forward_event_store! { @$method $self $inner; [$($own)*] }
    };

    (@incarnation $self:ident $inner:expr; []) => {
        fn incarnation(&$self) -> $crate::Incarnation { $inner.incarnation() }
    };
    (@limits $self:ident $inner:expr; []) => {
        fn limits(&$self) -> &$crate::Limits { $inner.limits() }
    };
    (@ids $self:ident $inner:expr; []) => {
        fn ids(&$self) -> &dyn $crate::IdSource { $inner.ids() }
    };
    (@watch $self:ident $inner:expr; []) => {
        fn watch(&$self) -> $crate::__private::watch::Receiver<$crate::Position> { $inner.watch() }
    };
    (@snapshots $self:ident $inner:expr; []) => {
        fn snapshots(&$self) -> ::core::option::Option<&dyn $crate::SnapshotStore> { $inner.snapshots() }
    };
    (@append_many $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; append_many () (append: $crate::Append)
                -> ::core::result::Result<$crate::Appended, $crate::AppendError>
        }
    };
    (@find_request $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; find_request ('b 'c) (tenant: &'b $crate::Tenant, request: &'c $crate::RequestKey)
                -> ::core::result::Result<::core::option::Option<$crate::Appended>, $crate::AppendError>
        }
    };
    (@load_page $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; load_page ('b) (stream: &'b $crate::StreamId, after: $crate::StreamVersion, limit: usize)
                -> ::core::result::Result<$crate::StreamPage, $crate::ReadError>
        }
    };
    (@read_page $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; read_page ('b) (after: $crate::After, filter: &'b $crate::Filter, limit: usize)
                -> ::core::result::Result<$crate::Page, $crate::ReadError>
        }
    };
    (@streams_page $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; streams_page ('b 'c)
                (filter: &'b $crate::StreamFilter, after: ::core::option::Option<&'c $crate::StreamId>, limit: usize)
                -> ::core::result::Result<::std::vec::Vec<$crate::StreamInfo>, $crate::ReadError>
        }
    };
    (@head $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; head () ()
                -> ::core::result::Result<$crate::Checkpoint, $crate::ReadError>
        }
    };
    (@log_as_of $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; log_as_of () (as_of: $crate::AsOf)
                -> ::core::result::Result<$crate::Checkpoint, $crate::ReadError>
        }
    };
    (@check_checkpoint $self:ident $inner:expr; []) => {
        $crate::forward_event_store! {
            @async $self $inner; check_checkpoint ('b) (checkpoint: &'b $crate::Checkpoint)
                -> ::core::result::Result<(), $crate::ReadError>
        }
    };
    (@close $self:ident $inner:expr; []) => {
        $crate::forward_event_store! { @async $self $inner; close () () -> () }
    };

    // What `#[async_trait]` makes of an `async fn`; it does not see into macros.
    (@async $self:ident $inner:expr; $method:ident ($($life:lifetime)*) ($($arg:ident: $type:ty),*) -> $output:ty) => {
        fn $method<'a, $($life,)* 'f>(
            &'a $self $(, $arg: $type)*
        ) -> ::core::pin::Pin<::std::boxed::Box<dyn ::core::future::Future<Output = $output> + ::core::marker::Send + 'f>>
        where
            'a: 'f,
            $($life: 'f,)*
            Self: 'f,
        {
            $inner.$method($($arg),*)
        }
    };
}
