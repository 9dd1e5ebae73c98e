//! Which snapshots of a stream to delete: pure.

use std::collections::{BTreeMap, BTreeSet};

/// How many snapshots of a stream stay under one key.
pub(crate) const MOST_PER_KEY: usize = 16;
/// Under how many keys: those under which a snapshot was saved last. A rolling deployment needs two.
pub(crate) const MOST_KEYS: usize = 4;

/// What is known of a saved snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) is_in_log: bool,
    /// When it was saved, in any unit.
    pub(crate) recorded_at: i64,
}

/// The indexes of the rows, all of one stream, that are too many.
///
/// Rows of a history that is gone go first. Of those under one key the latest stays; of the older ones those stay whose
/// distances grow slowly with their age, so that reads of the past have one not far below, also in the middle of a long stream.
pub(crate) fn surplus(rows: &[Row]) -> Vec<usize> {
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut surplus = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        if row.is_in_log {
            by_key.entry(&row.key).or_default().push(index);
        } else {
            surplus.insert(index);
        }
    }
    let mut kept: Vec<Vec<usize>> = by_key.into_values().collect();
    kept.sort_by_key(|indexes| std::cmp::Reverse(indexes.iter().map(|&index| rows[index].recorded_at).max()));
    surplus.extend(kept.iter().skip(MOST_KEYS).flatten());
    for mut indexes in kept.into_iter().take(MOST_KEYS) {
        indexes.sort_by_key(|&index| rows[index].version);
        while indexes.len() > MOST_PER_KEY {
            let versions: Vec<i64> = indexes.iter().map(|&index| rows[index].version).collect();
            surplus.insert(indexes.remove(least_missed(&versions)));
        }
    }
    surplus.into_iter().collect()
}

/// The index of the version, other than the last, that would leave the smallest gap in proportion to the square root of its age.
/// In proportion to the age itself, the first half of the stream would have none. The versions rise; there are two at least.
fn least_missed(versions: &[i64]) -> usize {
    let last = versions[versions.len() - 1];
    let gap_for_age = |at: usize| {
        let before = if at == 0 { 0 } else { versions[at - 1] };
        let (gap, age) = (versions[at + 1] - before, last - before);
        // Both are positive, as versions count from 1 and rise.
        gap as f64 / (age as f64).sqrt()
    };
    (0..versions.len() - 1).min_by(|&a, &b| gap_for_age(a).total_cmp(&gap_for_age(b))).unwrap_or_default()
}
