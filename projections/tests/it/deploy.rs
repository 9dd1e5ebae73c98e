//! A changed projection is deployed by a second process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use annals_eventstore::{PostgresOptions, SqliteStore};
use annals_projections::{ProjectionsExt, WaitError};
use annals_scratch::again::{again, is_again};

use super::backends::{Backend, block_on};
use super::everywhere::Wider;
use super::shop::{OrderList, placed};

const SOON: Duration = Duration::from_secs(30);
const PLACE: &str = "ANNALS_TEST_PLACE";
const RUNNING: &str = "the new build runs";

/// The new build, in a process of its own.
struct NewBuild(Child);

impl NewBuild {
    fn start(backend: &Backend, test: &str) -> Self {
        let mut command = again(&[], module_path!(), test);
        command.env(PLACE, backend.place_of_events()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.lines().map_while(Result::ok).any(|line| line.contains(RUNNING)), "it ended before it ran");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What that process does, until it is killed or its parent has ended.
fn run_the_new_build() {
    let place = std::env::var(PLACE).unwrap();
    block_on(async {
        let projections = match place.starts_with("postgres") {
            true => PostgresOptions::new(place).open().await.unwrap().projections(),
            false => SqliteStore::open(place).await.unwrap().projections(),
        };
        let _views = projections.with(Wider::<2>).start().await.unwrap();
        println!("{RUNNING}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()).unwrap()).await.unwrap();
    });
}

/// The old build runs here all the time; the new one comes, takes the name, and is killed.
fn the_new_build_comes_and_is_killed(backend: impl Future<Output = Backend>, test: &str) {
    block_on(async {
        let backend = backend.await;
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).start().await.unwrap();
        views.wait_for(shop.append("o-1", &[placed("ann", 5)]).await, SOON).await.unwrap();

        let new_build = NewBuild::start(&backend, test);
        let notes = "SELECT order_id || ' ' || note FROM order_list ORDER BY order_id";
        while shop.query(&format!("SELECT CAST(version AS TEXT) FROM {}", shop.table_of_names())).await != ["2"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        views.wait_for(shop.append("o-2", &[placed("bob", 5)]).await, SOON).await.unwrap();
        assert_eq!(shop.query(notes).await, ["o-1 wide", "o-2 wide"]);

        new_build.kill();
        let position = shop.append("o-3", &[placed("cid", 5)]).await;
        let error = views.wait_for(position, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, WaitError::TimedOut { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("`order_list` shows version 2, which is at 2 and whose checkpoint was last moved at 20"),
            "{message}"
        );
        // The deploy is taken back.
        views.show::<OrderList>(SOON).await.unwrap();
        views.wait_for(position, SOON).await.unwrap();
        assert_eq!(shop.query("SELECT order_id FROM order_list ORDER BY order_id").await, ["o-1", "o-2", "o-3"]);
        views.close().await;
        shop.close().await;
    });
}

#[test]
fn a_new_build_comes_and_is_killed_on_one_file() {
    if is_again() {
        return run_the_new_build();
    }
    let backend = async { Backend::in_one_file() };
    the_new_build_comes_and_is_killed(backend, "a_new_build_comes_and_is_killed_on_one_file");
}

#[test]
fn a_new_build_comes_and_is_killed_on_one_server() {
    if is_again() {
        return run_the_new_build();
    }
    the_new_build_comes_and_is_killed(Backend::in_one_postgres(), "a_new_build_comes_and_is_killed_on_one_server");
}
