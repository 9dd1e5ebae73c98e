//! Commands inside a transaction, against a transaction with scripted interruptions.

use std::convert::Infallible;

use async_trait::async_trait;

use super::account::{Account, Moved, Short};
use super::spy::{Call, Fault, Spy};
use super::{id, opened, other_histories, paid_in, request, rival, stored, version};
use crate::aggregate::IntoEvents;
use crate::append::{Append, Appended};
use crate::error::{AppendError, ErrorFamily, ReadError};
use crate::repository::{CommandScope, ExecuteError, Executed, One, Repository};
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

struct Work(Spy);

#[async_trait]
impl CommandScope for Work {
    const IS_TRANSACTION: bool = true;

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

async fn execute<T: IntoEvents<Moved>, R>(
    spy: &Spy,
    accounts: &Repository<Account>,
    decide: impl Fn(&Account) -> Result<T, R>,
) -> Result<Executed<Account>, ExecuteError<R>> {
    One::new(accounts, &id())?.execute(&mut Work(spy.clone()), decide).await
}

/// The same request commits between the look for its key and the decision, and has taken everything.
#[tokio::test]
async fn a_repeat_that_its_twin_has_overtaken_is_not_rejected_for_what_the_twin_did() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    let twin = rival(ExpectedVersion::Any, &[Moved::Out(100)]).with_request(context.request().unwrap().clone());
    spy.after_next_find(twin);
    let done = execute(&spy, &accounts.with(context), |a| a.withdraw(100)).await.unwrap();
    assert_eq!((done.version, done.events, done.repeated), (version(2), 1, true));
    assert_eq!(stored(&spy).await.len(), 2);
}

#[tokio::test]
async fn a_rejection_without_a_twin_is_returned() {
    let (spy, accounts) = opened().await;
    let error = execute(&spy, &accounts.with(request("r-1", "x")), |a| a.withdraw(101)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(Short { short: 1 }));
}

#[tokio::test]
async fn conflicts_are_decided_again_on_what_is_new_a_bounded_number_of_times() {
    let (spy, accounts) = opened().await;
    spy.next([Fault::Rival(paid_in(1)), Fault::Rival(paid_in(1))]);
    assert_eq!(execute(&spy, &accounts, |a| a.withdraw(102)).await.unwrap_err().rejection(), Some(Short { short: 2 }));
    let done = execute(&spy, &accounts, |a| a.withdraw(100)).await.unwrap();
    assert_eq!(done.version, version(4));
    spy.next((0..3).map(|_| Fault::Rival(paid_in(1))));
    let error = execute(&spy, &accounts.attempts(3), |_| Ok::<_, Infallible>(Moved::In(1))).await.unwrap_err();
    assert_eq!(error.family(), Some(ErrorFamily::Conflict));
}

/// The state that is cached, or was read before the append, is of a history that was lost.
#[tokio::test]
async fn a_command_that_was_decided_on_a_lost_history_is_decided_again() {
    for (history, balance) in other_histories().await {
        let (spy, accounts) = opened().await;
        spy.fail_over(history.clone());
        let error = execute(&spy, &accounts, |a| a.withdraw(60)).await.unwrap_err();
        assert_eq!(error.rejection(), Some(Short { short: 60 - balance }));

        let (spy, accounts) = opened().await;
        spy.next([Fault::FailOver(history)]);
        let error = execute(&spy, &accounts, |a| a.withdraw(60)).await.unwrap_err();
        assert_eq!(error.rejection(), Some(Short { short: 60 - balance }));
        // The cached state was removed: the next command does not begin with it.
        spy.calls();
        accounts.execute(&id(), |_| Ok::<_, Infallible>(Moved::In(1))).await.unwrap();
        assert_eq!(spy.calls().iter().filter(|call| **call == Call::Append).count(), 1);
    }
}
