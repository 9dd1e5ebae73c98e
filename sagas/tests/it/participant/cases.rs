//! What comes twice, late, first or at once.

use annals_eventstore::Context;
use annals_sagas::LocalCommand;
use annals_sagas::participant::ParticipantError;
use futures::future::join_all;
use futures::join;
use tokio::sync::Semaphore;

use super::*;

/// Each case on each store.
macro_rules! on_every_store {
    ($($case:ident,)+) => {
        on_every_store!(memory on_memory $($case)+);
        on_every_store!(sqlite on_sqlite $($case)+);
        on_every_store!(postgres on_postgres $($case)+);
    };
    ($store:ident $open:ident $($case:ident)+) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::Two::$open().await).await;
                }
            )+
        }
    };
}

on_every_store! {
    a_step_is_done_once_and_undone_once,
    an_undo_that_comes_first_leaves_one_tombstone_and_blocks_a_late_do,
    an_effect_whose_transaction_failed_is_undone,
    many_undos_at_once_succeed_and_leave_one_tombstone,
    many_undos_and_a_do_at_once_leave_no_effect,
    of_two_copies_in_the_same_moment_one_has_the_effect,
    a_refusal_is_final_and_is_the_answer_to_repeats,
    another_request_under_the_key_is_refused_and_another_tenant_has_keys_of_its_own,
}

async fn a_step_is_done_once_and_undone_once(two: Two) {
    let ([one, other], provider) = (two.participants(), Provider::default());
    let charge = async |call| Ok(provider.charge(&call));
    let refund = async |call: StepCall, receipt: Option<u32>| {
        assert_eq!((call.key().as_str(), receipt), ("checkout-1/charge/undo", Some(17)));
        provider.refund(&call);
        Ok(())
    };
    assert_eq!(one.do_remote(&step("1"), "request", charge).await.unwrap(), 17);
    assert_eq!(other.do_remote(&step("1"), "request", charge).await.unwrap(), 17);
    other.undo_remote(&step("1"), refund).await.unwrap();
    one.undo_remote(&step("1"), refund).await.unwrap();
    assert_eq!(provider.counted(), (0, 1, 1));
    let late = one.do_remote(&step("1"), "request", charge).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Undone { .. }));

    for participant in [&one, &other] {
        // The state after the events of the first call, also for the second one.
        assert_eq!(participant.do_local(&step("2"), "request", two.pay_in()).await.unwrap(), 1);
        one.do_local(&step("3"), "request", two.pay_in()).await.unwrap();
    }
    assert_eq!(two.till().await, Till { coins: 2, paid_in: 2 });
    for participant in [&other, &one] {
        participant.undo_local(&step("2"), two.pay_out()).await.unwrap();
    }
    assert_eq!(two.till().await, Till { coins: 1, paid_in: 2 });
    assert_eq!(two.recorded(&step("2")).await, ["participant.done", "participant.undone"]);
}

async fn an_undo_that_comes_first_leaves_one_tombstone_and_blocks_a_late_do(two: Two) {
    let ([one, other], provider) = (two.participants(), Provider::default());
    let charge = async |call| Ok(provider.charge(&call));
    let refund = async |call: StepCall, _: Option<u32>| {
        provider.refund(&call);
        Ok(())
    };
    one.undo_remote(&step("1"), refund).await.unwrap();
    other.undo_remote(&step("1"), refund).await.unwrap();
    for participant in [&one, &other] {
        assert!(is_refused(participant.do_remote(&step("1"), "request", charge).await.unwrap_err()));
    }
    one.undo_remote(&step("1"), refund).await.unwrap();
    assert_eq!(provider.counted(), (0, 0, 0));

    one.undo_local(&step("2"), two.pay_out()).await.unwrap();
    other.undo_local(&step("2"), two.pay_out()).await.unwrap();
    for participant in [&other, &one] {
        assert!(is_refused(participant.do_local(&step("2"), "request", two.pay_in()).await.unwrap_err()));
    }
    one.undo_local(&step("2"), two.pay_out()).await.unwrap();
    assert_eq!(two.till().await, Till::default());
    for step in [step("1"), step("2")] {
        assert_eq!(two.recorded(&step).await, ["participant.undone"]);
    }
}

