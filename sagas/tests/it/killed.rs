//! Two processes run sagas, and one of them is killed again and again; every saga ends, and the effects balance.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_eventstore::{AggregateStore, Decide, EventStore, Evolve, PostgresOptions, TransactionalStore};
use annals_macros::{Aggregate, Event};
use annals_projections::ReadModelDatabase;
use annals_resilience::Policy;
use annals_sagas::{Call, Definition, Saga, SagaId, SagasExt, Status, StepError, StepRetry, command};
use annals_scratch::again::{again, is_again};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::world::{keeps_the_laws, recorded};

/// How many sagas run at once.
const SAGAS: u32 = 15;
/// How often the process is killed.
const KILLS: usize = 4;
/// How long a process may be silent.
const LEASE: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(60);

annals_eventstore::text_id! {
    struct OrderId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
    #[event(name = "order.cancelled")]
    Cancelled,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "order", id = OrderId, event = OrderEvent)]
struct Order {
    placed: u32,
    cancelled: u32,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed => self.placed += 1,
            OrderEvent::Cancelled => self.cancelled += 1,
        }
    }
}

impl Decide<OrderEvent> for Order {
    type Rejection = std::convert::Infallible;

    fn decide(&self, event: &OrderEvent) -> Result<Vec<OrderEvent>, Self::Rejection> {
        Ok(vec![event.clone()])
    }
}

/// Services outside of the process: an effect is a file, and so is what was undone.
#[derive(Clone)]
struct World(PathBuf);

impl World {
    fn file(&self, call: &Call, what: &str) -> PathBuf {
        let (step, _) = call.key().as_str().rsplit_once('/').expect("a key has a direction");
        self.0.join(format!("{}.{what}", step.replace('/', ".")))
    }

    fn done(&self, call: &Call) -> Result<(), StepError> {
        if self.file(call, "undone").exists() {
            return Err(StepError::refused("it was undone"));
        }
        fs::write(self.file(call, "effect"), "").map_err(StepError::unknown)
    }

    fn undone(&self, call: &Call) -> Result<(), StepError> {
        fs::write(self.file(call, "undone"), "").map_err(StepError::unknown)?;
        match fs::remove_file(self.file(call, "effect")) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StepError::unknown(e)),
            _ => Ok(()),
        }
    }

    fn effects(&self, id: &str) -> usize {
        let mark = format!("{id}.");
        let files = fs::read_dir(&self.0).expect("the folder is there").map(|file| file.expect("it can be read"));
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&mark) && name.ends_with(".effect")).count()
    }
}

/// What goes wrong with a saga, by its number.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Number(u32);

fn saga(store: &(impl EventStore + Clone), world: &World) -> Definition<Number> {
    let policy = |name: &str| Policy::fast(name).build().expect("it is sound");
    let quickly = StepRetry { attempts: 50, first: Duration::from_millis(2), most: Duration::from_millis(20) };
    let orders = store.aggregate::<Order>();
    let cancelled = orders.clone();
    let order = |number: &Number| OrderId::new(format!("o-{}", number.0)).expect("it is an id");
    let [charge, refund, reserve, release, ship] = [(); 5].map(|()| world.clone());
    Saga::<Number>::new("checkout")
        .local("create", move |number| command(&orders, order(number), OrderEvent::Placed))
        .undo(move |number| command(&cancelled, order(number), OrderEvent::Cancelled))
        .remote("charge", &policy("payment"), move |number, call| {
            let world = charge.clone();
            async move {
                pause(number.0).await;
                world.done(&call)?;
                pause(number.0).await;
                if number.0 % 4 == 1 && call.attempt() < 3 { Err(StepError::unknown("no answer")) } else { Ok(()) }
            }
        })
        .retry(quickly)
        .undo(move |number, call| {
            let world = refund.clone();
            async move {
                pause(number.0).await;
                world.undone(&call)
            }
        })
        .retry_undo(quickly)
        .remote("reserve", &policy("stock"), move |number, call| {
            let world = reserve.clone();
            async move {
                pause(number.0).await;
                if number.0 % 3 == 0 { Err(StepError::refused("sold out")) } else { world.done(&call) }
            }
        })
        .retry(quickly)
        .undo(move |_, call| {
            let world = release.clone();
            async move { world.undone(&call) }
        })
        .pivot()
        .remote("ship", &policy("shipping"), move |number, call| {
            let world = ship.clone();
            async move {
                pause(number.0).await;
                if call.attempt() < 2 { Err(StepError::transient("later")) } else { world.done(&call) }
            }
        })
        .retry(quickly)
        .build()
        .expect("it is sound")
}

