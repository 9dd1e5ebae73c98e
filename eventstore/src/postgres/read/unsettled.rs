//! Allocated positions, and the writers that must end before the log is final up to them. Pure.

use std::collections::VecDeque;

/// How many positions are kept with their writers. If more readers wait at a time, they share.
const MOST: usize = 32;

/// What readers still wait for, the lowest position first.
///
/// A writer that takes the announcement lock after a position was read allocates a higher one, so a wait for that position need not
/// include it. Therefore a position keeps its own writers however often the lock is read. If each look replaced them,
/// writers that always overlap would block readers forever.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(VecDeque<PendingPosition>);

#[derive(Debug)]
struct PendingPosition {
    last: i64,
    writers: Vec<String>,
}

impl Unsettled {
    /// Adds the last allocated position, and the holders of the announcement lock as read *after* it.
    pub(crate) fn add(&mut self, last: i64, holders: &[String]) {
        if self.0.back().is_some_and(|newest| newest.last >= last) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_back();
        }
        self.0.push_back(PendingPosition { last, writers: holders.to_vec() });
    }

    /// Takes the present holders of the announcement lock, and returns the highest position whose writers have all ended.
    pub(crate) fn done(&mut self, holders: &[String]) -> Option<i64> {
        for number in &mut self.0 {
            number.writers.retain(|writer| holders.contains(writer));
            // A writer that has prepared its transaction continues as a prepared transaction.
            for prepared in holders.iter().filter(|holder| is_prepared(holder)) {
                if !number.writers.contains(prepared) {
                    number.writers.push(prepared.clone());
                }
            }
        }
        self.0.iter().take_while(|number| number.writers.is_empty()).last().map(|number| number.last)
    }

    /// Removes settled positions.
    pub(crate) fn settled(&mut self, upto: i64) {
        while self.0.front().is_some_and(|number| number.last <= upto) {
            self.0.pop_front();
        }
    }
}

/// A prepared transaction belongs to no backend, so its number follows a `-1`.
fn is_prepared(holder: &str) -> bool {
    holder.starts_with("-1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(holders: &str) -> Vec<String> {
        holders.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_position_waits_for_its_own_writers_and_not_for_later_ones() {
        let mut unsettled = Unsettled::default();
        unsettled.add(10, &names("3/1 4/1"));
        assert_eq!(unsettled.done(&names("3/1 4/1")), None);
        assert_eq!(unsettled.done(&names("4/1 5/1")), None);
        unsettled.add(20, &names("4/1 5/1"));
        assert_eq!(unsettled.done(&names("5/1 6/1")), Some(10));
        unsettled.settled(10);
        assert_eq!(unsettled.done(&names("6/1")), Some(20));
    }

    #[test]
    fn nothing_is_done_twice_or_before_what_is_below_it() {
        let mut unsettled = Unsettled::default();
        unsettled.add(10, &names("3/1"));
        unsettled.add(20, &names(""));
        assert_eq!(unsettled.done(&names("3/1")), None);
        assert_eq!(unsettled.done(&names("")), Some(20));
        unsettled.settled(20);
        assert_eq!(unsettled.done(&names("")), None);
    }

    #[test]
    fn a_writer_that_continues_as_a_prepared_transaction_is_waited_for() {
        let mut unsettled = Unsettled::default();
        unsettled.add(10, &names("3/1"));
        assert_eq!(unsettled.done(&names("-1/77")), None);
        assert_eq!(unsettled.done(&names("3/2")), Some(10));
    }

    #[test]
    fn few_of_many_positions_are_kept_and_each_is_settled() {
        let mut unsettled = Unsettled::default();
        for last in 1..=1_000 {
            unsettled.add(last, &names(if last < 500 { "3/1" } else { "3/1 4/1" }));
            assert_eq!(unsettled.done(&names("3/1 4/1")), None);
        }
        assert_eq!(unsettled.0.len(), MOST);
        assert_eq!(unsettled.done(&names("4/1")), Some(MOST as i64 - 1));
        assert_eq!(unsettled.done(&names("")), Some(1_000));
    }
}
