//! Short runs of `annals-bench torture`, as the long one is made by hand: ours must find nothing wrong, the naive reader
//! must be found out.

use std::process::Command;

use serde_json::Value;

/// Runs it and gives its report, and whether it ended with the status for nothing wrong or the one for something.
fn torture(arguments: &[&str]) -> (Value, bool) {
    let seed = std::env::var("ANNALS_SEED").unwrap_or_else(|_| fastrand::u64(..1_000_000).to_string());
    println!("ANNALS_SEED={seed}");
    let output = Command::new(env!("CARGO_BIN_EXE_annals-bench"))
        .args(["torture", "--store", "postgres", "--json", "--writers", "16", "--processes", "2", "--readers", "4"])
        .args(["--seed", &seed])
        .args(arguments)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let told = || format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let sound = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{}", told()),
    };
    (serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {}", told())), sound)
}

/// A number of the report, by its path.
fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {path} in {report}"))
}

fn check_sound((report, sound): (Value, bool)) -> Value {
    let delivered =
        ["missed", "duplicated", "inverted", "inverted_in_stream", "untrue"].map(|n| format!("/delivered/{n}"));
    let kept = ["/lost", "/torn", "/log/holes", "/log/inverted"].map(str::to_owned);
    for wrong in delivered.iter().chain(&kept) {
        assert_eq!(number(&report, wrong), 0, "{wrong} in {report}");
    }
    assert!(sound, "{report}");
    report
}

fn check_done(report: &Value, paths: &[&str]) {
    for path in paths {
        assert!(number(report, path) > 0, "{path} in {report}");
    }
}

#[test]
fn racing_processes_hide_no_event_from_our_readers() {
    let report = check_sound(torture(&["--seconds", "2", "--crash-every", "0"]));
    assert!(number(&report, "/tally/appends") > 500, "{report}");
    // Three of the five readers want everything.
    assert!(number(&report, "/delivered/delivered") >= 3 * number(&report, "/log/appended"), "{report}");
    let tallies = ["library", "units", "to_several_streams", "rolled_back", "savepoints", "prepared"];
    check_done(&report, &tallies.map(|tally| format!("/tally/{tally}")).each_ref().map(String::as_str));
    check_done(&report, &["/killed_backends", "/resumed", "/log/dead_numbers"]);
}

/// Once in the middle of work, once in silence, so that what was drawn before is drawn again.
#[test]
fn a_server_that_is_stopped_at_once_loses_and_hides_nothing() {
    let arguments = ["--seconds", "1.5", "--crash-every", "0.5", "--crashes", "2", "--promote-every", "0"];
    let report = check_sound(torture(&arguments));
    check_done(&report, &["/crashes/numbers_again", "/tally/unknown"]);
    assert!(number(&report, "/crashes/crashes") >= 2, "{report}");
    assert!(number(&report, "/tally/appends") > 300, "{report}");
}

#[test]
fn a_standby_that_is_promoted_under_its_readers_loses_and_hides_nothing() {
    let arguments = ["--seconds", "1", "--crash-every", "0.5", "--crashes", "1", "--promote-every", "1"];
    let report = check_sound(torture(&arguments));
    check_done(&report, &["/crashes/promotions", "/on_standby"]);
    assert!(number(&report, "/tally/appends") > 300, "{report}");
}

/// The control: the same race, judged in the same way.
#[test]
fn a_naive_reader_is_found_to_miss_events() {
    let (report, sound) = torture(&["--seconds", "1.5", "--crash-every", "0", "--reader", "naive"]);
    check_done(&report, &["/delivered/missed"]);
    assert!(!sound, "{report}");
    assert_eq!(report.pointer("/failures"), Some(&Value::Array(Vec::new())), "{report}");
    for kept in ["/lost", "/torn", "/log/holes", "/log/inverted"] {
        assert_eq!(number(&report, kept), 0, "{kept} in {report}");
    }
}
