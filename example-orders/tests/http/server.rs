//! A service of the test's own, and how it is asked.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use annals::engine::{IdSource, Payload, TimeOrderedIds};
use annals::{EventId, EventStore, ExpectedVersion, NewEvent, StreamId, Tenant};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::document;

/// Where the service stores everything. Clones are the same.
#[derive(Clone)]
pub(crate) enum Store {
    File(PathBuf, #[expect(dead_code, reason = "it is removed when it is dropped")] Arc<tempfile::TempDir>),
    Postgres(Arc<annals_scratch::Database>),
}

/// A service that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    /// What it has written to its standard error since its start.
    log: Log,
    pub(crate) address: String,
    pub(crate) client: reqwest::Client,
    pub(crate) store: Store,
    settings: Vec<(String, String)>,
    services: tempfile::TempDir,
}

/// What a process writes to its standard error. Somebody has to read that, or a process would stop at a full pipe.
struct Log(Arc<Mutex<String>>, Option<JoinHandle<()>>);

impl Log {
    fn of(child: &mut Child) -> Self {
        let (written, errors) = (Arc::<Mutex<String>>::default(), child.stderr.take().expect("a pipe"));
        let into = Arc::clone(&written);
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                *into.lock().expect("no panic") += &(line + "\n");
            }
        });
        Self(written, Some(reading))
    }

    fn so_far(&self) -> String {
        self.0.lock().expect("no panic").clone()
    }

    /// All of a process that has ended.
    fn all(&mut self) -> String {
        self.1.take().into_iter().for_each(|reading| reading.join().expect("no panic"));
        self.so_far()
    }
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
        Self::File(folder.path().join("orders.db"), Arc::new(folder))
    }

    pub(crate) async fn postgres() -> Self {
        Self::Postgres(Arc::new(annals_scratch::Database::empty().await))
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
        let (child, log, address) = start(&store, &settings, services.path());
        Self { child, log, address, client: reqwest::Client::new(), store, settings, services }
    }

    /// A second process of the same service.
    pub(crate) async fn beside(other: &Self) -> Self {
        Self::on(other.store.clone()).await
    }

    /// Kills the service, as a crash does, and starts it again on the same data.
    pub(crate) fn crash(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ended");
        (self.child, self.log, self.address) = start(&self.store, &self.settings, self.services.path());
    }

    /// Asks the service to end, and waits until it has; gives what it printed since its start.
    #[cfg(unix)]
    pub(crate) fn terminate(&mut self) -> (std::process::ExitStatus, String) {
        let signalled = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(signalled.expect("signalled").success());
        let status = self.child.wait().expect("it ended");
        (status, self.log.all())
    }

    /// What it has written to its log since its start.
    pub(crate) fn log(&self) -> String {
        self.log.so_far()
    }

    pub(crate) fn request(&self, method: &str, path: &str, key: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(key)
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.documented("GET", path, self.request("GET", path, key)).await
    }

    /// A write under a key of its own.
    pub(crate) async fn post(&self, path: &str, key: &str, once: &str, body: &Value) -> Answer {
        self.write("POST", path, key, once, body).await
    }

    pub(crate) async fn write(&self, method: &str, path: &str, key: &str, once: &str, body: &Value) -> Answer {
        let request = self.request(method, path, key).header("idempotency-key", once).json(body);
        self.documented(method, path, request).await
    }

    /// The answer, which is one that the document of the API has.
    pub(crate) async fn documented(&self, method: &str, path: &str, request: RequestBuilder) -> Answer {
        let answer = Answer::of(request).await;
        document::check(document::document(self).await, method, path, &answer);
        answer
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

impl Server {
    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, key: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let answer = self.get(path, key).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < end, "{path}: {}", answer.text);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Appends an event that cannot be read to an order, beside a service on a file.
    pub(crate) async fn unreadable(&self, shop: &str, order: &str) {
        let Store::File(file, _) = &self.store else { panic!("a file") };
        let event = NewEvent::raw(
            EventId::new(TimeOrderedIds.next_id()).expect("an id"),
            "order.paid",
            1,
            Payload::from_json(
                &serde_json::json!({ "payment": "p", "amount": { "minor": 1, "currency": "of another build" } })
                    .to_string(),
            )
            .expect("JSON"),
        );
        let stream = StreamId::new(Tenant::new(shop).expect("a tenant"), "order", order).expect("an id");
        let store = annals::sqlite(file).await.expect("opened");
        store.append(&stream, ExpectedVersion::Any, vec![event.expect("an event")]).await.expect("appended");
        store.close().await;
    }

    /// Switches a feature on or off, in all shops.
    pub(crate) async fn switch(&self, toggle: &str, on: bool) -> Answer {
        static SWITCHED: AtomicU32 = AtomicU32::new(0);
        let once = format!("switch-{}", SWITCHED.fetch_add(1, Ordering::Relaxed));
        let body = serde_json::json!({ "on": on, "reason": "a test" });
        let path = format!("/operator/toggles/{toggle}");
        let done = self.write("PUT", &path, OPERATOR, &once, &body).await;
        assert_eq!(done.status, 200, "{}", done.text);
        done
    }
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

fn start(store: &Store, settings: &[(String, String)], services: &Path) -> (Child, Log, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    command.args(["--listen", "127.0.0.1:0"]).env_remove("DATABASE_URL");
    command.arg("--services").arg(services);
    match store {
        Store::File(file, _) => command.arg("--db").arg(file),
        Store::Postgres(database) => command.env("DATABASE_URL", database.url()),
    };
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = Log::of(&mut child);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next().and_then(Result::ok);
    let address =
        first.as_deref().and_then(|line| line.split_once("http://")?.1.split_once(';')).map(|(address, _)| address);
    let Some(address) = address.map(str::to_owned) else {
        child.wait().expect("it ended");
        panic!("it did not start: {first:?} {}", log.all());
    };
    // Somebody has to read what it prints, or it would stop at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, log, address)
}

/// One of the services as a process of its own, which is killed when it is dropped.
pub(crate) struct Service(Child, Log);

impl Service {
    /// What it has written to its log since its start.
    pub(crate) fn log(&self) -> String {
        self.1.so_far()
    }
}

/// Starts one with its files in `folder`; gives its address too.
pub(crate) fn service(kind: &str, folder: &Path, settings: &[(&str, &str)]) -> (Service, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    command.args(["service", kind, "--port", "0", "--services"]).arg(folder).env_remove("DATABASE_URL");
    command.envs(settings.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let log = Log::of(&mut child);
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    let service = Service(child, log);
    let url = first.split_once(" is at ").and_then(|(_, rest)| rest.split_once(". "));
    let (url, _) = url.unwrap_or_else(|| panic!("it did not start: {first} {}", service.log()));
    (service, url.to_owned())
}

/// It may have ended already.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
