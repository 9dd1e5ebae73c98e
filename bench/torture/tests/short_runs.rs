//! Short runs of `annals-torture`. The library's readers must find nothing wrong; the naive reader must miss events.

use std::process::Command;

use serde_json::Value;

/// Runs it. Returns its report, and whether it passed.
fn torture(arguments: &[&str]) -> (Value, bool) {
    let seed = std::env::var("ANNALS_SEED").unwrap_or_else(|_| fastrand::u64(..1_000_000).to_string());
    println!("ANNALS_SEED={seed}");
    let output = Command::new(env!("CARGO_BIN_EXE_annals-torture"))
        .args(["--store", "postgres", "--json", "--writers", "16", "--processes", "2", "--readers", "4"])
        .args(["--seed", &seed])
        .args(arguments)
        .output()
        .expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let failed = || format!("{}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let passed = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{}", failed()),
    };
    (serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {}", failed())), passed)
}

/// A number of the report, by its path.
fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {path} in {report}"))
}

const KEPT: [&str; 4] = ["/lost", "/torn", "/log/skipped_versions", "/log/inverted"];

fn check_passed((report, passed): (Value, bool)) -> Value {
    let delivered =
        ["missed", "duplicated", "inverted", "inverted_in_stream", "untrue"].map(|n| format!("/delivered/{n}"));
    for wrong in delivered.iter().map(String::as_str).chain(KEPT) {
        assert_eq!(number(&report, wrong), 0, "{wrong} in {report}");
    }
    assert!(passed, "{report}");
    report
}

fn check_above_zero(report: &Value, paths: &[&str]) {
    for path in paths {
        assert!(number(report, path) > 0, "{path} in {report}");
    }
}

#[test]
fn torture_by_racing_processes_hides_no_event_from_our_readers() {
    let report = check_passed(torture(&["--seconds", "2", "--crash-every", "0"]));
    assert!(number(&report, "/tally/appends") > 500, "{report}");
    // Three of the five readers want everything.
    assert!(number(&report, "/delivered/delivered") >= 3 * number(&report, "/log/appended"), "{report}");
    let tallies = ["library", "units", "to_several_streams", "rolled_back", "savepoints", "prepared"];
    check_above_zero(&report, &tallies.map(|tally| format!("/tally/{tally}")).each_ref().map(String::as_str));
    check_above_zero(&report, &["/killed_backends", "/resumed", "/log/gaps"]);
}

/// One crash under load, and one with paused writers, so that positions are allocated again.
#[test]
fn torture_by_immediate_stops_loses_and_hides_nothing() {
    let arguments = ["--seconds", "1.5", "--crash-every", "0.5", "--crashes", "2", "--promote-every", "0"];
    let report = check_passed(torture(&arguments));
    check_above_zero(&report, &["/crashes/positions_reused", "/tally/unknown"]);
    assert!(number(&report, "/crashes/crashes") >= 2, "{report}");
    assert!(number(&report, "/tally/appends") > 300, "{report}");
}

#[test]
fn torture_by_a_promotion_loses_and_hides_nothing() {
    let arguments = ["--seconds", "1", "--crash-every", "0.5", "--crashes", "1", "--promote-every", "1"];
    let report = check_passed(torture(&arguments));
    check_above_zero(&report, &["/crashes/promotions", "/on_standby"]);
    assert!(number(&report, "/tally/appends") > 300, "{report}");
}

/// The control: the same race and the same checks.
#[test]
fn torture_finds_that_a_naive_reader_misses_events() {
    let (report, passed) = torture(&["--seconds", "1.5", "--crash-every", "0", "--reader", "naive"]);
    check_above_zero(&report, &["/delivered/missed"]);
    assert!(!passed, "{report}");
    assert_eq!(report.pointer("/failures"), Some(&Value::Array(Vec::new())), "{report}");
    for kept in KEPT {
        assert_eq!(number(&report, kept), 0, "{kept} in {report}");
    }
}
