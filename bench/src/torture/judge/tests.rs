use std::convert::Infallible;

use super::*;

/// A fact of stream `stream`, told from all others by its position.
fn fact(position: u64, stream: u32, version: u32) -> Fact {
    Fact { position, stream, version, tail: u32::try_from(position).unwrap() * 3 }
}

/// Streams 1 and 2 in turns; position 4 was rolled back.
fn history() -> Vec<Fact> {
    vec![fact(1, 1, 1), fact(2, 2, 1), fact(3, 1, 2), fact(5, 2, 2), fact(6, 1, 3), fact(7, 2, 3)]
}

fn judge(log: &[Fact]) -> Judge {
    let mut judge = Judge::default();
    for fact in log {
        judge.learn(fact);
    }
    judge
}

fn delivery(wanted: Wanted, delivered: &[Fact]) -> Delivery {
    let all: Vec<Result<Fact, Infallible>> = delivered.iter().copied().map(Ok).collect();
    judge(&history()).delivery(wanted, all).unwrap()
}

fn lost(acknowledged: &[Fact]) -> u64 {
    judge(&history()).lost(acknowledged.iter().copied().map(Ok::<_, Infallible>)).unwrap()
}

#[test]
fn a_true_history_has_nothing_to_report() {
    let log = judge(&history()).log();
    assert_eq!(log, LogVerdict { appended: 6, dead_numbers: 1, inverted: 0, holes: 0 });
    assert_eq!(delivery(Wanted::All, &history()), Delivery { delivered: 6, ..Delivery::default() });
    assert_eq!(lost(&history()), 0);
    let odd: Vec<Fact> = history().into_iter().filter(|fact| fact.stream == 1).collect();
    assert_eq!(delivery(Wanted::Odd, &odd), Delivery { delivered: 3, ..Delivery::default() });
}

#[test]
fn a_missed_event_is_reported() {
    for left_out in 0..6 {
        let mut given = history();
        given.remove(left_out);
        assert_eq!(delivery(Wanted::All, &given), Delivery { delivered: 5, missed: 1, ..Delivery::default() });
    }
    assert_eq!(delivery(Wanted::Odd, &[]), Delivery { missed: 3, ..Delivery::default() });
}

#[test]
fn an_event_that_comes_twice_is_reported() {
    for again in 0..6 {
        let mut given = history();
        given.push(given[again]);
        assert_eq!(delivery(Wanted::All, &given), Delivery { delivered: 7, duplicated: 1, ..Delivery::default() });
    }
}

#[test]
fn an_event_that_comes_late_is_reported() {
    let mut given = history();
    given.swap(2, 3);
    let across_streams = Delivery { delivered: 6, inverted: 1, ..Delivery::default() };
    assert_eq!(delivery(Wanted::All, &given), across_streams);
    let mut given = history();
    given.swap(2, 4);
    let in_stream = delivery(Wanted::All, &given);
    assert_eq!((in_stream.inverted, in_stream.inverted_in_stream), (2, 1), "{in_stream:?}");
}

#[test]
fn an_event_that_is_not_in_the_log_is_reported() {
    let untrue = Delivery { delivered: 7, untrue: 1, ..Delivery::default() };
    // Rolled back, beyond the end, and one whose number went to another event after a crash.
    for (position, stream, version) in [(4, 1, 3), (99, 1, 4)] {
        let mut given = history();
        given.push(fact(position, stream, version));
        assert_eq!(delivery(Wanted::All, &given), untrue);
    }
    for other in [Fact { tail: 1, ..fact(7, 2, 3) }, Fact { version: 4, ..fact(7, 2, 3) }, fact(7, 4, 3)] {
        let mut given = history();
        given.push(other);
        assert_eq!(delivery(Wanted::All, &given), untrue);
    }
    // In the log, but not what the reader asked for.
    assert_eq!(delivery(Wanted::Odd, &history()), Delivery { delivered: 6, untrue: 3, ..Delivery::default() });
}

#[test]
fn a_version_that_is_left_out_is_reported() {
    let log = judge(&[fact(1, 1, 1), fact(2, 1, 2), fact(3, 1, 5), fact(4, 2, 2)]).log();
    assert_eq!((log.holes, log.inverted), (3, 0));
}

#[test]
fn versions_that_fall_while_positions_rise_are_reported() {
    let log = judge(&[fact(1, 1, 2), fact(2, 1, 1), fact(3, 1, 3)]).log();
    assert_eq!((log.holes, log.inverted), (0, 1));
}

#[test]
fn an_acknowledged_event_that_is_gone_is_reported() {
    assert_eq!(lost(&[fact(3, 1, 2), fact(8, 1, 4)]), 1);
    assert_eq!(lost(&[fact(4, 1, 3)]), 1);
    // Its number was handed out again.
    assert_eq!(lost(&[Fact { tail: 1, ..fact(3, 1, 2) }]), 1);
}

#[test]
fn units_of_work_of_which_only_a_part_is_there_are_reported() {
    let unit = UNIT_STREAMS.start;
    let judge = judge(&[fact(1, unit, 1), fact(2, 1, 1), fact(3, unit, 2), fact(4, unit + 1, 1)]);
    assert_eq!(judge.torn(vec![12, 3, 9]), 0);
    assert_eq!(judge.torn(vec![3, 9]), 1);
    assert_eq!(judge.torn(vec![3, 9, 12, 12]), 1);
    // That of an event that no unit of work has appended, instead of one that it has.
    assert_eq!(judge.torn(vec![3, 6, 12]), 2);
    assert_eq!(judge.torn(vec![]), 3);
}
