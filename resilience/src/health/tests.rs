use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use tokio::runtime::Runtime;

use super::*;
use crate::loopback::{Answer, ask, serve};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET /health/{path}"), &[], "").await
}

async fn codes(address: SocketAddr) -> [u16; 3] {
    [get(address, "live").await.status, get(address, "startup").await.status, get(address, "ready").await.status]
}

#[tokio::test(flavor = "multi_thread")]
async fn from_start_to_end_each_route_says_what_is_due() {
    let health = Health::builder().live_port(loopback()).start().unwrap();
    let address = serve(health.routes()).await;
    let own = health.live_address().unwrap();
    assert_eq!(codes(address).await, [200, 503, 503]);
    assert_eq!(get(own, "live").await.status, 200);
    health.started();
    assert_eq!(codes(address).await, [200, 200, 200]);
    health.begin_shutdown();
    assert_eq!(codes(address).await, [200, 200, 503], "startup is done for good");
    assert_eq!(get(address, "ready").await.body, r#"{"status":"draining","checks":{}}"#);
    assert_eq!(get(own, "live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_before_the_start_is_done_is_never_ready() {
    let health = Health::builder().start().unwrap();
    let address = serve(health.routes()).await;
    health.begin_shutdown();
    health.started();
    assert_eq!(codes(address).await, [200, 200, 503]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_begins_while_checks_run_is_not_missed() {
    let (asked, now) = tokio::sync::oneshot::channel();
    let asked = Mutex::new(Some(asked));
    let check = move || {
        if let Some(asked) = asked.lock().unwrap().take() {
            asked.send(()).unwrap();
        }
        async {
            tokio::time::sleep(ms(100)).await;
            Ok::<_, String>(())
        }
    };
    let health = Health::builder().critical("slow", check).start().unwrap();
    health.started();
    let ready = tokio::spawn({
        let health = health.clone();
        async move { health.ready().await }
    });
    now.await.unwrap();
    health.begin_shutdown();
    assert_eq!(ready.await.unwrap().status, Status::Draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_failure_is_503_and_an_informational_one_degrades() {
    async fn fine() -> Result<(), String> {
        Ok(())
    }
    let broken = Arc::new(AtomicBool::new(false));
    let seen = broken.clone();
    let database = move || {
        let broken = seen.load(Ordering::SeqCst);
        async move { if broken { Err("no connection") } else { Ok(()) } }
    };
    let health = Health::builder()
        .check(HealthCheck::critical("database", database).cache(Duration::ZERO))
        .critical("stock", fine)
        .check(HealthCheck::informational("search", std::future::pending::<Result<(), String>>).time_limit(ms(50)))
        .start()
        .unwrap();
    health.started();
    let address = serve(health.routes()).await;
    let ready = get(address, "ready").await;
    let body: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!((ready.status, &body["status"]), (200, &"degraded".into()));
    assert_eq!(body["checks"]["search"]["error"], "no answer within 50ms");
    assert_eq!(body["checks"]["database"]["status"], "up");
    assert_eq!(ready.header("content-type"), Some("application/json"));
    assert_eq!(ready.header("cache-control"), Some("no-store"));
    broken.store(true, Ordering::SeqCst);
    let ready = get(address, "ready").await;
    let body: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!((ready.status, &body["status"]), (503, &"down".into()));
    assert_eq!(body["checks"]["database"]["error"], "no connection");
}

#[tokio::test(start_paused = true)]
async fn a_check_runs_once_for_many_questions_and_again_when_its_result_is_old() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let check = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(ms(10)).await;
            Err("down")
        }
    };
    let health = Health::builder().critical("database", check).start().unwrap();
    health.started();
    let reports = futures::future::join_all((0..20).map(|_| health.ready())).await;
    assert!(reports.iter().all(|report| report.status == Status::Down));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    tokio::time::advance(ms(999)).await;
    health.ready().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    tokio::time::advance(ms(1)).await;
    health.ready().await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_check_that_panics_has_failed() {
    async fn lost() -> Result<(), String> {
        panic!("on purpose")
    }
    let health = Health::builder().critical("database", lost).start().unwrap();
    health.started();
    let report = health.ready().await;
    assert_eq!((report.code(), report.checks["database"].error.as_deref()), (503, Some("the check panicked")));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    async fn fine() -> Result<(), String> {
        Ok(())
    }
    let refused = |builder: HealthBuilder| builder.start().unwrap_err().to_string();
    let messages = [
        refused(Health::builder().heartbeat(ms(99))),
        refused(Health::builder().critical("database", fine).informational("database", fine)),
        refused(Health::builder().check(HealthCheck::critical("database", fine).time_limit(Duration::ZERO))),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn without_a_runtime_there_is_nothing_to_watch() {
    assert!(matches!(Health::builder().start(), Err(HealthError::NoRuntime)));
}

#[tokio::test]
async fn the_last_handle_closes_the_port() {
    let health = Health::builder().live_port(loopback()).start().unwrap();
    let own = health.live_address().unwrap();
    let taken = Health::builder().live_port(own).start();
    assert!(matches!(taken, Err(HealthError::Port { address, .. }) if address == own));
    let other = health.clone();
    drop(health);
    assert_eq!(get(own, "live").await.status, 200);
    drop(other);
    while tokio::net::TcpStream::connect(own).await.is_ok() {
        tokio::time::sleep(ms(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_asks_nothing_delays_nobody() {
    let health = Health::builder().live_port(loopback()).start().unwrap();
    let own = health.live_address().unwrap();
    let _silent = tokio::net::TcpStream::connect(own).await.unwrap();
    let asked = Instant::now();
    assert_eq!(get(own, "live").await.status, 200);
    assert!(asked.elapsed() < ms(900), "{:?}", asked.elapsed());
    assert_eq!(get(own, "elsewhere").await.status, 404);
    assert_eq!(ask(own, "POST /health/live", &[], "").await.status, 405);
}

/// Silent clients took all places for a second, and a supervisor that asked in it would have restarted a healthy process.
#[tokio::test]
async fn clients_that_ask_nothing_delay_nobody_however_many_they_are() {
    let health = Health::builder().live_port(loopback()).start().unwrap();
    let own = health.live_address().unwrap();
    for silent in [16, 17, 100] {
        let mut connected = Vec::new();
        for _ in 0..silent {
            connected.push(tokio::net::TcpStream::connect(own).await.unwrap());
        }
        let asked = Instant::now();
        assert_eq!(get(own, "live").await.status, 200, "{silent} are silent");
        assert!(asked.elapsed() < ms(500), "{:?} with {silent} that are silent", asked.elapsed());
    }
}

/// Each question that was given up ended the check and the next one began anew, so a check slower than those who ask was
/// never done.
#[tokio::test(start_paused = true)]
async fn a_check_goes_on_when_the_one_who_asked_leaves() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let check = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(ms(500)).await;
            Ok::<_, String>(())
        }
    };
    let health = Health::builder().critical("slow", check).start().unwrap();
    health.started();
    for _ in 0..4 {
        assert!(tokio::time::timeout(ms(100), health.ready()).await.is_err());
    }
    let begin = tokio::time::Instant::now();
    assert_eq!(health.ready().await.status, Status::Up);
    assert_eq!((runs.load(Ordering::SeqCst), begin.elapsed()), (1, ms(100)));
}

/// Without a cache a result of before the question is no answer to it.
#[tokio::test(start_paused = true)]
async fn without_a_cache_a_check_that_began_before_the_question_is_not_its_answer() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let check = move || {
        let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(ms(100)).await;
            Err::<(), _>(format!("run {run}"))
        }
    };
    let health = Health::builder().check(HealthCheck::critical("slow", check).cache(Duration::ZERO)).start().unwrap();
    health.started();
    let ask = async |at: u64| {
        tokio::time::sleep(ms(at)).await;
        health.ready().await.checks["slow"].error.clone().unwrap()
    };
    let answers = tokio::join!(ask(0), ask(50), ask(60), ask(500));
    assert_eq!(answers, ("run 1".to_owned(), "run 2".to_owned(), "run 2".to_owned(), "run 3".to_owned()));
}

/// The runtime in which a check runs may end before the one that asks.
#[test]
fn a_check_whose_runtime_ends_has_failed_and_runs_again() {
    let new = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (new(), new());
    let hang = Arc::new(AtomicBool::new(true));
    let seen = hang.clone();
    let check = move || {
        let hang = seen.load(Ordering::SeqCst);
        async move { if hang { std::future::pending().await } else { Ok::<_, String>(()) } }
    };
    let health = first.block_on(async {
        let health =
            Health::builder().check(HealthCheck::critical("slow", check).cache(Duration::ZERO)).start().unwrap();
        health.started();
        tokio::time::timeout(ms(10), health.ready()).await.unwrap_err();
        health
    });
    drop(first);
    hang.store(false, Ordering::SeqCst);
    assert_eq!(second.block_on(health.ready()).status, Status::Up);
}

/// A service whose work blocks its runtime, and whose health is asked in another one.
#[test]
fn a_check_in_a_blocked_runtime_keeps_no_other_one_waiting() {
    let new = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (free, freed) = channel::<()>();
    let hang = || std::future::pending::<Result<(), String>>();
    let (send, started) = channel();
    let blocked = std::thread::spawn(move || {
        new().block_on(async {
            let check = HealthCheck::critical("slow", hang).time_limit(ms(50));
            let health = Health::builder().check(check).start().unwrap();
            health.started();
            tokio::time::timeout(ms(10), health.ready()).await.unwrap_err();
            send.send(health).unwrap();
            freed.recv().unwrap_err();
        });
    });
    let health = started.recv().unwrap();
    let report = new().block_on(async { tokio::time::timeout(ms(5_000), health.ready()).await.unwrap() });
    assert_eq!(report.checks["slow"].error.as_deref(), Some("no answer within 50ms"));
    drop(free);
    blocked.join().unwrap();
}

const WORKERS: usize = 4;

/// A service's runtime, whose workers a test can block; the test asks from another one.
struct Service {
    runtime: Option<Runtime>,
    health: Health,
    address: SocketAddr,
    blocked: Vec<Sender<()>>,
}

impl Service {
    async fn start(heartbeat: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
        let start = async move {
            let health = Health::builder().heartbeat(heartbeat).live_port(loopback()).start().unwrap();
            let address = serve(health.routes()).await;
            (health, address)
        };
        let (health, address) = runtime.spawn(start).await.unwrap();
        Self { runtime: Some(runtime), health, address, blocked: Vec::new() }
    }

    /// Blocks so many workers, until [`free`](Self::free).
    fn block(&mut self, workers: usize) {
        let (entered, count) = channel();
        for _ in 0..workers {
            let (free, freed) = channel::<()>();
            let entered = entered.clone();
            self.runtime.as_ref().unwrap().spawn(async move {
                entered.send(()).unwrap();
                freed.recv().unwrap_err();
            });
            self.blocked.push(free);
        }
        for _ in 0..workers {
            count.recv().unwrap();
        }
    }

    fn free(&mut self) {
        self.blocked.clear();
    }

    /// Asks on the own port until the answer is this one; the time that took.
    async fn until(&self, status: u16) -> Duration {
        let start = Instant::now();
        while get(self.health.live_address().unwrap(), "live").await.status != status {
            tokio::time::sleep(ms(5)).await;
        }
        start.elapsed()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.free();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn a_blocked_runtime_is_not_alive_until_it_runs_again() {
    let mut service = Service::start(ms(200)).await;
    assert_eq!(get(service.address, "live").await.status, 200);
    service.block(WORKERS);
    let noticed = service.until(503).await;
    assert!(noticed >= ms(150), "{noticed:?} is less than the limit");
    let route = tokio::time::timeout(ms(50), get(service.address, "live")).await;
    assert!(route.is_err(), "a blocked runtime serves no route");
    assert_eq!(service.health.live().code(), 503);
    service.free();
    service.until(200).await;
    assert_eq!(get(service.address, "live").await.status, 200);
}

#[tokio::test]
async fn one_blocked_worker_of_four_is_alive() {
    let mut service = Service::start(ms(100)).await;
    service.block(1);
    let start = Instant::now();
    while start.elapsed() < ms(400) {
        assert_eq!(get(service.health.live_address().unwrap(), "live").await.status, 200);
        tokio::time::sleep(ms(5)).await;
    }
}

#[tokio::test]
async fn all_workers_busy_for_less_than_the_limit_is_alive_and_answered_at_once() {
    let mut service = Service::start(Duration::from_secs(10)).await;
    service.block(WORKERS);
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(get(service.health.live_address().unwrap(), "live").await.status, 200);
        assert!(asked.elapsed() < ms(200), "{:?}", asked.elapsed());
    }
}

/// Questions wait for each other's check, so a slow one must not add up.
#[tokio::test(start_paused = true)]
async fn many_questions_at_once_are_answered_within_two_checks_also_without_a_cache() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let hangs = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<(), String>>()
    };
    let check = HealthCheck::critical("database", hangs).cache(Duration::ZERO);
    let health = Health::builder().check(check).start().unwrap();
    health.started();
    let asked = tokio::time::Instant::now();
    let first = health.ready();
    let later = async {
        tokio::time::sleep(ms(1)).await;
        futures::future::join_all((0..20).map(|_| health.ready())).await
    };
    let (first, later) = tokio::join!(first, later);
    assert!(later.iter().chain([&first]).all(|report| report.status == Status::Down));
    // The first began before the others asked, so it is no answer for them; the second is.
    assert_eq!((runs.load(Ordering::SeqCst), asked.elapsed()), (2, Duration::from_secs(2)));
}
