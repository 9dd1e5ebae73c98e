//! A process is killed in the middle of an effect.

use std::future::{Future, pending};
use std::path::{Path, PathBuf};

use annals_eventstore::SystemClock;
use annals_sagas::participant::ParticipantError;
use annals_scratch::again::{again, is_again};

use super::*;

/// Where the store is: a folder, and the URL of a server if it is not in that folder.
async fn open(folder: &Path, url: Option<String>) -> Arc<dyn EventStore> {
    match url {
        Some(url) => Arc::new(PostgresOptions::new(url).migrate().open().await.unwrap()),
        None => Arc::new(annals_eventstore::sqlite(folder.join("steps.db")).await.unwrap()),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// Makes two effects, says so by a file each, and does not end.
async fn child() {
    let folder = PathBuf::from(std::env::var_os("STEPS_FOLDER").unwrap());
    let participant = Participant::new(open(&folder, std::env::var("STEPS_URL").ok()).await);
    let effect = async |call: StepCall| {
        std::fs::write(folder.join(call.key().as_str().replace('/', ".")), "").unwrap();
        pending::<Result<u32, StepError>>().await
    };
    let (one, two) = (step("1"), step("2"));
    let ended =
        futures::join!(participant.do_remote(&one, "request", effect), participant.do_remote(&two, "request", effect));
    unreachable!("{ended:?}");
}

/// Kills the process that runs the test `name` when both effects were made, and looks at what is left.
fn kill_and_look(name: &str, url: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = again(&[], module_path!(), name);
    command.env("STEPS_FOLDER", folder.path()).envs(url.map(|url| ("STEPS_URL", url)));
    let mut child = command.spawn().unwrap();
    let made = |step: &str| folder.path().join(format!("checkout-{step}.charge.do")).exists();
    block_on(async {
        while !(made("1") && made("2")) {
            assert!(child.try_wait().unwrap().is_none(), "the process must be killed, not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    child.kill().unwrap();
    child.wait().unwrap();

    block_on(async {
        let store = open(folder.path(), url.map(ToOwned::to_owned)).await;
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let participant = Participant::new(store).clock(clock.clone());
        let charge = async |call: StepCall| {
            assert_eq!(call.key().as_str(), "checkout-1/charge/do");
            Ok(17)
        };
        // It is not reported as done, and nothing runs while it may still be in flight.
        let in_flight = participant.do_remote(&step("1"), "request", charge).await;
        assert!(matches!(in_flight, Err(ParticipantError::InFlight { .. })));
        let in_flight = participant.undo_remote(&step("2"), async |_, _: Option<u32>| unreachable!()).await;
        assert!(matches!(in_flight, Err(ParticipantError::InFlight { .. })));

        clock.advance(Duration::from_secs(31));
        assert_eq!(participant.do_remote(&step("1"), "request", charge).await.unwrap(), 17);
        let undone = AtomicU32::new(0);
        let undo = async |_, receipt: Option<u32>| {
            assert_eq!((receipt, undone.fetch_add(1, Ordering::SeqCst)), (None, 0));
            Ok(())
        };
        participant.undo_remote(&step("2"), undo).await.unwrap();
        participant.undo_remote(&step("2"), undo).await.unwrap();
        assert_eq!(undone.into_inner(), 1);
    });
}

#[test]
fn a_step_whose_process_was_killed_is_done_again_or_undone_on_sqlite() {
    if is_again() {
        return block_on(child());
    }
    kill_and_look("a_step_whose_process_was_killed_is_done_again_or_undone_on_sqlite", None);
}

#[test]
fn a_step_whose_process_was_killed_is_done_again_or_undone_on_postgres() {
    if is_again() {
        return block_on(child());
    }
    let database = block_on(annals_scratch::Database::empty());
    kill_and_look("a_step_whose_process_was_killed_is_done_again_or_undone_on_postgres", Some(database.url()));
}
