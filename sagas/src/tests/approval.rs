//! Steps in which a person approves or rejects.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{ManualClock, MemoryStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::checkout::{World, policy};
use crate::testing::explore;
use crate::{By, Decision, Definition, Engine, Intervention, Saga, SagaError, SagaEvent, SagaId, Status};

/// How long each step can be answered.
const WITHIN: Duration = Duration::from_secs(100);

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Transfer {
    released_by: Option<String>,
}

impl Transfer {
    const NEW: Self = Self { released_by: None };
}

/// Charge; two people look at it; then, past the pivot, a third one; then ship.
fn transfer(world: &Arc<World>) -> Definition<Transfer> {
    let [charge, refund, ship] = [(); 3].map(|()| world.clone());
    Saga::<Transfer>::new("transfer")
        .remote("charge", &policy("payment"), move |_, call| {
            let world = charge.clone();
            async move { world.done("payment", &call) }
        })
        .undo(move |_, call| {
            let world = refund.clone();
            async move { world.undone("payment", &call) }
        })
        .parallel(|both| {
            both.branch(|one| {
                let release = one.approval("release").within(WITHIN);
                release.keep(|transfer, decision: Decision| transfer.released_by = Some(decision.actor))
            })
            .branch(|two| two.approval("audit"))
        })
        .pivot()
        .approval("confirm")
        .within(WITHIN)
        .remote("ship", &policy("shipping"), move |transfer, call| {
            let world = ship.clone();
            async move {
                assert_eq!(transfer.released_by.as_deref(), Some("ada"), "later steps have who approved");
                world.done("shipping", &call)
            }
        })
        .build()
        .expect("it is sound")
}

struct Case {
    world: Arc<World>,
    clock: Arc<ManualClock>,
    engine: Engine<Transfer>,
    id: SagaId,
}

impl Case {
    /// One that asks `release` and `audit`.
    async fn new() -> Self {
        let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
        let engine = Engine::new(MemoryStore::new(), transfer(&world), clock.clone());
        let case = Self { world, clock, engine, id: SagaId::new("t-1").expect("it is an id") };
        case.engine.start(&case.id, Transfer::NEW).await.expect("it is new");
        let early = case.engine.approve(&case.id, "release", &by("ada")).await;
        assert_eq!(wrong(early), "its step does not ask for approval yet");
        assert_eq!(case.run().await, Status::Running);
        assert_eq!(case.asks().await, ["audit", "release"]);
        case
    }

    async fn run(&self) -> Status {
        self.engine.run(&self.id).await.expect("the store answers").status
    }

    async fn asks(&self) -> Vec<String> {
        self.engine.status(&self.id).await.expect("it is there").asks
    }

    async fn approve(&self, step: &str, actor: &str) -> Result<(), SagaError> {
        self.engine.approve(&self.id, step, &by(actor)).await
    }

    async fn reject(&self, step: &str, actor: &str) -> Result<(), SagaError> {
        self.engine.reject(&self.id, step, &by(actor)).await
    }

    /// Past the pivot, where `confirm` asks.
    async fn confirming() -> Self {
        let case = Self::new().await;
        case.approve("release", "ada").await.expect("it asks");
        case.approve("audit", "bob").await.expect("it asks");
        assert_eq!((case.run().await, case.asks().await), (Status::Running, vec!["confirm".to_owned()]));
        case
    }
}

fn by(actor: &str) -> By {
    By::new(actor, "as it was wished").expect("it is sound")
}

