//! Pictures of definitions.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::checkout::policy;
use crate::Direction::{Do, Undo};
use crate::{Definition, Direction, Intervention, SVG_STYLES, Saga, SagaEvent};

/// Two branches of unlike length that are joined, a pivot, and every kind of step that calls nobody in the store.
fn order() -> Definition<()> {
    let call = |_, _| async { Ok(()) };
    let undo = |_, _| async { Ok(()) };
    Saga::<()>::new("order&co")
        .remote("charge", &policy("payment"), call)
        .undo(undo)
        .parallel(|both| {
            both.branch(|one| one.remote("reserve", &policy("stock"), call).undo(undo).signal::<u32>("confirmed"))
                .branch(|two| two.approval("\"<release>\"").within(Duration::from_secs(3_600)))
        })
        .remote("pack", &policy("stock"), |_, _| async { Ok(()) })
        .no_undo("<b>it is & stays in the shelf until somebody takes it out again</b>\u{7}")
        .pivot()
        .timer("pause", Duration::from_secs(30))
        .remote("ship", &policy("shipping"), |_, _| async { Ok(()) })
        .build()
        .expect("it is sound")
}

#[test]
fn a_drawing_shows_sequence_branches_join_pivot_and_undo_and_is_the_golden_one() {
    insta::assert_snapshot!(order().svg());
}

#[test]
fn no_text_of_a_definition_is_markup_in_its_drawing() {
    let svg = order().svg();
    for markup in ["<release>", "<b>", "& stays", "order&co", "\u{7}"] {
        assert!(!svg.contains(markup), "{markup}");
    }
    assert!(svg.contains("&lt;release&gt;") && svg.contains("order&amp;co"));
    // Each element ends.
    for element in ["svg", "g", "text", "title", "style", "defs", "marker"] {
        let (begun, ended) = (
            svg.matches(&format!("<{element}>")).count() + svg.matches(&format!("<{element} ")).count(),
            svg.matches(&format!("</{element}>")).count(),
        );
        assert_eq!(begun, ended, "{element}");
    }
}

/// How each step of the order stands after these events.
fn states(events: &[SagaEvent]) -> Vec<String> {
    let svg = order().svg_after(events);
    let (_, words) = svg.split_once("<desc>").expect("a description");
    let (words, _) = words.split_once("</desc>").expect("its end");
    let state = |words: &str| Some(words.split_once(": ")?.1.split_once(" (")?.0.to_owned());
    words.split(";\n").map(|words| state(words).expect("how it stands")).collect()
}

fn begun(step: &str, direction: Direction) -> SagaEvent {
    SagaEvent::Begun { step: step.to_owned(), direction, attempt: 1 }
}

fn succeeded(step: &str, direction: Direction, attempt: u32) -> SagaEvent {
    SagaEvent::Succeeded { step: step.to_owned(), direction, attempt, output: Value::Null }
}

fn failed(step: &str, direction: Direction, retry_at: Option<Timestamp>) -> SagaEvent {
    let (step, error) = (step.to_owned(), "it is closed".to_owned());
    SagaEvent::Failed { step, direction, attempt: 1, error, may_have_happened: true, retry_at, not_made: false }
}

/// An instance that runs, up to where both branches wait: one for a signal, the other for a person.
fn run() -> Vec<SagaEvent> {
    let at = Timestamp::UNIX_EPOCH;
    let (saga, definition) = ("order&co".to_owned(), order().hash().to_owned());
    vec![
        SagaEvent::Started { saga, definition, data: Value::Null, at, deadline: None },
        begun("charge", Do),
        failed("charge", Do, Some(at)),
        begun("charge", Do),
        succeeded("charge", Do, 1),
        SagaEvent::ApprovalAsked { step: "\"<release>\"".to_owned(), at, until: None },
        begun("reserve", Do),
    ]
}

#[test]
fn a_drawing_of_an_instance_says_how_each_step_stands_and_is_the_golden_one() {
    let mut events = run();
    let waits = |first: [&'static str; 4]| first.into_iter().chain(["waits"; 4]).collect::<Vec<_>>();
    assert_eq!(states(&[]), ["not done"; 8]);
    assert_eq!(states(&events[..1]), ["waits"; 8]);
    assert_eq!(states(&events[..2]), waits(["under way", "waits", "waits", "waits"]));
    assert_eq!(states(&events[..3]), waits(["failed, is called again", "waits", "waits", "waits"]));
    assert_eq!(states(&events), waits(["done", "under way", "waits", "under way"]));
    events.push(failed("reserve", Do, None));
    assert_eq!(states(&events), waits(["done", "failed", "waits", "under way"]));
    // It is undone, and one undo is refused.
    let compensation = SagaEvent::CompensationBegun { reason: "it is closed".to_owned(), until: Timestamp::UNIX_EPOCH };
    events.extend([compensation, begun("reserve", Undo), succeeded("reserve", Undo, 1), begun("charge", Undo)]);
    let undone = |charge| [charge, "undone"].into_iter().chain(["not done"; 6]).collect::<Vec<_>>();
    assert_eq!(states(&events), undone("is undone"));
    events.push(failed("charge", Undo, None));
    assert_eq!(states(&events), undone("its undo has failed"));
    insta::assert_snapshot!(order().svg_after(&events));
}

#[test]
fn a_drawing_shows_what_a_person_has_skipped_and_that_the_pivot_is_passed() {
    let mut events = run();
    events.extend([succeeded("reserve", Do, 1), succeeded("confirmed", Do, 0), succeeded("\"<release>\"", Do, 0)]);
    events.extend([begun("pack", Do), failed("pack", Do, None)]);
    events.push(SagaEvent::Stuck { step: Some("pack".to_owned()), reason: "it is closed".to_owned() });
    assert_eq!(states(&events)[4..], ["failed", "waits", "waits", "waits"]);
    events.push(SagaEvent::Intervened {
        intervention: Intervention::Skip,
        actor: "carol".to_owned(),
        reason: "it is packed".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        request: None,
        until: None,
    });
    events.push(SagaEvent::PivotPassed);
    events.push(SagaEvent::TimerSet { step: "pause".to_owned(), due: Timestamp::UNIX_EPOCH });
    assert_eq!(states(&events)[4..], ["skipped", "passed", "under way", "waits"]);
}

#[test]
fn no_drawing_needs_a_style_that_a_content_security_policy_would_have_to_allow() {
    let all = [order().svg(), order().svg_after(&run())];
    for svg in &all {
        for forbidden in ["<style", " style=", "<script", " href=", " on"] {
            // Nothing outside of texts.
            let tags = svg.split('<').skip(1).filter_map(|tag| tag.split_once('>'));
            assert!(tags.map(|(tag, _)| format!("<{tag}")).all(|tag| !tag.contains(forbidden)), "{forbidden}");
        }
        // In a page that serves the stylesheet, no colour is left as it is.
        for class in svg.split("<g class=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(class, _)| class) {
            assert!(class == "plain" || SVG_STYLES.contains(&format!(".saga .{class} ")), "{class}");
        }
    }
}
