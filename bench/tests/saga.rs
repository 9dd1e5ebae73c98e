//! Order sagas of the driver against a payment service that gives every kind of answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What the service does with a request.
#[derive(Clone, Copy)]
enum Answer {
    /// The effect, once for each key, and this status line and headers.
    Done(&'static str),
    /// No effect, and these.
    Not(&'static str),
    /// The effect, and the connection ends without an answer.
    Ends,
    /// The effect, and no answer as long as the caller waits.
    Silence,
}
use Answer::{Done, Ends, Not, Silence};

/// Every order has a kind of service of its own: the answers to its payment, and to its refund. The last answer is repeated.
const ORDERS: [(&[Answer], &[Answer], &str); 12] = [
    (&[Done("200 OK")], &[], "completed"),
    (&[Not("429 Too Many Requests"), Done("201 Created")], &[], "completed"),
    (&[Not("409 Conflict\r\nretry-after: 1"), Done("204 No Content")], &[], "completed"),
    (&[Not("503 Service Unavailable\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT"), Done("200 OK")], &[], "completed"),
    (&[Silence, Done("200 OK")], &[], "completed"),
    (&[Ends, Done("200 OK")], &[], "completed"),
    (&[Done("500 Internal Server Error"), Done("200 OK")], &[], "completed"),
    (&[Not("402 Payment Required")], &[], "compensated"),
    (&[Not("409 Conflict")], &[], "compensated"),
    (&[Done("504 Gateway Timeout")], &[Not("429 Too Many Requests"), Done("200 OK")], "compensated"),
    // A later refusal does not undo what an earlier attempt may have done.
    (&[Silence, Not("422 Unprocessable Content")], &[Done("200 OK")], "compensated"),
    (&[Done("502 Bad Gateway")], &[Not("403 Forbidden")], "stuck"),
];

/// What has come, and which keys had their effect.
#[derive(Default)]
struct Book {
    calls: BTreeMap<String, usize>,
    effects: BTreeSet<String>,
}

fn serve(book: &Arc<Mutex<Book>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let book = Arc::clone(book);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let book = Arc::clone(&book);
            std::thread::spawn(move || answer(stream.expect("it connects"), &book));
        }
    });
    format!("http://{address}/payments")
}

fn answer(mut stream: TcpStream, book: &Mutex<Book>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut head, mut key, mut length) = (String::new(), String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a request") > 0, "it ends in its head");
    }
    assert!(head.starts_with("POST /payments HTTP/1.1\r\n"), "{head}");
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = value.to_owned(),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let payment: Value = serde_json::from_slice(&body).expect("JSON");
    let order = payment["order"].as_str().expect("an order");
    let (kind, direction) = if key.ends_with("/do") { ("charge", "do") } else { ("refund", "undo") };
    assert_eq!((payment["kind"].as_str(), payment["cents"].as_u64()), (Some(kind), Some(1_250)));
    assert_eq!(key, format!("{order}/charge/{direction}"), "the key of the step");
    let number: usize = order.strip_prefix("order-").and_then(|number| number.parse().ok()).expect("a number");
    let (payments, refunds, _) = ORDERS[number - 1];
    let answers = if kind == "charge" { payments } else { refunds };
    let answer = {
        let mut book = book.lock().expect("no holder panics");
        let call = book.calls.entry(key.clone()).or_default();
        let answer = answers[(*call).min(answers.len() - 1)];
        *call += 1;
        if !matches!(answer, Not(_)) {
            book.effects.insert(key);
        }
        answer
    };
    match answer {
        Done(line) | Not(line) => {
            write!(stream, "HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").expect("it is answered");
        }
        Ends => {}
        // The other side ends the connection when it waits no longer.
        Silence => drop(reader.read(&mut [0])),
    }
}

/// Runs the driver on a new store, and again, which changes nothing.
fn check(db: &str) {
    let book = Arc::<Mutex<Book>>::default();
    let url = serve(&book);
    let orders = ORDERS.len().to_string();
    let drive = || {
        let output = Command::new(env!("CARGO_BIN_EXE_annals-drive"))
            .args(["saga", "--db", db, "--pay", &url, "--orders", &orders])
            .args(["--timeout-ms", "300", "--wait-ms", "20", "--attempts", "3"])
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("it prints text");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|line| (line["id"].as_str().expect("text").to_owned(), line)).collect::<BTreeMap<_, _>>()
    };
    let ends = drive();
    assert_eq!(ends.len(), ORDERS.len());
    for (number, (payments, refunds, end)) in (1..).zip(ORDERS) {
        let (id, line) = (format!("order-{number}"), &ends[&format!("order-{number}")]);
        assert_eq!(line["r"], end, "{line}");
        let book = book.lock().expect("no holder panics");
        let calls = |direction| book.calls.get(&format!("{id}/charge/{direction}")).copied().unwrap_or_default();
        let effect = |direction| book.effects.contains(&format!("{id}/charge/{direction}"));
        // An unknown outcome is tried as often as there are attempts, and the others as long as it takes.
        let all_unknown = payments.len() == 1 && !matches!(payments[0], Done("200 OK") | Not(_));
        assert_eq!(calls("do"), if all_unknown { 3 } else { payments.len() }, "{line}");
        assert_eq!(calls("undo"), refunds.len(), "{line}");
        match end {
            "completed" => assert!(effect("do") && !effect("undo"), "{line}"),
            "compensated" => assert_eq!(effect("do"), effect("undo"), "{line}"),
            _ => assert_eq!((line["at"].as_str(), effect("undo")), (Some("charge"), false), "{line}"),
        }
    }
    let before = book.lock().expect("no holder panics").calls.clone();
    let again = drive();
    assert!(again.iter().all(|(id, line)| line["r"] == ends[id]["r"]));
    assert_eq!(book.lock().expect("no holder panics").calls, before, "what has ended is not called again");
}

/// The full size is measured by hand: `bench/README.md`.
#[test]
fn sagas_that_wait_cost_little_memory_and_are_found_in_time() {
    let output = Command::new(env!("CARGO_BIN_EXE_annals-bench"))
        .args(["saga-waiting", "--waiting", "500", "--json"])
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figure = |name: &str| report[name].as_f64().expect("a number");
    assert_eq!(figure("waiting"), 500.0);
    assert!(figure("waiting_mb") < 100.0 && figure("before_mb") > 0.0, "{report}");
    assert!(figure("signal_p50_ms") < 2_000.0 && figure("late_p50_ms") < 2_000.0, "{report}");
}

#[test]
fn sagas_end_as_the_answers_of_the_payment_service_say() {
    let folder = tempfile::tempdir().expect("a folder");
    check(&format!("sqlite:{}", folder.path().join("log.db").display()));
}

#[tokio::test]
async fn sagas_end_as_the_answers_of_the_payment_service_say_on_postgresql() {
    let database = annals_scratch::Database::empty().await;
    let url = database.url().to_owned();
    tokio::task::spawn_blocking(move || check(&url)).await.expect("it does not panic");
}
