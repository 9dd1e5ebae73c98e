//! What a saga may not say, because it would change nothing.

use std::sync::Arc;
use std::time::Duration;

use super::checkout::policy;
use crate::{AfterPivot, Call, Decision, Phase, Saga, StepError, StepRetry};

fn refused<P: Phase, O>(saga: Saga<(), P, O>) -> String {
    saga.build().err().map_or_else(|| "it is built".to_owned(), |invalid| invalid.to_string())
}

fn begun() -> Saga<()> {
    Saga::new("s")
}

async fn ok(_: Arc<()>, _: Call) -> Result<(), StepError> {
    Ok(())
}

fn called(name: &'static str) -> Saga<()> {
    begun().remote(name, &policy("p"), ok).no_undo("it is a test")
}

#[test]
fn a_word_that_would_change_nothing_is_refused_with_its_place() {
    let (retry, second) = (StepRetry::default(), Duration::from_secs(1));
    let here = "put it behind the step that it is for, once";
    let none = "leave it out, or put it behind the remote step that it is for";
    let branches = || begun().parallel(|both| both.branch(|_| called("a")).branch(|two| two.timer("b", second)));
    let pivoted = || -> Saga<(), AfterPivot> { called("a").pivot() };
    for (found, expected) in [
        (
            refused(begun().retry(retry).timer("t", second)),
            format!("`retry` of saga `s` stands behind no step; {here}"),
        ),
        (refused(branches().retry(retry)), format!("`retry` of saga `s` stands behind branches; {here}")),
        (
            refused(begun().timer("t", second).retry(retry)),
            format!("`retry` is for step `t`, of which no call is made; {none}"),
        ),
        (refused(pivoted().retry(retry)), format!("`retry` is for step `pivot`, of which no call is made; {none}")),
        (
            refused(called("a").retry_undo(retry)),
            format!("`retry_undo` is for step `a`, of which no call is made; {none}"),
        ),
        (
            refused(begun().signal::<u32>("s").keep(|(), _| ()).keep(|(), ()| ())),
            format!("`keep` of saga `s` stands behind `s`, which gives nothing more to keep; {here}"),
        ),
        (
            refused(pivoted().keep(|(), ()| ())),
            format!("`keep` of saga `s` stands behind `pivot`, which gives nothing more to keep; {here}"),
        ),
        (
            refused(begun().signal::<Decision>("s").within(second)),
            format!("`within` of saga `s` stands behind `s`, which is no approval; {here}"),
        ),
        (refused(branches().keep(|(), ()| ())), format!("`keep` of saga `s` stands behind branches; {here}")),
        (
            refused(begun().remote("a", &policy("p"), ok).no_undo(" ")),
            format!("`no_undo` of saga `s` says not why `a` is not undone; {here}"),
        ),
    ] {
        assert_eq!(found, expected);
    }
    let said = called("a").retry(retry).remote("b", &policy("p"), ok).undo(ok).retry_undo(retry).keep(|(), ()| ());
    assert_eq!(refused(said), "it is built");
}
