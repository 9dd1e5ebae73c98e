use super::thinning::{MOST_KEYS, MOST_PER_KEY, Row, surplus};

/// Saves a snapshot after every so many events, and thins after each; gives the versions that stay.
fn kept(every: i64, up_to: i64) -> Vec<i64> {
    let mut rows: Vec<Row> = Vec::new();
    for version in (every..=up_to).step_by(usize::try_from(every).expect("it is small")) {
        rows.push(Row { key: "1".to_owned(), version, is_in_log: true, recorded_at: version });
        let surplus = surplus(&rows);
        rows = (0..rows.len()).filter(|at| !surplus.contains(at)).map(|at| rows[at].clone()).collect();
        assert!(rows.len() <= MOST_PER_KEY && rows.last().is_some_and(|row| row.version == version), "{rows:?}");
    }
    rows.into_iter().map(|row| row.version).collect()
}

#[test]
fn a_snapshot_lies_not_far_below_any_version_and_nearer_below_the_latest() {
    assert_eq!(kept(100, 800), [100, 200, 300, 400, 500, 600, 700, 800]);
    for up_to in [2_000, 4_300, 10_000, 100_000] {
        let kept = kept(100, up_to);
        assert_eq!(kept.len(), MOST_PER_KEY, "{kept:?}");
        let gaps: Vec<i64> = kept.iter().scan(0, |before, &at| Some(at - std::mem::replace(before, at))).collect();
        assert!(gaps.iter().all(|gap| *gap <= up_to / 7), "{kept:?}");
        assert!(gaps[MOST_PER_KEY - 1] <= gaps[0] / 2, "{kept:?}");
    }
}

#[test]
fn snapshots_of_another_history_and_of_old_keys_go() {
    let row = |key: &str, version, is_in_log, recorded_at| Row { key: key.to_owned(), version, is_in_log, recorded_at };
    let mut rows = vec![row("a", 20, false, 1), row("a", 30, true, 2), row("a", 42, false, 3)];
    assert_eq!(surplus(&rows), [0, 2]);
    rows.extend((0..MOST_KEYS).map(|n| row(&format!("key-{n}"), 5, true, 10)));
    assert_eq!(surplus(&rows), [0, 1, 2], "the key that was used last stays, and `a` is older");
}
