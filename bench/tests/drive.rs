//! The driver's own history, checked as an outside checker would: several processes on one file.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

fn drive(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_annals-drive")).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

fn ids(line: &Value) -> Vec<String> {
    line["ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("text").to_owned()).collect()
}

/// The log as the driver dumps it: ids in order, and ids in order by stream.
fn dump(db: &str) -> (Vec<String>, HashMap<String, Vec<String>>) {
    let dumped: Value = serde_json::from_str(&drive(&["dump", "--db", db])).expect("one JSON object");
    let mut log = Vec::new();
    let mut streams: HashMap<String, Vec<String>> = HashMap::new();
    let mut last = 0;
    for event in dumped["final"].as_array().expect("a list") {
        let (id, stream) = (event["id"].as_str().expect("text"), event["s"].as_str().expect("text"));
        let position = event["pos"].as_i64().expect("a number");
        assert!(position > last, "positions grow");
        last = position;
        let of_stream = streams.entry(stream.to_owned()).or_default();
        of_stream.push(id.to_owned());
        assert_eq!(event["ver"].as_u64(), Some(of_stream.len() as u64), "versions have no gaps");
        log.push(id.to_owned());
    }
    (log, streams)
}

#[test]
fn histories_of_several_processes_are_correct() {
    let folder = tempfile::tempdir().expect("a folder");
    check_history(&format!("sqlite:{}", folder.path().join("log.db").display()));
}

#[tokio::test]
async fn histories_of_several_processes_are_correct_on_postgresql() {
    let database = annals_scratch::Database::empty().await;
    let url = database.url().to_owned();
    tokio::task::spawn_blocking(move || check_history(&url)).await.expect("it does not panic");
}

/// Drives the store from three processes and checks what they print.
fn check_history(db: &str) {
    let seed = std::env::var("ANNALS_SEED").unwrap_or_else(|_| "7".to_owned());
    let output = drive(&["load", "--db", db, "--procs", "3", "--secs", "1.5", "--seed", &seed]);
    let (log, streams) = dump(db);
    let positions: HashMap<&str, usize> =
        log.iter().enumerate().map(|(position, id)| (id.as_str(), position)).collect();
    assert_eq!(positions.len(), log.len(), "no id is stored twice");
    let mut acknowledged = HashSet::new();
    let mut subscriptions: HashMap<u64, u64> = HashMap::new();
    let mut seen = HashMap::new();
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in `{line}`, ANNALS_SEED={seed}"));
        match line["op"].as_str() {
            Some("append") => {
                *seen.entry(line["r"].as_str().expect("text").to_owned()).or_insert(0) += 1;
                let ids = ids(&line);
                match line["r"].as_str() {
                    Some("ok") => {
                        let stream = &streams[line["s"].as_str().expect("text")];
                        let first = stream.iter().position(|id| *id == ids[0]).expect("an acknowledged event is kept");
                        assert_eq!(&stream[first..first + ids.len()], ids, "an append is contiguous");
                        let expected = line["exp"].as_i64().expect("a number");
                        assert!(expected == -1 || expected == first as i64, "{line} is at {first}, ANNALS_SEED={seed}");
                        acknowledged.extend(ids);
                    }
                    Some("conflict" | "fail") => {
                        assert!(
                            ids.iter().all(|id| !positions.contains_key(id.as_str())),
                            "a refused append has stored an event"
                        );
                    }
                    other => panic!("{other:?} without any fault"),
                }
            }
            Some("load") => {
                let stream = streams.get(line["s"].as_str().expect("text")).cloned().unwrap_or_default();
                let ids = ids(&line);
                assert_eq!(stream[..ids.len()], ids, "a load is a prefix");
            }
            Some("sub") => {
                let client = line["c"].as_u64().expect("a number");
                let next = subscriptions.entry(client).or_default();
                assert_eq!(line["n"].as_u64(), Some(*next));
                assert_eq!(line["id"].as_str(), log.get(*next as usize).map(String::as_str), "log order, none missed");
                *next += 1;
            }
            other => panic!("unknown operation {other:?}"),
        }
    }
    assert_eq!(acknowledged.len(), log.len(), "every stored event was acknowledged");
    assert_eq!(subscriptions.len(), 3);
    assert!(seen["ok"] > 50 && seen["conflict"] > 10, "the run did too little: {seen:?}");
}

#[test]
fn what_was_acknowledged_before_a_kill_is_stored_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = format!("sqlite:{}", folder.path().join("log.db").display());
    let mut acknowledged = 0;
    for kill_after in [1, 40, 7] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_annals-drive"))
            .args(["ack", "--db", &db])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for _ in 0..kill_after {
            let line = lines.next().expect("it continues").expect("text");
            let n: usize = line.strip_prefix("ACK ").expect("an acknowledgement").parse().expect("a number");
            assert_eq!(n, acknowledged + 1, "numbers continue after the last stored one");
            acknowledged = n;
        }
        child.kill().expect("killed");
        // What was still in the pipe was acknowledged too.
        for line in lines.map_while(Result::ok) {
            acknowledged = line.strip_prefix("ACK ").and_then(|n| n.parse().ok()).unwrap_or(acknowledged);
        }
        child.wait().expect("it ended");
        let (_, streams) = dump(&db);
        let stored = streams["ack"].len();
        assert!(stored == acknowledged || stored == acknowledged + 1, "{stored} stored, {acknowledged} acknowledged");
        acknowledged = stored;
    }
}
