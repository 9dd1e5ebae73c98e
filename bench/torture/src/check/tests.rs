use std::convert::Infallible;

use super::*;

/// A fact of stream `stream` whose tail follows from its position.
fn fact(position: u64, stream: u32, version: u32) -> Fact {
    Fact { position, stream, version, tail: u32::try_from(position).unwrap() * 3 }
}

/// Streams 1 and 2 alternate; position 4 was rolled back.
fn history() -> Vec<Fact> {
    vec![fact(1, 1, 1), fact(2, 2, 1), fact(3, 1, 2), fact(5, 2, 2), fact(6, 1, 3), fact(7, 2, 3)]
}

fn checker(log: &[Fact]) -> Checker {
    let mut checker = Checker::default();
    for fact in log {
        checker.add(fact);
    }
    checker
}

fn delivery(wanted: Wanted, delivered: &[Fact]) -> Delivery {
    let all: Vec<Result<Fact, Infallible>> = delivered.iter().copied().map(Ok).collect();
    checker(&history()).delivery(wanted, all).unwrap()
}

fn lost(acknowledged: &[Fact]) -> u64 {
    checker(&history()).lost(acknowledged.iter().copied().map(Ok::<_, Infallible>)).unwrap()
}

#[test]
fn a_correct_history_passes() {
    let log = checker(&history()).log();
    assert_eq!(log, LogCheck { appended: 6, gaps: 1, inverted: 0, skipped_versions: 0 });
    assert_eq!(delivery(Wanted::All, &history()), Delivery { delivered: 6, ..Delivery::default() });
    assert_eq!(lost(&history()), 0);
    let odd: Vec<Fact> = history().into_iter().filter(|fact| fact.stream == 1).collect();
    assert_eq!(delivery(Wanted::Odd, &odd), Delivery { delivered: 3, ..Delivery::default() });
}

#[test]
fn a_missed_event_is_reported() {
    for left_out in 0..6 {
        let mut delivered = history();
        delivered.remove(left_out);
        assert_eq!(delivery(Wanted::All, &delivered), Delivery { delivered: 5, missed: 1, ..Delivery::default() });
    }
    assert_eq!(delivery(Wanted::Odd, &[]), Delivery { missed: 3, ..Delivery::default() });
}

#[test]
fn an_event_delivered_twice_is_reported() {
    for again in 0..6 {
        let mut delivered = history();
        delivered.push(delivered[again]);
        assert_eq!(delivery(Wanted::All, &delivered), Delivery { delivered: 7, duplicated: 1, ..Delivery::default() });
    }
}

#[test]
fn an_event_delivered_late_is_reported() {
    let mut delivered = history();
    delivered.swap(2, 3);
    let across_streams = Delivery { delivered: 6, inverted: 1, ..Delivery::default() };
    assert_eq!(delivery(Wanted::All, &delivered), across_streams);
    let mut delivered = history();
    delivered.swap(2, 4);
    let in_stream = delivery(Wanted::All, &delivered);
    assert_eq!((in_stream.inverted, in_stream.inverted_in_stream), (2, 1), "{in_stream:?}");
}

#[test]
fn an_event_that_is_not_in_the_log_is_reported() {
    let untrue = Delivery { delivered: 7, untrue: 1, ..Delivery::default() };
    // Rolled back, and beyond the end.
    for (position, stream, version) in [(4, 1, 3), (99, 1, 4)] {
        let mut delivered = history();
        delivered.push(fact(position, stream, version));
        assert_eq!(delivery(Wanted::All, &delivered), untrue);
    }
    // Another event has its position.
    for other in [Fact { tail: 1, ..fact(7, 2, 3) }, Fact { version: 4, ..fact(7, 2, 3) }, fact(7, 4, 3)] {
        let mut delivered = history();
        delivered.push(other);
        assert_eq!(delivery(Wanted::All, &delivered), untrue);
    }
    // In the log, but the filter does not match it.
    assert_eq!(delivery(Wanted::Odd, &history()), Delivery { delivered: 6, untrue: 3, ..Delivery::default() });
}

#[test]
fn a_skipped_version_is_reported() {
    let log = checker(&[fact(1, 1, 1), fact(2, 1, 2), fact(3, 1, 5), fact(4, 2, 2)]).log();
    assert_eq!((log.skipped_versions, log.inverted), (3, 0));
}

#[test]
fn versions_that_decrease_while_positions_increase_are_reported() {
    let log = checker(&[fact(1, 1, 2), fact(2, 1, 1), fact(3, 1, 3)]).log();
    assert_eq!((log.skipped_versions, log.inverted), (0, 1));
}

#[test]
fn an_acknowledged_event_that_is_lost_is_reported() {
    assert_eq!(lost(&[fact(3, 1, 2), fact(8, 1, 4)]), 1);
    assert_eq!(lost(&[fact(4, 1, 3)]), 1);
    // Another event has its position.
    assert_eq!(lost(&[Fact { tail: 1, ..fact(3, 1, 2) }]), 1);
}

#[test]
fn units_of_work_that_are_stored_in_part_are_reported() {
    let unit = UNIT_STREAMS.start;
    let checker = checker(&[fact(1, unit, 1), fact(2, 1, 1), fact(3, unit, 2), fact(4, unit + 1, 1)]);
    assert_eq!(checker.torn(vec![12, 3, 9]), 0);
    assert_eq!(checker.torn(vec![3, 9]), 1);
    assert_eq!(checker.torn(vec![3, 9, 12, 12]), 1);
    // The row of an event that belongs to no unit of work.
    assert_eq!(checker.torn(vec![3, 6, 12]), 2);
    assert_eq!(checker.torn(vec![]), 3);
}
