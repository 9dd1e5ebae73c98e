//! Pictures of definitions.

use std::time::Duration;

use super::checkout::policy;
use crate::{Definition, Saga};

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
