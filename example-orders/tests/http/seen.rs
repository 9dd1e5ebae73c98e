//! `at_least`: one's own write is read, and no request is held for a position that will not come.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::server::{ADMIN, ALICE, BETA, Server, Store};

#[tokio::test]
async fn own_writes_are_read_and_positions_that_cannot_come_are_refused_at_once_on_both_databases() {
    let other = Server::on(Store::file()).await;
    let (_, of_another_store) = other.place(ADMIN, "k", "alice", 100).await;
    for store in Store::each().await {
        let server = Server::on(store).await;
        for number in 0..10 {
            let (id, position) = server.place(ADMIN, &format!("k-{number}"), "alice", 100).await;
            let found = server.get(&format!("/orders/{id}?at_least={position}"), ADMIN).await;
            assert_eq!(found.status, 200, "{}", found.text);
        }
        let (_, position) = server.place(ADMIN, "k", "alice", 100).await;
        let (number, incarnation) = position.split_once('-').expect("a token");
        let ahead = format!("{}-{incarnation}", number.parse::<i64>().expect("a number") + 1_000);
        let begun = Instant::now();
        let path = format!("/orders?at_least={ahead}");
        for answer in join_all((0..200).map(|_| server.get(&path, ADMIN))).await {
            assert_eq!(answer.problem(), (400, "position-ahead".to_owned()));
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for it");
        let refused = server.get(&format!("/orders?at_least={of_another_store}"), ADMIN).await;
        assert_eq!(refused.problem(), (400, "position-of-another-store".to_owned()));
        // A position is as good as any, also that of an event of others.
        assert_eq!(server.get(&format!("/orders?at_least={position}"), BETA).await.status, 200);
        for bad in [
            "-1",
            "abc",
            "9223372036854775808",
            "",
            &format!("9223372036854775808-{incarnation}"),
            &format!("-1-{incarnation}"),
        ] {
            let refused = server.get(&format!("/orders?at_least={bad}"), ADMIN).await;
            assert_eq!(refused.problem(), (400, "position-invalid".to_owned()), "{bad}");
            assert!(refused.text.contains("at_least"), "{}", refused.text);
        }
    }
}

#[tokio::test]
async fn after_a_kill_ones_own_write_is_read_when_the_leases_of_the_dead_have_ended_on_both_databases() {
    for store in Store::each().await {
        let mut server = Server::on(store).await;
        server.crash();
        let begun = Instant::now();
        let (id, position) = server.place(ADMIN, "k", "alice", 100).await;
        // It waits; it is not refused.
        let found = server.get(&format!("/orders/{id}?at_least={position}"), ADMIN).await;
        assert_eq!(found.status, 200, "{} after {:?}", found.text, begun.elapsed());
    }
}

#[tokio::test]
async fn preferences_that_another_process_has_changed_are_read_with_the_position_of_the_change() {
    let one = Server::on(Store::file()).await;
    let Store::File(file, _) = &one.store else { panic!("it is a file") };
    let other = Server::on(Store::File(file.clone(), tempfile::tempdir().expect("a folder").into())).await;
    let path = "/customers/alice/preferences";
    assert_eq!(other.get(path, ALICE).await.json()["preferences"]["theme"], "light");
    let wanted = json!({ "language": "en", "currency": "EUR", "theme": "dark" });
    let set = one.write("PUT", path, ALICE, "dark", &wanted).await;
    let seen = other.get(&format!("{path}?at_least={}", set.header("x-position")), ALICE).await;
    assert_eq!((seen.status, seen.json()), (200, json!({ "preferences": wanted, "from": "source" })));
    let ahead = other.get(&format!("{path}?at_least=9{}", set.header("x-position")), ALICE).await;
    assert_eq!(ahead.problem(), (400, "position-ahead".to_owned()));
}
