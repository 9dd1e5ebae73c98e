//! Random programs of commands under random faults, against a simple model: an acknowledged command was executed once.

use std::collections::HashSet;

use super::account::{Account, Moved, Settle};
use super::spy::{Fault, Spy};
use super::{id, request, rival, stored};
use crate::context::Context;
use crate::error::ErrorFamily;
use crate::repository::{AggregateStore, ExecuteError, Executed, Repository};
use crate::stream::ExpectedVersion;

const PROGRAMS: usize = 300;
const COMMANDS: usize = 25;

/// An event of another writer, distinguished from ours by its kind.
fn foreign() -> Fault {
    Fault::Rival(rival(ExpectedVersion::Any, &[Moved::Noted { amount: 1, note: String::new() }]))
}

fn fault(random: &mut fastrand::Rng) -> Fault {
    match random.u8(..8) {
        0 => Fault::Unavailable,
        1 => Fault::AnswerLost { stored: true },
        2 => Fault::AnswerLost { stored: false },
        3 | 4 => foreign(),
        _ => Fault::None,
    }
}

/// Executes one command and gives its outcome, asking until it is known.
async fn command(
    spy: &Spy,
    accounts: &Repository<Account>,
    random: &mut fastrand::Rng,
) -> Result<Executed<Account>, ErrorFamily> {
    let amount = random.i64(1..50);
    let outcome = match random.u8(..3) {
        0 => accounts.execute(&id(), |_| Ok([Moved::In(amount), Moved::In(amount)])).await,
        1 => accounts.execute(&id(), |a| a.withdraw(amount)).await,
        _ => accounts.send(&id(), Settle(amount)).await,
    };
    spy.calm();
    match outcome {
        Ok(done) => Ok(done),
        Err(ExecuteError::OutcomeUnknown { token, .. }) => {
            accounts.settle(&token).await.map_err(|e| e.family().unwrap_or(ErrorFamily::Invalid))
        }
        Err(e) => Err(e.family().unwrap_or(ErrorFamily::Invalid)),
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_happened_once_and_caches_show_what_is_stored() {
    let seed = crate::testing_seed();
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..PROGRAMS {
        let spy = Spy::new().paged(random.usize(1..5));
        // Two handles with their own caches, as in two processes.
        let handles = [spy.aggregate::<Account>(), spy.aggregate::<Account>().cache(1)];
        let mut acknowledged = 0;
        let mut seen_keys = HashSet::new();
        for _ in 0..COMMANDS {
            spy.next((0..random.usize(..9)).map(|_| fault(&mut random)));
            let key = random.bool().then(|| random.u8(..12));
            let context = key.map_or_else(Context::default, |key| request(&format!("r-{key}"), "x"));
            let accounts = &handles[random.usize(..2)];
            let before = stored(&spy).await.len();
            if let Ok(done) = command(&spy, &accounts.with(context), &mut random).await {
                let is_first = key.is_none_or(|key| seen_keys.insert(key));
                if is_first {
                    acknowledged += done.events;
                } else {
                    assert!(done.repeated);
                    assert_eq!(stored(&spy).await.len(), before, "a repeat appended something");
                }
            }
            let plain = accounts.clone().without_cache().load(&id()).await.unwrap();
            for accounts in &handles {
                let loaded = accounts.load(&id()).await.unwrap();
                assert_eq!((&loaded.state, loaded.version), (&plain.state, plain.version));
            }
            assert!(plain.state.balance >= 0, "overdrawn");
        }
        let ours = stored(&spy).await.iter().filter(|event| &*event.name != "noted").count();
        assert_eq!(ours, acknowledged);
    }
}
