//! `at_least`: one's own write is read, and no request is held for a position that will not come.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::server::{ADMIN, BETA, Server, Store};

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
