//! The past over HTTP: a time is read as what it says, or refused.

use serde_json::json;

use crate::server::{ADMIN, ALICE, BETA, Server, Store};

#[tokio::test]
async fn a_time_of_our_own_output_gives_the_state_with_that_event_and_no_time_is_guessed_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        let history = server.get("/orders/o-1005/history", ADMIN).await.json();
        let statuses = ["placed", "paid", "reserved", "shipped", "delivered"];
        for (event, status) in history["events"].as_array().expect("events").iter().zip(statuses) {
            let at = event["at"].as_str().expect("a time");
            let then = server.get(&format!("/orders/o-1005?as_of={at}"), ADMIN).await.json();
            // Events of one microsecond are one moment, of which the last one counts.
            let same: Vec<_> =
                history["events"].as_array().into_iter().flatten().filter(|other| other["at"] == at).collect();
            if same.len() == 1 {
                assert_eq!(then["status"], status, "{at}");
            }
        }
        let (_, position) = server.place(ADMIN, "later", "alice", 100).await;
        server.get(&format!("/orders?at_least={position}"), ADMIN).await;
        let last = history["events"][6]["at"].as_str().expect("a time");
        let then = server.get(&format!("/orders?as_of={last}&limit=100&customer=alice"), ADMIN).await.json();
        assert!(then["as_of_position"].is_i64(), "{then}");
        let ids = |list: &serde_json::Value| -> Vec<String> {
            let all = list["orders"].as_array().into_iter().flatten();
            all.filter_map(|order| order["order_id"].as_str()).map(str::to_owned).collect()
        };
        // Orders that were placed after it are not in it.
        assert_eq!(ids(&then), ["o-1005", "o-1003", "o-1001"]);
        let page = server.get(&format!("/orders?as_of={last}&limit=2&sort=total"), ADMIN).await.json();
        assert_eq!(ids(&page), ["o-1004", "o-1001"]);
        let found = server.get(&format!("/orders?as_of={last}&q=Brown&sort=total"), ADMIN).await.json();
        assert_eq!(ids(&found), ["o-1004", "o-1002"]);
        let next = page["next"].as_str().expect("others follow");
        let page = server.get(&format!("/orders?as_of={last}&limit=2&sort=total&after={next}"), ADMIN).await.json();
        assert_eq!(ids(&page), ["o-1003", "o-1005"]);
        let previous = page["previous"].as_str().expect("others are before");
        let page =
            server.get(&format!("/orders?as_of={last}&limit=2&sort=total&before={previous}"), ADMIN).await.json();
        assert_eq!((ids(&page), &page["previous"]), (vec!["o-1004".to_owned(), "o-1001".to_owned()], &json!(null)));
        let days = server.get(&format!("/analytics/days?as_of={last}"), ADMIN).await.json();
        assert_eq!(days["totals"][0]["orders"], 5);
        assert_eq!(server.get(&format!("/orders/o-1005?as_of={last}"), BETA).await.status, 404);
        assert_eq!(server.get(&format!("/orders/o-1002?as_of={last}"), ALICE).await.status, 404);
        let never = server.get("/orders/o-1005?as_of=2020-01-01T00:00:00Z", ADMIN).await;
        assert_eq!(never.problem(), (404, "not-found".to_owned()));

        for (time, names) in [
            ("2026-11-27T10:00:00+02:00", "%2B"),
            ("2026-11-27T10:00:00", "as_of"),
            ("10:00", "as_of"),
            ("2026-11-27", "as_of"),
            ("2026-13-01T00:00:00Z", "as_of"),
            ("9998-01-01T00:00:00Z", "as_of"),
            ("", "as_of"),
        ] {
            for path in ["/orders", "/orders/o-1005", "/analytics/days"] {
                let refused = server.get(&format!("{path}?as_of={time}"), ADMIN).await;
                assert_eq!(refused.problem(), (400, "as-of-invalid".to_owned()), "{path} {time}");
                assert!(refused.text.contains(names), "{path} {time}: {}", refused.text);
            }
        }
        // The same moment, by two offsets.
        let instant: jiff::Timestamp = last.parse().expect("a time");
        let at = |hours| instant.display_with_offset(jiff::tz::offset(hours)).to_string();
        let (east, west) = (at(2), at(-2));
        for time in [east.replace('+', "%2B"), west] {
            let same = server.get(&format!("/orders?as_of={time}&limit=100&customer=alice"), ADMIN).await.json();
            assert_eq!(same, then, "{time}");
        }
    }
}
