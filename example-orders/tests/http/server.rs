//! A service of the test's own, and how it is asked.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Where the service stores everything.
pub(crate) enum Store {
    File(PathBuf, #[expect(dead_code, reason = "it is removed when it is dropped")] tempfile::TempDir),
    Postgres(annals_scratch::Database),
}

/// A service that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) client: reqwest::Client,
    pub(crate) store: Store,
    settings: Vec<(String, String)>,
    services: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

pub(crate) const ADMIN: &str = "alpha-admin.demo";
pub(crate) const ALICE: &str = "alpha-alice.demo";
pub(crate) const BOB: &str = "alpha-bob.demo";
pub(crate) const BETA: &str = "beta-admin.demo";
/// An operator of the shop alpha.
pub(crate) const ALPHA_OPERATOR: &str = "alpha-operator.demo";
/// One of no shop.
pub(crate) const OPERATOR: &str = "operator.demo";

impl Store {
    pub(crate) fn file() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::File(folder.path().join("orders.db"), folder)
    }

    pub(crate) async fn postgres() -> Self {
        Self::Postgres(annals_scratch::Database::empty().await)
    }

    /// One of each.
    pub(crate) async fn each() -> [Self; 2] {
        [Self::file(), Self::postgres().await]
    }
}

impl Server {
    /// Starts a service with the keys of the demonstration, and no limit that a test would meet.
    pub(crate) async fn on(store: Store) -> Self {
        Self::with(store, &[]).await
    }

    pub(crate) async fn with(store: Store, settings: &[(&str, &str)]) -> Self {
        let generous = [("ORDERS_LIMITS__CALLS", "1000000"), ("ORDERS_LIMITS__BURST", "1000000")];
        let settings = generous.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = settings.collect();
        let services = tempfile::tempdir().expect("a folder");
        let (child, address) = start(&store, &settings, services.path());
        Self { child, address, client: reqwest::Client::new(), store, settings, services }
    }

    /// Kills the service, as a crash does, and starts it again on the same data.
    pub(crate) fn crash(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ended");
        (self.child, self.address) = start(&self.store, &self.settings, self.services.path());
    }

    /// Asks the service to end, and waits until it has; gives what it printed since its start.
    #[cfg(unix)]
    pub(crate) fn terminate(&mut self) -> (std::process::ExitStatus, String) {
        let signalled = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(signalled.expect("signalled").success());
        let status = self.child.wait().expect("it ended");
        let mut printed = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut printed).expect("text");
        (status, printed)
    }

    pub(crate) fn request(&self, method: &str, path: &str, key: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(key)
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        Answer::of(self.request("GET", path, key)).await
    }

    /// A write under a key of its own.
    pub(crate) async fn post(&self, path: &str, key: &str, once: &str, body: &Value) -> Answer {
        self.write("POST", path, key, once, body).await
    }

    pub(crate) async fn write(&self, method: &str, path: &str, key: &str, once: &str, body: &Value) -> Answer {
        Answer::of(self.request(method, path, key).header("idempotency-key", once).json(body)).await
    }

    /// Places an order of one line; gives its id and the answer's position.
    pub(crate) async fn place(&self, key: &str, once: &str, customer: &str, cents: i64) -> (String, String) {
        let body = order(customer, 1, cents);
        let placed = self.post("/orders", key, once, &body).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        (placed.json()["order_id"].as_str().expect("an id").to_owned(), placed.header("x-position").to_owned())
    }
}

/// An order of one line.
pub(crate) fn order(customer: &str, quantity: u32, cents: i64) -> Value {
    let price = serde_json::json!({ "minor": cents, "currency": "EUR" });
    serde_json::json!({ "customer": customer, "lines": [{ "product": "kettle", "quantity": quantity, "price": price }] })
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.expect("text") }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Status and code of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{} {}", self.status, self.text);
        assert_eq!(self.json()["status"], self.status, "{}", self.text);
        (self.status, self.json()["code"].as_str().expect("a code").to_owned())
    }
}

fn start(store: &Store, settings: &[(String, String)], services: &Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    command.args(["--listen", "127.0.0.1:0"]).env_remove("DATABASE_URL");
    command.arg("--services").arg(services);
    match store {
        Store::File(file, _) => command.arg("--db").arg(file),
        Store::Postgres(database) => command.env("DATABASE_URL", database.url()),
    };
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next().and_then(Result::ok);
    let address =
        first.as_deref().and_then(|line| line.split_once("http://")?.1.split_once(';')).map(|(address, _)| address);
    let Some(address) = address.map(str::to_owned) else {
        child.wait().expect("it ended");
        let mut errors = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        panic!("it did not start: {first:?} {errors}");
    };
    // Somebody has to read what it prints, or it would stop at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
