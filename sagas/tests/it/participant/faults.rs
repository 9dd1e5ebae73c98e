//! The store fails, and effects take too long.

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_sagas::participant::ParticipantError;

use super::*;

/// Calls until it succeeds, as a saga does: a failure is never final.
async fn persist<T>(clock: &ManualClock, mut call: impl AsyncFnMut() -> Result<T, ParticipantError>) -> T {
    for _ in 0..5 {
        match call().await {
            Ok(value) => return value,
            Err(error) => assert!(!is_refused(error)),
        }
        clock.advance(Duration::from_secs(31));
    }
    panic!("it does not end");
}

#[tokio::test(start_paused = true)]
async fn whichever_call_of_the_store_fails_a_step_is_done_once_and_undone_once() {
    for fault in [Fault::Before, Fault::After] {
        for failing in 1.. {
            let store = FaultyStore::new(MemoryStore::new());
            store.fail_call(failing, fault);
            let two = Two::new(Arc::new(store.clone()), Arc::new(store.inner().clone()), ());
            let ([participant, _], provider) = (two.participants(), Provider::default());

            let local = async || participant.do_local(&step("1"), "request", two.pay_in()).await;
            assert_eq!(persist(&two.clock, local).await, 1);
            assert_eq!(two.till().await, Till { coins: 1, paid_in: 1 }, "{fault:?} {failing}");
            persist(&two.clock, async || participant.undo_local(&step("1"), two.pay_out()).await).await;
            assert_eq!(two.till().await, Till { coins: 0, paid_in: 1 }, "{fault:?} {failing}");

            let charge = async |call| Ok(provider.charge(&call));
            let remote = async || participant.do_remote(&step("2"), "request", charge).await;
            assert_eq!(persist(&two.clock, remote).await, 17);
            assert_eq!(provider.counted().0, 1, "{fault:?} {failing}");
            let refund = async |call: StepCall, receipt: Option<u32>| {
                assert_eq!(receipt, Some(17));
                provider.refund(&call);
                Ok(())
            };
            persist(&two.clock, async || participant.undo_remote(&step("2"), refund).await).await;
            assert_eq!(provider.counted().0, 0, "{fault:?} {failing}");
            if store.calls() < failing {
                assert!(failing > 8, "it makes more calls than that");
                break;
            }
        }
    }
}

/// The money was taken, but the store did not record it, so the saga was told that nothing had happened, and did not undo it.
#[tokio::test(start_paused = true)]
async fn an_effect_whose_answer_is_not_recorded_is_of_unknown_outcome() {
    let store = FaultyStore::new(MemoryStore::new());
    let two = Two::new(Arc::new(store.clone()), Arc::new(store.clone()), ());
    let [participant, _] = two.participants();
    for (name, result) in [("1", Ok(17)), ("2", Err(StepError::refused("no cover")))] {
        let effect = async |_| {
            store.fail_next(20, Fault::Before);
            result.clone()
        };
        let error = participant.do_remote(&step(name), "request", effect).await.unwrap_err();
        assert!(matches!(error, ParticipantError::Unknown { .. }), "{error}");
        // The planned failures end.
        while store.head().await.is_err() {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_takes_too_long_is_dropped_and_may_be_made_again() {
    let two = Two::on_memory().await;
    let [participant, _] = two.participants();
    let participant = participant.effects_within(Duration::from_secs(5));
    let slow = async |call: StepCall| {
        assert_eq!(call.deadline().left(), Some(Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(17)
    };
    let late = participant.do_remote(&step("1"), "request", slow).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Unknown { .. }), "{late}");
    assert_eq!(participant.do_remote(&step("1"), "request", async |_| Ok(17)).await.unwrap(), 17);
    let undo = async |_, _: Option<u32>| {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(())
    };
    let late = participant.undo_remote(&step("1"), undo).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Unknown { .. }), "{late}");
    // An undo was begun, so the step is not done any more.
    assert!(is_refused(participant.do_remote(&step("1"), "request", async |_| Ok(17)).await.unwrap_err()));
    participant.undo_remote(&step("1"), async |_, _: Option<u32>| Ok(())).await.unwrap();

    let sooner =
        annals_eventstore::Context::default().with_deadline(tokio::time::Instant::now() + Duration::from_secs(2));
    let effect = async |call: StepCall| {
        assert_eq!(call.deadline().left(), Some(Duration::from_secs(2)));
        Ok(())
    };
    participant.with(sooner).do_remote(&step("2"), "request", effect).await.unwrap();
}

/// An answer that the store cannot hold: the effect was made, so it is neither done nor refused.
#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_of_unknown_outcome_and_is_undone() {
    let two = Two::on_memory().await;
    let ([participant, _], provider) = (two.participants(), Provider::default());
    let charge = async |call| {
        provider.charge(&call);
        Ok("x".repeat(5_000_000))
    };
    let error = participant.do_remote(&step("1"), "request", charge).await.unwrap_err();
    assert!(matches!(error, ParticipantError::Unknown { .. }), "{error}");
    let refund = async |call: StepCall, _: Option<String>| {
        provider.refund(&call);
        Ok(())
    };
    participant.undo_remote(&step("1"), refund).await.unwrap();
    assert_eq!(provider.counted(), (0, 1, 1));
}