fn wrong(result: Result<(), SagaError>) -> &'static str {
    match result {
        Err(SagaError::WrongStatus { needs, .. }) => needs,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_approved_goes_on_and_later_steps_have_who_approved_it() {
    let case = Case::confirming().await;
    assert_eq!(case.world.effects("shipping"), 0);
    let confirm = Intervention::Approve { step: "confirm".to_owned() };
    let would = case.engine.preview(&case.id, confirm, &by("cleo")).await.expect("it asks");
    assert!(matches!(&would[2], SagaEvent::Begun { step, .. } if step == "ship"), "{would:?}");
    assert_eq!(case.asks().await, ["confirm"], "a preview records nothing");
    case.approve("confirm", "cleo").await.expect("it asks");
    assert_eq!((case.run().await, case.world.effects("shipping")), (Status::Completed, 1));
    let late = case.approve("release", "bob").await.expect_err("it is answered").to_string();
    assert_eq!(
        late,
        "saga `t-1` is completed, and this is for one that asks for approval; the last decision was \
         approve `release` by `ada` at 1970-01-01T00:00:00Z, because: as it was wished"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_is_undone_and_the_other_answers_come_too_late() {
    let case = Case::new().await;
    case.reject("audit", "bob").await.expect("it asks");
    let second = case.approve("audit", "ada").await.expect_err("it is answered").to_string();
    assert!(second.contains("its step has its answer; the last decision was reject `audit` by `bob`"), "{second}");
    assert_eq!((case.run().await, case.world.effects("payment")), (Status::Compensated, 0));
    let status = case.engine.status(&case.id).await.expect("it is there");
    assert_eq!(status.reason.as_deref(), Some("`audit` was refused: by `bob`, because: as it was wished"));
    assert_eq!(status.asks, [""; 0]);
    assert_eq!(wrong(case.approve("release", "ada").await), "this is for one that asks for approval");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_in_time_is_refused_and_an_answer_at_that_moment_is_too_late() {
    let case = Case::new().await;
    case.clock.advance(WITHIN - Duration::from_millis(1));
    assert_eq!(case.run().await, Status::Running);
    case.clock.advance(Duration::from_millis(1));
    assert_eq!(wrong(case.approve("release", "ada").await), "the time to answer its step has ended");
    case.approve("audit", "bob").await.expect("this one has no limit");
    assert_eq!((case.run().await, case.world.effects("payment")), (Status::Compensated, 0));
    let reason = case.engine.status(&case.id).await.expect("it is there").reason;
    assert_eq!(reason.as_deref(), Some("`release` was refused: nobody has answered until 1970-01-01T00:01:40Z"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_behind_the_deadline_of_its_saga_is_too_late_although_nobody_has_looked() {
    let (id, clock) = (SagaId::new("t-1").expect("it is an id"), Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
    let saga = Saga::<()>::new("quick").deadline(WITHIN).approval("release").build().expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, clock.clone());
    engine.start(&id, ()).await.expect("it is new");
    engine.run(&id).await.expect("the store answers");
    clock.advance(WITHIN);
    let late = engine.approve(&id, "release", &by("ada")).await;
    assert_eq!(wrong(late), "the time to answer its step has ended");
    assert_eq!(engine.run(&id).await.expect("the store answers").status, Status::Compensated);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_after_the_pivot_is_stuck_and_asks_again_with_its_whole_time_or_is_skipped() {
    for skip in [false, true] {
        let case = Case::confirming().await;
        case.clock.advance(WITHIN / 2);
        case.reject("confirm", "cleo").await.expect("it asks");
        assert_eq!(case.run().await, Status::Stuck);
        assert_eq!(wrong(case.approve("confirm", "ada").await), "this is for one that asks for approval");
        if skip {
            case.engine.intervene(&case.id, Intervention::Skip, &by("ada")).await.expect("it is stuck");
        } else {
            case.engine.intervene(&case.id, Intervention::Retry, &by("ada")).await.expect("it is stuck");
            assert_eq!((case.run().await, case.asks().await), (Status::Running, vec!["confirm".to_owned()]));
            let wake_at = case.engine.status(&case.id).await.expect("it is there").wake_at;
            assert_eq!(wake_at.map(Timestamp::as_second), Some(150));
            case.approve("confirm", "cleo").await.expect("it asks again");
        }
        assert_eq!((case.run().await, case.world.effects("shipping")), (Status::Completed, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_used_is_refused_with_its_field_and_the_same_request_is_followed_once() {
    let case = Case::new().await;
    let field = |result: Result<(), SagaError>| match result {
        Err(SagaError::Invalid(invalid)) => invalid.field,
        other => panic!("{other:?}"),
    };
    let before = case.engine.status(&case.id).await.expect("it is there");
    assert_eq!(field(case.approve("charge", "ada").await), "step");
    assert_eq!(field(case.reject("relase", "ada").await), "step");
    assert_eq!(field(case.engine.signal(&case.id, "release", 1).await), "step");
    assert_eq!(case.engine.status(&case.id).await.expect("it is there"), before);

    let click = by("ada").request("click-1");
    case.engine.approve(&case.id, "release", &click).await.expect("it asks");
    let after = case.engine.status(&case.id).await.expect("it is there");
    case.engine.approve(&case.id, "release", &click).await.expect("it is the same click");
    assert_eq!(field(case.engine.reject(&case.id, "release", &click).await), "request");
    assert_eq!(field(case.engine.approve(&case.id, "audit", &click).await), "request");
    assert_eq!(case.engine.status(&case.id).await.expect("it is there"), after);
    let endless = Saga::<()>::new("endless").approval("release").within(Duration::ZERO).build();
    assert_eq!(endless.err().map(|invalid| invalid.field), Some("within".to_owned()));
}

#[test]
fn approvals_end_their_saga_completed_compensated_or_stuck_under_every_schedule() {
    let saga = |world: &Arc<World>, _: &MemoryStore| transfer(world);
    let explored = explore(Transfer::NEW, World::default, saga)
        .invariant("effects balance", |world, end| {
            ["payment", "shipping"].map(|service| world.effects(service)) == [usize::from(end.completed()); 2]
        })
        .run();
    assert!(explored.completed > 50 && explored.compensated > 50 && explored.stuck > 50, "{explored:?}");
}