/// The time that a service takes.
async fn pause(number: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(number % 7))).await;
}

fn id(number: u32) -> String {
    format!("c-{number}")
}

/// Starts all sagas, and takes part in running them until all have ended.
async fn run<S>(store: S, world: &World)
where
    S: TransactionalStore<Database: ReadModelDatabase>,
{
    let sagas = store.sagas().with(saga(&store, world)).lease(LEASE).start().await.expect("it starts");
    let all = (0..SAGAS).map(|number| {
        let sagas = sagas.clone();
        async move {
            let id = SagaId::new(id(number)).expect("it is an id");
            sagas.start(&id, Number(number)).await.expect("the store answers");
            sagas.wait_for(&id, SOON).await.expect("the store answers").status
        }
    });
    for (number, status) in join_all(all).await.into_iter().enumerate() {
        let expected = if number % 3 == 0 { Status::Compensated } else { Status::Completed };
        assert_eq!(status, expected, "saga {number}");
        let effects = world.effects(&id(u32::try_from(number).expect("they are few")));
        assert_eq!(effects, if expected == Status::Completed { 3 } else { 0 }, "saga {number}");
    }
    let orders = store.aggregate::<Order>();
    sagas.projections().caught_up(SOON).await.expect("the store answers");
    for number in 0..SAGAS {
        let id = SagaId::new(id(number)).expect("it is an id");
        keeps_the_laws(&recorded(&store, &id).await.expect("the store answers").0);
        let (status, row) = (sagas.status(&id).await, sagas.find(&id).await);
        let status = status.expect("the store answers");
        let row = row.expect("the store answers").expect("it has a row");
        assert_eq!((row.status, row.version), (status.status, status.version.get()), "saga {number}");
        let order = orders.load(&OrderId::new(format!("o-{number}")).expect("it is an id")).await;
        let expected = Order { placed: 1, cancelled: u32::from(number % 3 == 0) };
        assert_eq!(*order.expect("the store answers").state, expected, "order {number}");
    }
    sagas.close().await;
    store.close().await;
}

/// Runs two processes of the test `name`, and kills one of them after a while, again and again; each is replaced. Those that are left
/// come to the end.
fn kill_and_continue(name: &str, arguments: &[(&str, &str)]) {
    let start = || {
        let mut command = again(&[], module_path!(), name);
        command.envs(arguments.iter().copied());
        command.spawn().expect("it is a program")
    };
    let mut children = [start(), start()];
    for kill in 0..KILLS {
        // The moment does not matter, so it is a random one.
        block_on(async { tokio::time::sleep(Duration::from_millis(fastrand::u64(50..250))).await });
        let child = &mut children[kill % 2];
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        *child = start();
    }
    for mut child in children {
        assert!(child.wait().expect("it is our child").success(), "the sagas end, and their effects balance");
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("there are threads").block_on(future)
}

#[test]
fn sagas_on_sqlite_end_and_balance_however_often_their_process_is_killed() {
    if is_again() {
        let folder = PathBuf::from(std::env::var_os("SAGAS_FOLDER").expect("the parent sets it"));
        block_on(async {
            let store = annals_eventstore::sqlite(folder.join("sagas.db")).await.expect("it opens");
            run(store, &World(folder.join("world"))).await;
        });
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    fs::create_dir(folder.path().join("world")).expect("there is room");
    kill_and_continue(
        "sagas_on_sqlite_end_and_balance_however_often_their_process_is_killed",
        &[("SAGAS_FOLDER", text(folder.path()))],
    );
}

#[test]
fn sagas_on_postgres_end_and_balance_however_often_their_process_is_killed() {
    if is_again() {
        let folder = PathBuf::from(std::env::var_os("SAGAS_FOLDER").expect("the parent sets it"));
        let url = std::env::var("SAGAS_URL").expect("the parent sets it");
        block_on(async {
            let store = PostgresOptions::new(url).migrate().open().await.expect("it opens");
            run(store, &World(folder)).await;
        });
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    let database = block_on(annals_scratch::Database::empty());
    kill_and_continue(
        "sagas_on_postgres_end_and_balance_however_often_their_process_is_killed",
        &[("SAGAS_FOLDER", text(folder.path())), ("SAGAS_URL", database.url())],
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