/// A refusal that could not be stored kept the step in flight, and so did a failure: a do and an undo were held off for 30 seconds.
#[tokio::test]
async fn what_a_provider_says_is_stored_however_it_says_it() {
    let two = Two::on_memory().await;
    let [participant, _] = two.participants();
    for (number, text) in ["a\0b".to_owned(), "x".repeat(1_100_000)].into_iter().enumerate() {
        let refused = step(&format!("{number}-refused"));
        let refuse = async |_| Err::<u32, _>(StepError::refused(&text));
        for _ in 0..2 {
            let error = participant.do_remote(&refused, "request", refuse).await.unwrap_err();
            assert!(matches!(error, ParticipantError::Refused { .. }), "{error}");
        }
        let failed = step(&format!("{number}-failed"));
        for _ in 0..2 {
            let error = participant.do_remote(&failed, "request", async |_| Err::<u32, _>(StepError::unknown(&text)));
            let error = error.await.unwrap_err();
            assert!(matches!(error, ParticipantError::Unknown { .. }), "{error}");
        }
        for _ in 0..2 {
            let error = participant.undo_remote(&failed, async |_, _: Option<u32>| Err(StepError::refused(&text)));
            let error = error.await.unwrap_err();
            assert!(matches!(error, ParticipantError::Refused { .. }), "{error}");
        }
        participant.undo_remote(&failed, async |_, _: Option<u32>| Ok(())).await.unwrap();
    }
}

/// A process was stopped in the middle of an effect for longer than its time.
#[tokio::test(start_paused = true)]
async fn an_effect_that_ends_after_an_undo_is_reported_as_unknown() {
    let two = Two::on_memory().await;
    let [one, other] = two.participants();
    let effect = async |_| {
        two.later();
        other.undo_remote(&step("1"), async |_, _: Option<u32>| Ok(())).await.unwrap();
        Ok(17)
    };
    let late = one.do_remote(&step("1"), "request", effect).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Unknown { .. }), "{late}");
    assert_eq!(two.recorded(&step("1")).await.last().unwrap(), "participant.undone");

    // A refusal that comes late is not final either: another call was begun, and may have its effect.
    let effect = async |_| {
        two.later();
        let failed = other.do_remote(&step("2"), "request", async |_| Err::<u32, _>(StepError::unknown("lost"))).await;
        assert!(failed.is_err());
        Err::<u32, _>(StepError::refused("no cover"))
    };
    let late = one.do_remote(&step("2"), "request", effect).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Unknown { .. }), "{late}");

    // A failure that comes late is not that of the call which is in flight by then.
    let effect = async |_| {
        two.later();
        let third = step("3");
        let call = other.do_remote(&third, "request", async |_| std::future::pending::<Result<u32, _>>().await);
        assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
        Err::<u32, _>(StepError::transient("later"))
    };
    let late = one.do_remote(&step("3"), "request", effect).await.unwrap_err();
    assert!(matches!(late, ParticipantError::Transient { .. }), "{late}");
    let third = one.do_remote(&step("3"), "request", async |_| Ok(17)).await.unwrap_err();
    assert!(matches!(third, ParticipantError::InFlight { .. }), "{third}");
}

/// A clock on which the time of every call passes between two looks.
struct Jumps(AtomicU32);

impl Clock for Jumps {
    fn now(&self) -> Timestamp {
        let looks = self.0.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_second(i64::from(looks) * 31).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_time_ends_while_it_is_looked_at_is_not_reported_as_done() {
    let two = Two::on_memory().await;
    let [participant, other] = two.participants();
    let first = step("1");
    let dropped = participant.do_remote(&first, "request", async |_| std::future::pending::<Result<(), _>>().await);
    assert!(tokio::time::timeout(Duration::from_secs(1), dropped).await.is_err());
    // It is in flight when the command is decided, and not any more when the answer is read.
    let other = other.clock(Jumps(AtomicU32::new(0)));
    let error = other.do_local(&step("1"), "request", two.pay_in()).await.unwrap_err();
    assert!(matches!(error, ParticipantError::InFlight { .. }), "{error}");
    assert_eq!(two.till().await.coins, 0);
}

#[tokio::test]
async fn parameters_that_break_a_rule_are_named() {
    let two = Two::on_memory().await;
    let [participant, _] = two.participants();
    for bad in ["", "$all", "__x", "a b", "caf\u{e9}", &"x".repeat(196)] {
        let error = StepKey::new(bad).unwrap_err();
        assert_eq!(error.field, "step", "{error}");
    }
    assert_eq!(StepKey::new("x".repeat(195)).unwrap().undo_key().as_str().len(), 200);
    let fingerprint = annals_eventstore::Fingerprint::of("request").unwrap();
    let request = annals_eventstore::RequestKey::new("k-1", fingerprint).unwrap();
    let keyed = participant.with(annals_eventstore::Context::default().with_request(request));
    match keyed.undo_local(&step("1"), two.pay_out()).await.unwrap_err() {
        ParticipantError::Invalid(invalid) => assert_eq!(invalid.field, "request_key"),
        other => panic!("{other}"),
    }
    // A build with another type of answer does not undo by guessing.
    participant.do_remote(&step("2"), "request", async |_| Ok(17)).await.unwrap();
    let undone = participant.undo_remote(&step("2"), async |_, _: Option<String>| unreachable!()).await;
    assert!(matches!(undone, Err(ParticipantError::Answer { .. })));
    assert_eq!(two.recorded(&step("2")).await.len(), 2);
}
