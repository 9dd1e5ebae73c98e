//! The dashboard while something goes wrong: what it says of it, to whom, and that it says so no more afterwards.

use std::time::Duration;

use example_orders::services::Faults;
use serde_json::json;

use crate::browser::{Browser, between};
use crate::checkouts::start;
use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, OPERATOR, Store, order};

/// Looks at a page until it is as wanted.
async fn until(browser: &Browser, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    for _ in 0..200 {
        page = browser.page(path).await;
        if wanted(&page) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is not as wanted: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_checkout_and_an_open_breaker_are_on_the_first_page_of_operators_until_they_are_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, partners) = start(Store::file(), folder.path()).await;
    let (admin, operator) = (Browser::of(&server, ADMIN).await, Browser::of(&server, OPERATOR).await);
    let (of_shop, alice) = (Browser::of(&server, ALPHA_OPERATOR).await, Browser::of(&server, ALICE).await);
    let overview = "/dashboard/overview";
    assert!(operator.page(overview).await.contains("Nothing. No checkout is stuck"));

    // Behind the pivot, the carrier is closed.
    partners.shipping.faults.set(Faults { closed: true, ..Faults::default() });
    let begun = server.post("/checkouts", ALICE, "stuck", &order("alice", 1, 4_900)).await;
    assert_eq!((begun.status, &begun.json()["answer"]), (202, &json!("waits for a person")), "{}", begun.text);
    let (id, order_id) = (begun.json()["id"].clone(), begun.json()["order"].clone());
    let (id, order_id) = (id.as_str().expect("an id"), order_id.as_str().expect("an id"));
    for browser in [&operator, &of_shop] {
        until(browser, overview, |page| page.contains(id) && page.contains("Needs a person now (1)")).await;
    }
    let path = format!("/dashboard/orders/{order_id}");
    let page = until(&admin, &path, |page| page.contains("reserved")).await;
    assert!(page.contains("Its checkout waits for a person: `fetch` was refused"), "{page}");
    assert!(page.contains("<li class=\"bad\"><div><strong>fetch</strong>"), "{page}");
    // The operator of the shop sees the checkout, and nothing of the order.
    let page = of_shop.page(&path).await;
    assert!(
        page.contains("waits for a person") && !page.contains("data-field") && !page.contains("order.placed"),
        "{page}"
    );

    // What services say is not for customers: it may name machines.
    let page = alice.page(&path).await;
    assert!(page.contains("Its checkout waits for a person: somebody of the shop has to look at it"), "{page}");
    assert!(page.contains("fetch was refused: it was not possible") && !page.contains("HTTP status"), "{page}");

    // What has passed its pivot cannot be taken back, and that is said before somebody has written why.
    let form = of_shop.page(&format!("/dashboard/sagas/decide?saga=alpha/{id}")).await;
    for (decision, is_possible) in [("retry", true), ("skip", true), ("compensate", false), ("cancel", false)] {
        let field = between(&form, &format!("value=\"{decision}\""), ">");
        assert_eq!(field.contains("disabled"), !is_possible, "{decision}: {field}");
    }
    assert!(form.contains("Not here: ") && form.contains("value=\"retry\" required checked"), "{form}");
    // A checkout is found by its name, and by that of its order.
    for (browser, name) in [(&of_shop, id), (&of_shop, order_id), (&operator, order_id)] {
        let found = browser.get(&format!("/dashboard/sagas?find=+{name}")).await;
        let place = format!("/dashboard/sagas/alpha/{id}");
        assert_eq!((found.status, found.header("location")), (303, &*place), "{name}");
    }
    for (browser, name) in [(&of_shop, "o-1001"), (&operator, "o-none"), (&operator, "%20")] {
        let page = browser.page(&format!("/dashboard/sagas?find={name}")).await;
        assert_eq!(page.contains("There is no checkout of this name"), name != "%20", "{name}: {page}");
    }

    partners.shipping.faults.set(Faults::default());
    let retry = json!({ "decision": "retry", "reason": "it is open <again>", "dry_run": false });
    let decided = server.post(&format!("/orders/{order_id}/checkout/decision"), ALPHA_OPERATOR, "retry", &retry).await;
    assert_eq!(decided.status, 200, "{}", decided.text);
    let page = until(&admin, &path, |page| page.contains("The parcel is under way")).await;
    // Who has decided, and why.
    assert!(page.contains("alpha-operator: retry, because it is open &lt;again&gt;"), "{page}");
    let page = until(&alice, &path, |page| page.contains("The parcel is under way")).await;
    assert!(page.contains("somebody of the shop has decided"), "{page}");
    assert!(!page.contains("open &lt;again&gt;") && !page.contains("alpha-operator"), "{page}");
    for key in [ALICE, ADMIN] {
        let standing = server.get(&format!("/orders/{order_id}/checkout"), key).await.json()["standing"].clone();
        assert_eq!((&standing["status"], &standing["reason"]), (&json!("completed"), &json!(null)), "{standing}");
    }
    until(&operator, overview, |page| !page.contains(id)).await;
    // Nothing can be decided about what is completed, and each decision says so.
    let form = of_shop.page(&format!("/dashboard/sagas/decide?saga=alpha/{id}&saga=alpha/{id}")).await;
    assert_eq!(form.matches("Not here: ").count(), 5, "{form}");
    assert!(
        form.contains("type=\"submit\" disabled>See what it would do") && form.matches("data-saga=").count() == 1,
        "{form}"
    );

    // Who asks for personal data in one shop sees that of no other.
    let place = format!("/dashboard/sagas/alpha/{id}");
    let asked = [("shows", "true"), ("reason", "a call")];
    assert_eq!(operator.send("/dashboard/personal", &asked).await.status, 303);
    assert!(!operator.page(&place).await.contains("alpha-alice"));
    assert_eq!(operator.send("/dashboard/shop", &[("shop", "alpha")]).await.status, 303);
    assert!(!operator.page(&place).await.contains("alpha-alice"));
    assert_eq!(operator.send("/dashboard/personal", &asked).await.status, 303);
    assert!(operator.page(&place).await.contains("alpha-alice"));
    assert!(of_shop.page(overview).await.contains("Who has asked for personal data"));
    for shop in ["beta", "alpha"] {
        assert_eq!(operator.send("/dashboard/shop", &[("shop", shop)]).await.status, 303);
        assert!(!operator.page(&place).await.contains("alpha-alice"), "{shop}");
    }

    // That a call has failed at first is no reason why the checkout is completed.
    partners.stock.faults.set(Faults { down: true, ..Faults::default() });
    let cart = order("alice", 1, 4_900);
    let heals = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        partners.stock.faults.set(Faults::default());
    };
    let (begun, ()) = tokio::join!(server.post("/checkouts", ALICE, "at-last", &cart), heals);
    let place = format!("/orders/{}/checkout", begun.json()["order"].as_str().expect("an id"));
    let done = server.until(&place, ADMIN, |answer| answer.json()["standing"]["status"] == "completed").await;
    assert!(done.text.contains("has failed") && done.json()["standing"]["reason"].is_null(), "{}", done.text);

    partners.payment.faults.set(Faults { down: true, ..Faults::default() });
    for n in 0..3 {
        server.post("/checkouts", ALICE, &format!("pending-{n}"), &order("alice", 1, 4_900)).await;
    }
    until(&operator, overview, |page| page.contains("Breaker of") && page.contains("payment")).await;
    partners.payment.faults.set(Faults::default());
    drop(server);
    partners.stop().await;
}