/// The money was taken, then the transaction of the do failed, and the undo found no row to undo: the customer paid for nothing.
async fn an_effect_whose_transaction_failed_is_undone(two: Two) {
    let [one, other] = two.participants();
    for (name, error) in [
        ("1", StepError::unknown("a constraint failed")),
        ("2", StepError::transient("a constraint failed")),
        ("3", StepError::refused("a constraint failed")),
    ] {
        let provider = Provider::default();
        let charge = async |call| {
            provider.charge(&call);
            Err::<u32, _>(error.clone())
        };
        let refund = async |call: StepCall, receipt: Option<u32>| {
            assert_eq!(receipt, None);
            provider.refund(&call);
            Ok(())
        };
        assert_eq!(StepError::from(one.do_remote(&step(name), "request", charge).await.unwrap_err()), error);
        other.undo_remote(&step(name), refund).await.unwrap();
        one.undo_remote(&step(name), refund).await.unwrap();
        assert!(is_refused(other.do_remote(&step(name), "request", charge).await.unwrap_err()));
        assert_eq!(provider.counted(), (0, 1, 1), "{error}");
    }
}

async fn many_undos_at_once_succeed_and_leave_one_tombstone(two: Two) {
    let participants = two.participants();
    for round in 0..5 {
        let (local, remote) = (step(&format!("local-{round}")), step(&format!("remote-{round}")));
        let undos = (0..8).map(|number: usize| {
            let (participant, local, remote) = (&participants[number % 2], &local, &remote);
            let command = two.pay_out();
            async move {
                participant.undo_local(local, command).await.unwrap();
                participant.undo_remote(remote, async |_, _: Option<()>| unreachable!()).await.unwrap();
            }
        });
        join_all(undos).await;
        for step in [local, remote] {
            assert_eq!(two.recorded(&step).await, ["participant.undone"]);
        }
    }
    assert_eq!(two.till().await, Till::default());
}

/// Sends a call again while another is in flight, as the engine does.
async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, ParticipantError>) -> Result<T, ParticipantError> {
    loop {
        match call().await {
            Err(error @ ParticipantError::InFlight { .. }) => {
                assert!(matches!(StepError::from(error), StepError::Transient { retry_after: Some(_), .. }));
                tokio::task::yield_now().await;
            }
            ended => return ended,
        }
    }
}

async fn many_undos_and_a_do_at_once_leave_no_effect(two: Two) {
    let participants = two.participants();
    for round in 0..5 {
        let provider = Provider::default();
        let (local, remote) = (step(&format!("local-{round}")), step(&format!("remote-{round}")));
        let calls = (0..9).map(|number: usize| {
            let (participant, local, remote) = (&participants[number % 2], &local, &remote);
            let (two, provider) = (&two, provider.clone());
            async move {
                if number == 4 {
                    let done = again(async || participant.do_local(local, "request", two.pay_in()).await).await;
                    assert!(done.is_ok_and(|coins| coins == 1) || two.till().await.coins == 0);
                    let charge = async |call: StepCall| {
                        tokio::task::yield_now().await;
                        Ok(provider.charge(&call))
                    };
                    let done = again(async || participant.do_remote(remote, "request", charge).await).await;
                    assert!(done.is_ok_and(|receipt| receipt == 17) || provider.counted().1 == 0);
                } else {
                    participant.undo_local(local, two.pay_out()).await.unwrap();
                    let refund = async |call: StepCall, receipt: Option<u32>| {
                        assert_eq!(receipt, Some(17));
                        provider.refund(&call);
                        Ok(())
                    };
                    again(async || participant.undo_remote(remote, refund).await).await.unwrap();
                }
            }
        });
        join_all(calls).await;
        let (effects, charges, refunds) = provider.counted();
        assert!(effects == 0 && charges == refunds && charges <= 1, "{:?}", provider.counted());
        assert_eq!(two.till().await.coins, 0);
    }
}

