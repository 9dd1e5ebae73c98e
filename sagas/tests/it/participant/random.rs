//! Random calls of one step by two handles, some of which end in the middle.

use annals_sagas::participant::ParticipantError;
use futures::future::join_all;

use super::*;

/// What an effect does, and how it ends.
#[derive(Clone, Copy)]
enum Effect {
    Succeeds,
    /// It happens, and there is no answer.
    LostAnswer,
    /// It does not happen.
    Fails,
    Refuses,
}

/// One call of the do or the undo, by one of two handles.
async fn call(participant: Participant, two: Arc<Two>, provider: Provider, undone: Arc<AtomicU32>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (pauses, is_undo) = (random.usize(0..6), random.bool());
    let effect = *random
        .choice([Effect::Succeeds, Effect::Succeeds, Effect::LostAnswer, Effect::Fails, Effect::Refuses].iter())
        .unwrap();
    let pause = async || {
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
    };
    if is_undo {
        let refund = async |call: StepCall, _: Option<u32>| {
            pause().await;
            match effect {
                Effect::Succeeds | Effect::LostAnswer => provider.refund(&call),
                Effect::Fails => return Err(StepError::transient("later")),
                Effect::Refuses => return Err(StepError::refused("no")),
            }
            pause().await;
            if let Effect::LostAnswer = effect { Err(StepError::unknown("no answer")) } else { Ok(()) }
        };
        if participant.undo_remote(&step("remote"), refund).await.is_ok() {
            assert_eq!(provider.counted().0, 0);
            undone.fetch_or(1, Ordering::SeqCst);
        }
        if participant.undo_local(&step("local"), two.pay_out()).await.is_ok() {
            assert_eq!(two.till().await.coins, 0);
            undone.fetch_or(2, Ordering::SeqCst);
        }
        return;
    }
    let before = undone.load(Ordering::SeqCst);
    let charge = async |call: StepCall| {
        assert_eq!(before & 1, 0, "it is not done after it was undone");
        pause().await;
        let receipt = match effect {
            Effect::Succeeds | Effect::LostAnswer => provider.charge(&call),
            Effect::Fails => return Err(StepError::transient("later")),
            Effect::Refuses => return Err(StepError::refused("no")),
        };
        pause().await;
        if let Effect::LostAnswer = effect { Err(StepError::unknown("no answer")) } else { Ok(receipt) }
    };
    let done = participant.do_remote(&step("remote"), "request", charge).await;
    assert!(!(done.is_ok() && before & 1 == 1));
    if let Err(ParticipantError::Undone { .. } | ParticipantError::Refused { .. }) = done {
        assert!(provider.counted().0 <= 1);
    }
    let done = participant.do_local(&step("local"), "request", two.pay_in()).await;
    assert!(!(done.is_ok() && before & 2 == 2));
}

async fn storms(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (two, provider) = (Arc::new(Two::on_memory().await), Provider::default());
    let undone = Arc::new(AtomicU32::new(0));
    for _ in 0..random.usize(1..4) {
        let mut calls = Vec::new();
        for _ in 0..random.usize(1..7) {
            let participant = two.participants()[random.usize(0..2)].clone();
            let call = call(participant, two.clone(), provider.clone(), undone.clone(), random.u64(..));
            calls.push(tokio::spawn(call));
            for _ in 0..random.usize(0..12) {
                tokio::task::yield_now().await;
            }
            if random.u8(0..4) == 0 {
                // As if the process were killed.
                calls[random.usize(0..calls.len())].abort();
            }
        }
        for ended in join_all(calls).await {
            assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()));
        }
        assert!(provider.counted().0 <= 1 && two.till().await.paid_in <= 1);
        two.later();
    }
    let [participant, _] = two.participants();
    let refund = async |call: StepCall, _: Option<u32>| {
        provider.refund(&call);
        Ok(())
    };
    participant.undo_remote(&step("remote"), refund).await.unwrap();
    participant.undo_local(&step("local"), two.pay_out()).await.unwrap();
    assert!(is_refused(participant.do_remote(&step("remote"), "request", async |_| Ok(17)).await.unwrap_err()));
    assert!(is_refused(participant.do_local(&step("local"), "request", two.pay_in()).await.unwrap_err()));
    assert_eq!((provider.counted().0, two.till().await.coins), (0, 0));
}

#[test]
fn whatever_is_called_in_whatever_order_there_is_one_effect_at_most_and_none_after_an_undo() {
    let first = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in first.map_or_else(|| 0..400, |seed: u64| seed..seed + 1) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(storms(seed))));
        assert!(ran.is_ok(), "run it again with ANNALS_SEED={seed}");
    }
}
