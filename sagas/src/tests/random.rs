//! Random sagas under random schedules keep the laws.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;

use super::checkout::{World, policy};
use crate::definition::{Definition, Kind, Step, Undo, build};
use crate::retry::StepRetry;
use crate::testing::{Choice, Point, broken, run};

/// Up to seven steps in a random graph, calls of which some have no undo and approvals, with a pivot or without.
pub(crate) fn saga(random: &mut fastrand::Rng, world: &Arc<World>) -> Definition<()> {
    let count = random.usize(1..=7);
    let pivot = random.bool().then(|| random.usize(0..=count));
    let mut steps: Vec<Step<()>> = Vec::new();
    let mut pivot_at = None;
    for number in 0..=count {
        if pivot == Some(number) {
            // It needs everything before it.
            let after = (0..steps.len()).collect();
            pivot_at = Some(steps.len());
            steps.push(step("pivot".to_owned(), Kind::Pivot, after, Undo::Nothing(String::new())));
        }
        if number == count {
            break;
        }
        // After the pivot each step needs it.
        let first = pivot_at.unwrap_or(0);
        let mut after: Vec<usize> = (first..steps.len()).filter(|_| random.u8(0..10) < 4).collect();
        after.extend(pivot_at.filter(|at| !after.contains(at)));
        if random.u8(0..6) == 0 {
            let limit = random.bool().then_some(Duration::from_secs(10));
            steps.push(step(format!("s{number}"), Kind::Approval(limit), after, Undo::Nothing(String::new())));
            continue;
        }
        let (done, undone) = (world.clone(), world.clone());
        let action: crate::definition::Action<()> = Arc::new(move |_, call| {
            let result = done.done("service", &call);
            async move { result.map(|()| Value::Null) }.boxed()
        });
        let undo: crate::definition::Action<()> = Arc::new(move |_, call| {
            let result = undone.undone("service", &call);
            async move { result.map(|()| Value::Null) }.boxed()
        });
        let undo = if pivot_at.is_some() || random.u8(0..5) == 0 {
            Undo::Nothing("it needs none".to_owned())
        } else {
            Undo::Remote(policy("service"), undo)
        };
        steps.push(step(format!("s{number}"), Kind::Remote(policy("service"), action), after, undo));
    }
    build("random".to_owned(), steps, None, Duration::from_secs(3_600)).expect("it is sound")
}

fn step(name: String, kind: Kind<()>, after: Vec<usize>, undo: Undo<()>) -> Step<()> {
    let retry = StepRetry { attempts: 3, ..StepRetry::default() };
    let (of_do, of_undo) = (matches!(kind, Kind::Remote(..)), matches!(undo, Undo::Remote(..)));
    Step { name, kind, after, undo, keep: None, retry: of_do.then_some(retry), retry_undo: of_undo.then_some(retry) }
}

/// However services have failed: when they do not any more, there is a number of appends, calls and answers after which a saga has ended.
#[test]
fn when_services_are_healthy_again_a_saga_ends_within_a_bounded_number_of_steps() {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut most, mut late) = (0, 0);
    for case in 0..200 {
        let world = Arc::new(World::default());
        let definition = saga(&mut random, &world);
        let (mut choices, healthy_from) = (random.fork(), random.usize(0..40));
        let fails = move |number: usize, point: &Point| match number {
            number if number >= healthy_from => Choice::Usual,
            _ => choices.choice(point.choices().iter().copied()).unwrap_or(Choice::Usual),
        };
        let ran = run(|_| definition.clone(), (), fails);
        assert_eq!(broken(&definition, &ran), None, "case {case}: {}", definition.outline());
        let steps = ran.points.len().saturating_sub(healthy_from);
        late += usize::from(steps > 0);
        most = most.max(steps / definition.steps().len());
    }
    // Each step may have a wait that ends, a call and an outcome in both directions, and the end of a process before.
    assert!(most <= 8 && late > 100, "{most} per step; {late} were ill until then");
}

#[test]
fn random_graphs_under_random_schedules_keep_the_laws() {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ends = [0_u32; 3];
    for case in 0..400 {
        let world = Arc::new(World::default());
        let definition = saga(&mut random, &world);
        let mut choices = random.fork();
        let often = random.u8(0..70);
        let ran = run(
            |_| definition.clone(),
            (),
            move |_, point: &Point| {
                if choices.u8(0..100) < often {
                    choices.choice(point.choices().iter().copied()).unwrap_or(Choice::Usual)
                } else {
                    Choice::Usual
                }
            },
        );
        if let Some(law) = broken(&definition, &ran) {
            panic!("case {case}: {law}\n{}\n{:#?}", definition.outline(), ran.events);
        }
        let status = ran.status.expect("the laws say so").status;
        ends[match status {
            crate::Status::Completed => 0,
            crate::Status::Compensated => 1,
            _ => 2,
        }] += 1;
        // What is compensated has no effect left, but those of steps without an undo.
        if status == crate::Status::Compensated {
            let without = definition.steps().iter().filter(|step| matches!(step.undo, Undo::Nothing(_))).count();
            assert!(world.effects("service") <= without, "case {case}: {}", definition.outline());
        }
    }
    assert!(ends.iter().all(|&ends| ends > 10), "each end is met: {ends:?}");
}