async fn of_two_copies_in_the_same_moment_one_has_the_effect(two: Two) {
    let ([one, other], provider) = (two.participants(), Provider::default());
    let step = step("1");
    let (begun, gate) = (Semaphore::new(0), Semaphore::new(0));
    let charge = async |call: StepCall| {
        begun.add_permits(1);
        gate.acquire().await.unwrap().forget();
        Ok(provider.charge(&call))
    };
    let first = one.do_remote(&step, "request", charge);
    let second = async {
        begun.acquire().await.unwrap().forget();
        two.clock.advance(Duration::from_secs(4));
        let in_flight = other.do_remote(&step, "request", charge).await.unwrap_err();
        // The longer it takes, the longer the wait.
        assert_eq!(in_flight.retry_after(), Some(Duration::from_secs(4)));
        let undo = other.undo_remote(&step, async |_, _: Option<u32>| unreachable!()).await.unwrap_err();
        assert!(matches!(undo, ParticipantError::InFlight { .. }) && undo.is_transient());
        gate.add_permits(1);
        again(async || other.do_remote(&step, "request", charge).await).await
    };
    let (first, second) = join!(first, second);
    assert_eq!((first.unwrap(), second.unwrap(), provider.counted().1), (17, 17, 1));
}

async fn a_refusal_is_final_and_is_the_answer_to_repeats(two: Two) {
    let [one, other] = two.participants();
    for number in 0..3 {
        one.do_local(&step(&format!("fills-{number}")), "request", two.pay_in()).await.unwrap();
    }
    let refused = one.do_local(&step("1"), "request", two.pay_in()).await.unwrap_err();
    assert_eq!(StepError::from(refused), StepError::refused("the till is full"));
    one.undo_local(&step("fills-0"), two.pay_out()).await.unwrap();
    // There is room by now, but the saga has gone on.
    let refused = other.do_local(&step("1"), "request", two.pay_in()).await.unwrap_err();
    assert_eq!(StepError::from(refused), StepError::refused("the till is full"));
    other.undo_local(&step("1"), two.pay_out()).await.unwrap();
    assert_eq!(two.till().await.coins, 2, "nothing was done, so nothing is undone");

    let declined = async |_| Err::<u32, _>(StepError::refused("no cover"));
    for participant in [&one, &other] {
        let refused = participant.do_remote(&step("2"), "request", declined).await.unwrap_err();
        assert_eq!(StepError::from(refused), StepError::refused("no cover"));
    }
    assert_eq!(two.recorded(&step("2")).await, ["participant.do_begun", "participant.do_refused"]);

    // An undo that is refused may be sent again.
    for number in 1..3 {
        one.undo_local(&step(&format!("fills-{number}")), two.pay_out()).await.unwrap();
    }
    one.do_local(&step("3"), "request", two.pay_in()).await.unwrap();
    let takes: LocalCommand = two.pay_out();
    one.do_local(&step("4"), "request", takes).await.unwrap();
    assert_eq!(two.till().await.coins, 0);
    let refused = one.undo_local(&step("3"), two.pay_out()).await.unwrap_err();
    assert_eq!(StepError::from(refused), StepError::refused("the till is empty"));
    one.undo_local(&step("4"), two.pay_in()).await.unwrap();
    other.undo_local(&step("3"), two.pay_out()).await.unwrap();
    assert_eq!(two.till().await.coins, 0);
}

async fn another_request_under_the_key_is_refused_and_another_tenant_has_keys_of_its_own(two: Two) {
    let ([one, _], provider) = (two.participants(), Provider::default());
    let charge = async |call| Ok(provider.charge(&call));
    let request = |json: &str| -> serde_json::Value { serde_json::from_str(json).unwrap() };
    one.do_remote(&step("1"), &request(r#"{"card":"c","cents":1}"#), charge).await.unwrap();
    one.do_remote(&step("1"), &request(r#"{ "cents": 1, "card": "c" }"#), charge).await.unwrap();
    let refused = one.do_remote(&step("1"), &request(r#"{"card":"c","cents":2}"#), charge).await.unwrap_err();
    assert!(matches!(refused, ParticipantError::OtherRequest { .. }) && is_refused(refused));
    assert_eq!(provider.counted().1, 1);

    let north = one.with(Context::of(Tenant::new("north").unwrap()));
    north.do_remote(&step("1"), "request", charge).await.unwrap();
    assert_eq!(provider.counted().1, 2);
    north.undo_local(&step("2"), two.pay_out()).await.unwrap();
    one.do_local(&step("2"), "request", two.pay_in()).await.unwrap();
    assert_eq!(two.recorded(&step("2")).await, ["participant.done"]);
}
