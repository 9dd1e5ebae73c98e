//! A saga whose type of data is hidden from the runner.

use std::any::{Any, TypeId, type_name};

use annals_eventstore::{Actor, Tenant, TraceParent};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::control::Control;
use crate::definition::SagaData;
use crate::engine::{Engine, InstanceAtVersion, SagaStatus};
use crate::error::SagaError;
use crate::event::{Intervention, SagaEvent};
use crate::instance::{Instance, SagaId};
use crate::person::By;

/// The request that something is recorded for: its trace, and whose it is, as far as that is known.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    pub(crate) trace: Option<TraceParent>,
    pub(crate) actor: Option<Actor>,
}

type Done<'a, T> = BoxFuture<'a, Result<T, SagaError>>;

/// An instance: its tenant and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) tenant: Tenant,
    pub(crate) id: SagaId,
}

pub(crate) trait AnySaga: Send + Sync {
    fn name(&self) -> &str;

    /// The type of its data, and what that is called.
    fn data_type(&self) -> (TypeId, &'static str);

    fn start<'a>(&'a self, key: &'a Key, data: Value, from: Origin) -> Done<'a, ()>;

    fn run<'a>(&'a self, key: &'a Key, control: &'a Control) -> Done<'a, SagaStatus>;

    fn signal<'a>(&'a self, key: &'a Key, step: &'a str, payload: Value, from: Origin) -> Done<'a, ()>;

    fn intervene<'a>(&'a self, key: &'a Key, what: Intervention, by: &'a By, from: Origin) -> Done<'a, ()>;

    fn preview<'a>(&'a self, key: &'a Key, what: Intervention, by: &'a By) -> Done<'a, Vec<SagaEvent>>;

    /// Puts the data of an instance into `data`, if that is an `Option` of its type.
    fn data<'a>(&'a self, key: &'a Key, data: &'a mut (dyn Any + Send)) -> Done<'a, ()>;

    fn status(&self, instance: &InstanceAtVersion) -> SagaStatus;

    /// Why an instance cannot go on in this build.
    fn mismatch(&self, instance: &Instance) -> Option<String>;
}

impl<C: SagaData> Engine<C> {
    fn of_request(&self, key: &Key, from: Origin) -> Self {
        self.of(&key.tenant).in_trace(from.trace).with_actor(from.actor)
    }
}

impl<C: SagaData> AnySaga for Engine<C> {
    fn name(&self) -> &str {
        self.definition().name()
    }

    fn data_type(&self) -> (TypeId, &'static str) {
        (TypeId::of::<C>(), type_name::<C>())
    }

    fn start<'a>(&'a self, key: &'a Key, data: Value, from: Origin) -> Done<'a, ()> {
        async move { self.of_request(key, from).start_with(&key.id, data).await }.boxed()
    }

    fn run<'a>(&'a self, key: &'a Key, control: &'a Control) -> Done<'a, SagaStatus> {
        async move { self.of(&key.tenant).run_until(&key.id, control).await }.boxed()
    }

    fn signal<'a>(&'a self, key: &'a Key, step: &'a str, payload: Value, from: Origin) -> Done<'a, ()> {
        async move { self.of_request(key, from).signal(&key.id, step, payload).await }.boxed()
    }

    fn intervene<'a>(&'a self, key: &'a Key, what: Intervention, by: &'a By, from: Origin) -> Done<'a, ()> {
        async move { self.of_request(key, from).intervene(&key.id, what, by).await }.boxed()
    }

    fn preview<'a>(&'a self, key: &'a Key, what: Intervention, by: &'a By) -> Done<'a, Vec<SagaEvent>> {
        async move { self.of(&key.tenant).preview(&key.id, what, by).await }.boxed()
    }

    fn data<'a>(&'a self, key: &'a Key, data: &'a mut (dyn Any + Send)) -> Done<'a, ()> {
        async move {
            if let Some(data) = data.downcast_mut::<Option<C>>() {
                *data = Some(self.of(&key.tenant).data(&key.id).await?);
            }
            Ok(())
        }
        .boxed()
    }

    fn status(&self, instance: &InstanceAtVersion) -> SagaStatus {
        self.status_of(instance)
    }

    fn mismatch(&self, instance: &Instance) -> Option<String> {
        self.definition().unfit(instance)
    }
}
