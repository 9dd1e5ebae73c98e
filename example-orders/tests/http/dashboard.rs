//! The dashboard over real HTTP, without a browser: who sees what, what a browser is told to run, and which forms are taken.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;

use crate::browser::{Browser, between, body};
use crate::checkouts::choreographed;
use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, Answer, BETA, BOB, OPERATOR, Server, Store, order};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Every page, and whether alice, the staff of alpha, and an operator of no shop see it.
const PAGES: [(&str, [u16; 3]); 6] = [
    ("/dashboard/overview", [403, 403, 200]),
    ("/dashboard/orders", [200, 200, 403]),
    ("/dashboard/orders/o-1003", [200, 200, 404]),
    ("/dashboard/orders/o-1002", [404, 200, 404]),
    ("/dashboard/analytics", [403, 200, 403]),
    ("/dashboard/correlation?id=none", [403, 200, 403]),
];

#[tokio::test]
async fn every_page_is_for_its_roles_and_has_nothing_that_a_policy_would_have_to_allow() {
    let server = Server::on(Store::file()).await;
    let [alice, admin, operator] =
        [Browser::of(&server, ALICE).await, Browser::of(&server, ADMIN).await, Browser::of(&server, OPERATOR).await];
    let nobody = Browser::new(&server);
    for (path, statuses) in PAGES {
        for (browser, status) in [&alice, &admin, &operator].into_iter().zip(statuses) {
            let answer = browser.get(path).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
            check_page(path, &answer);
        }
        let answer = nobody.get(path).await;
        assert_eq!((answer.status, answer.header("location").starts_with("/dashboard/sign-in?next=")), (303, true));
        // For a page that is there, the browser is sent on as a whole.
        let answer = Answer::of(nobody.request("GET", path).header("hx-request", "true")).await;
        assert_eq!((answer.status, answer.header("hx-redirect").is_empty()), (401, false), "{path}");
    }
    for path in ["/dashboard/sign-in", "/dashboard/none", "/dashboard/orders?status=none", "/dashboard/orders?other=1"]
    {
        check_page(path, &admin.get(path).await);
    }
    assert_eq!(nobody.get("/").await.header("location"), "/dashboard");
}

/// Scripts and styles come from files of our own, and no attribute is a script or a style.
pub(crate) fn check_page(path: &str, answer: &Answer) {
    assert_eq!(answer.header("content-security-policy"), POLICY, "{path}");
    assert_eq!((answer.header("x-content-type-options"), answer.header("cache-control")), ("nosniff", "no-store"));
    let page = &answer.text;
    assert!(page.starts_with("<!DOCTYPE html>"), "{path}: {page}");
    for (n, element) in page.split("<script").enumerate().skip(1) {
        assert!(
            element
                .split_once('>')
                .is_some_and(|(tag, rest)| tag.contains("src=\"/dashboard/assets/") && rest.starts_with("</script>")),
            "{path}: script {n}"
        );
    }
    assert!(!page.contains("<style") && !page.contains("://"), "{path}: {page}");
    let tags = page.split('<').skip(1).filter_map(|tag| tag.split_once('>')).map(|(tag, _)| tag);
    for tag in tags {
        for forbidden in [" style=", " hx-on", " on", "javascript:", "js:"] {
            // An attribute begins behind a space outside of a value.
            let outside: String = tag.split('"').step_by(2).collect::<Vec<_>>().join("\"");
            assert!(!outside.contains(forbidden), "{path}: <{tag}>");
        }
    }
}

#[tokio::test]
async fn files_have_names_of_their_content_and_the_first_page_is_small() {
    let server = Server::on(Store::file()).await;
    let admin = Browser::of(&server, ADMIN).await;
    let page = admin.page("/dashboard/orders").await;
    let mut bytes = page.len();
    let urls = page.split("\"/dashboard/assets/").skip(1).filter_map(|rest| rest.split_once('"'));
    for (file, _) in urls {
        let path = format!("/dashboard/assets/{file}");
        let request = Browser::new(&server).request("GET", &path).header("accept-encoding", "br, gzip");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(response.headers()["content-security-policy"], POLICY);
        bytes += response.bytes().await.expect("bytes").len();
        assert!(!admin.page(&path).await.is_empty());
    }
    assert!(bytes < 100_000, "{bytes} bytes");
    assert_eq!(admin.get("/dashboard/assets/htmx.000000000000.js").await.status, 404);
}

#[tokio::test]
async fn a_session_begins_with_a_key_and_ends_when_it_is_signed_out() {
    let server = Server::on(Store::file()).await;
    let nobody = Browser::new(&server);
    for key in ["alpha-admin.other", "", "none"] {
        let answer = nobody.post("/dashboard/sign-in", &[("key", key), ("next", "/dashboard/orders")]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, ""), "{key}");
    }
    let answer = nobody.post("/dashboard/sign-in", &[("key", ADMIN), ("next", "https://evil.example/dashboard")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/dashboard"));

    let admin = Browser::of(&server, ADMIN).await;
    assert!(admin.page("/dashboard/orders").await.contains("o-1001"));
    assert_eq!(admin.send("/dashboard/sign-out", &[]).await.status, 303);
    // The cookie is still there, and is nobody's.
    assert_eq!(admin.get("/dashboard/orders").await.status, 303);
}

#[tokio::test]
async fn the_shop_comes_from_the_key_and_only_an_operator_of_no_shop_may_choose_one() {
    let server = Server::on(Store::file()).await;
    let beta = Browser::of(&server, BETA).await;
    assert!(!beta.page("/dashboard/orders").await.contains("o-1006"), "an order of the other shop");
    for key in [BETA, ALICE, ALPHA_OPERATOR] {
        let browser = Browser::of(&server, key).await;
        let answer = browser.send("/dashboard/shop", &[("shop", "alpha"), ("next", "/dashboard")]).await;
        assert_eq!(answer.status, 404, "{key}");
    }
    let operator = Browser::of(&server, OPERATOR).await;
    for (shop, status) in [("alpha", 303), ("gamma", 404), ("operators", 404)] {
        assert_eq!(operator.send("/dashboard/shop", &[("shop", shop)]).await.status, status, "{shop}");
    }
}

#[tokio::test]
async fn a_form_is_taken_only_from_a_page_of_the_same_session() {
    let server = Server::on(Store::file()).await;
    let (admin, other) = (Browser::of(&server, ADMIN).await, Browser::of(&server, ADMIN).await);
    let (token, foreign) = (admin.token().await, other.token().await);
    assert_ne!(token, foreign);
    let shows = ("shows", "true");
    for fields in [vec![shows], vec![("form_token", ""), shows], vec![("form_token", &*foreign), shows]] {
        let answer = admin.post("/dashboard/personal", &fields).await;
        assert_eq!(answer.status, 403, "{fields:?}");
    }
    let right = body(&[("form_token", &*token), shows]);
    let origin = format!("http://{}", server.address);
    let (below, scheme) = (format!("{origin}.evil.example"), format!("ftp://{}", server.address));
    for from in [None, Some("null"), Some("http://evil.example"), Some(&*below), Some(&*scheme), Some("")] {
        for path in ["/dashboard/personal", "/dashboard/sign-out", "/dashboard/shop", "/dashboard/sign-in"] {
            let request = admin.request("POST", path).header("content-type", "application/x-www-form-urlencoded");
            let request = request.body(format!("{right}&key={ADMIN}&shop=alpha&next=/dashboard"));
            let request = if let Some(from) = from { request.header("origin", from) } else { request };
            assert_eq!(Answer::of(request).await.status, 403, "{path} {from:?}");
        }
    }
    // Nothing has happened by all that.
    assert!(!admin.page("/dashboard/orders").await.contains("Alice Adams"));
    let reason = ("reason", "a call");
    assert_eq!(admin.post("/dashboard/personal", &[("form_token", &*token), shows, reason]).await.status, 303);
    assert!(admin.page("/dashboard/orders").await.contains("Alice Adams"));
    assert!(!other.page("/dashboard/orders").await.contains("Alice Adams"), "the other session has asked for nothing");
}

#[tokio::test]
async fn who_of_the_shop_asks_for_personal_data_says_why_and_operators_see_that() {
    let server = Server::on(Store::file()).await;
    let (admin, alice) = (Browser::of(&server, ADMIN).await, Browser::of(&server, ALICE).await);
    let (operator, other) = (Browser::of(&server, ALPHA_OPERATOR).await, Browser::of(&server, OPERATOR).await);
    for fields in [vec![("shows", "true")], vec![("shows", "true"), ("reason", " \u{200b}")]] {
        assert_eq!(admin.send("/dashboard/personal", &fields).await.status, 400, "{fields:?}");
        assert!(!admin.page("/dashboard/orders").await.contains("Alice Adams"));
    }
    assert!(!operator.page("/dashboard/overview").await.contains("asked for personal data"));
    admin.send("/dashboard/personal", &[("shows", "true"), ("reason", "she has called")]).await;
    assert!(admin.page("/dashboard/orders").await.contains("Alice Adams"));
    let page = operator.page("/dashboard/overview").await;
    assert!(page.contains("Who has asked for personal data") && page.contains("because: she has called"), "{page}");
    assert!(page.contains("by alpha-admin"), "{page}");
    // Many that follow do not hide that there was another.
    for n in 0..20 {
        admin.send("/dashboard/personal", &[("shows", "true"), ("reason", &n.to_string())]).await;
    }
    let page = operator.page("/dashboard/overview").await;
    assert!(!page.contains("she has called") && page.contains("These are the last 20 of 21."), "{page}");
    // Another shop's is not of theirs, and a customer asks for nothing but the own name.
    assert!(!other.page("/dashboard/overview").await.contains("she has called"));
    assert_eq!(alice.send("/dashboard/personal", &[("shows", "true")]).await.status, 303);
    assert!(alice.page("/dashboard/orders").await.contains("Alice Adams"));
    assert!(!operator.page("/dashboard/overview").await.contains("alpha-alice"));
}

#[tokio::test]
async fn one_key_asks_for_so_many_pages_and_others_are_not_kept_from_theirs() {
    let server = Server::on(Store::file()).await;
    let (alice, bob) = (Browser::of(&server, ALICE).await, Browser::of(&server, BOB).await);
    let page = |_| Answer::of(alice.request("GET", "/dashboard"));
    let mut answers = stream::iter(0..6_000).map(page).buffer_unordered(16);
    let (mut passed, mut limited) = (0, None);
    while let Some(answer) = answers.next().await.filter(|_| limited.is_none()) {
        passed += usize::from(answer.status == 303);
        limited = (answer.status == 429).then_some(answer);
    }
    let limited = limited.unwrap_or_else(|| panic!("{passed} passed"));
    assert!(passed >= 390, "{passed} passed");
    assert_eq!(limited.headers["retry-after"], "1");
    drop(answers);
    let answer = bob.get("/dashboard/orders").await;
    check_page("/dashboard/orders", &answer);
    assert_eq!(answer.status, 200);
}

/// What was stored cannot be undone; a page that shows nothing of the rest helps nobody.
#[tokio::test]
async fn an_order_with_an_event_that_cannot_be_read_shows_what_can_be() {
    let server = Server::on(Store::file()).await;
    let flow = choreographed(&server).await;
    let (id, position) = server.place(ALICE, "1", "alice", 4_900).await;
    assert_eq!(server.get(&format!("/orders/{id}?at_least={position}"), ADMIN).await.status, 200);
    server.unreadable("alpha", &id).await;
    let path = format!("/dashboard/orders/{id}");
    let page = Browser::of(&server, ADMIN).await.page(&path).await;
    assert!(page.contains("Its events cannot be read") && page.contains("data-field=\"total\""), "{page}");
    assert!(page.contains("as none before now can be shown") && !page.contains("othing ha"), "{page}");
    // Nobody directs this one, so that its events are all that says whose it is.
    server.unreadable("alpha", &flow).await;
    for key in [ALICE, ADMIN, ALPHA_OPERATOR] {
        let checkout = server.get(&format!("/orders/{flow}/checkout"), key).await;
        assert_eq!((checkout.status, &checkout.json()["standing"]["answer"]), (200, &json!("completed")));
        let page = Browser::of(&server, key).await.page(&format!("/dashboard/orders/{flow}")).await;
        let says_why = page.contains("Its events cannot be read");
        assert!(page.contains("payment.completed") && says_why == (key != ALPHA_OPERATOR), "{key}: {page}");
    }
}

/// Reads notices until one says that the page has changed.
async fn changed(notices: &mut reqwest::Response) -> bool {
    let wait = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let Some(chunk) = notices.chunk().await.expect("a chunk") else { return false };
            if String::from_utf8_lossy(&chunk).contains("event: changed") {
                return true;
            }
        }
    });
    wait.await.expect("a notice in time")
}

#[tokio::test]
async fn an_open_page_is_told_of_an_append_when_the_list_shows_it_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        let admin = Browser::of(&server, ADMIN).await;
        let path = |page: &str| between(page, "hx-sse:connect=\"", "\"").replace("&amp;", "&");
        let page = admin.page("/dashboard/orders").await;
        let mut notices = admin.request("GET", &path(&page)).send().await.expect("an answer");
        assert_eq!(notices.headers()["content-type"], "text/event-stream");
        // What another shop does is no notice, and an order of this one is.
        server.place(BETA, "other", "carol", 100).await;
        let (id, _) = server.place(ADMIN, "placed", "alice", 4_200).await;
        assert!(changed(&mut notices).await);
        assert!(admin.page("/dashboard/orders").await.contains(&id), "the page has what it was told of");
        // A page that was made before an append, and is connected afterwards, is told at once.
        let mut late = admin.request("GET", &path(&page)).send().await.expect("an answer");
        assert!(changed(&mut late).await);
        // A page whose session has ended is told, so that it asks who is there; then there is nothing more to come.
        assert_eq!(admin.send("/dashboard/sign-out", &[]).await.status, 303);
        server.place(ADMIN, "later", "alice", 100).await;
        while changed(&mut late).await {}
    }
}

#[tokio::test]
async fn an_open_page_is_told_at_once_while_a_read_model_is_paused() {
    let server = Server::on(Store::file()).await;
    let (admin, operator) = (Browser::of(&server, ADMIN).await, Browser::of(&server, OPERATOR).await);
    let path = "/dashboard/projections/customers";
    let pause = [("act", "pause"), ("reason", "a backup")];
    assert_eq!(operator.send(&format!("{path}/control"), &pause).await.status, 303);
    let end = Instant::now() + Duration::from_secs(60);
    while !operator.page(path).await.contains("paused</span>") {
        assert!(Instant::now() < end, "it is not paused");
    }
    let path = "/dashboard/live?topics=orders&seen=999999999";
    let mut notices = admin.request("GET", path).send().await.expect("an answer");
    let placed = Instant::now();
    server.place(ADMIN, "placed", "alice", 100).await;
    assert!(changed(&mut notices).await);
    // What is paused would be waited for in vain, two seconds for each notice.
    assert!(placed.elapsed() < Duration::from_millis(1_900), "after {:?}", placed.elapsed());
}

#[tokio::test]
async fn an_open_page_is_told_only_of_what_its_key_may_ask_for() {
    let server = Server::on(Store::file()).await;
    let [alice, admin, operator] =
        [Browser::of(&server, ALICE).await, Browser::of(&server, ADMIN).await, Browser::of(&server, OPERATOR).await];
    // What one is told of, and whether alice, the staff of alpha, and an operator of no shop are.
    for (topics, statuses) in [
        ("orders", [200, 200, 403]),
        ("order:o-1003", [200, 200, 200]),
        ("order:o-1002", [404, 200, 200]),
        ("order:o-none", [404, 200, 200]),
        ("sagas", [403, 403, 200]),
        ("state", [403, 403, 200]),
        ("orders,sagas", [403, 403, 403]),
    ] {
        for (browser, status) in [&alice, &admin, &operator].into_iter().zip(statuses) {
            let path = format!("/dashboard/live?topics={topics}&seen=0");
            let answer = browser.request("GET", &path).send().await.expect("an answer");
            assert_eq!(answer.status(), status, "{topics}");
        }
    }
    // A customer is told of the own orders, and not of those of others.
    let path = "/dashboard/live?topics=orders&seen=999999999";
    let mut of_alice = alice.request("GET", path).send().await.expect("an answer");
    let mut of_staff = admin.request("GET", path).send().await.expect("an answer");
    for n in 0..4 {
        server.place(ADMIN, &format!("of-bob-{n}"), "bob", 100).await;
        assert!(changed(&mut of_staff).await);
    }
    server.place(ADMIN, "of-alice", "alice", 100).await;
    let mut told = String::new();
    while !told.contains("event: changed") {
        told += &String::from_utf8_lossy(&of_alice.chunk().await.expect("a chunk").expect("a notice"));
    }
    assert_eq!(alice.send("/dashboard/sign-out", &[]).await.status, 303);
    server.place(ADMIN, "later", "alice", 100).await;
    while let Some(chunk) = of_alice.chunk().await.expect("a chunk") {
        told += &String::from_utf8_lossy(&chunk);
    }
    // Two orders, of which the second may be taken for the end of the session, and that end.
    let told = told.matches("event: changed").count();
    assert!((2..=3).contains(&told), "alice was told {told} times, and so of orders of bob");
}

#[tokio::test]
async fn no_link_of_a_page_tells_who_a_customer_is_while_personal_data_is_hidden() {
    let server = Server::on(Store::file()).await;
    for n in 0..21 {
        server.place(ADMIN, &n.to_string(), "alice", 100).await;
    }
    let admin = Browser::of(&server, ADMIN).await;
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tells = |page: &str| page.contains("alice") || page.contains(&hex("alice"));
    let by_customer = "/dashboard/orders?sort=customer";
    let of_bob = "/dashboard/orders?customer=bob";
    for path in ["/dashboard/orders", by_customer, "/dashboard/orders?sort=+-customer", of_bob] {
        let page = admin.page(path).await;
        assert!(page.contains("rel=\"next\"") && !tells(&page) && !page.contains("by customer</option>"), "{page}");
    }
    // What is searched for is found in orders and products, and tells nothing of customers.
    for (search, number) in [("alice", 0), ("Alice+A", 0), ("o-1001", 1), ("kettle", 20)] {
        let page = admin.page(&format!("/dashboard/orders?q={search}")).await;
        assert_eq!(page.matches("id=\"order-").count(), number, "{search}: {page}");
        // Not even whether there are such orders is told of a name.
        assert!(search != "Alice+A" || !page.contains("rel=\"next\""), "{page}");
    }
    admin.send("/dashboard/personal", &[("shows", "true"), ("reason", "a call")]).await;
    let page = admin.page(by_customer).await;
    assert!(tells(between(&page, "rel=\"next\"", ">")), "{page}");
    for (search, number) in [("q=alice", 20), ("q=Alice+A", 20), ("customer=bob", 3)] {
        let page = admin.page(&format!("/dashboard/orders?{search}")).await;
        assert_eq!(page.matches("id=\"order-").count(), number, "{search}: {page}");
    }
    let next = between(between(&page, "rel=\"next\"", ">"), "href=\"", "\"").replace("&amp;", "&");
    assert!(admin.page(&next).await.contains("rel=\"prev\""));
    // A link that was kept leads to a list that tells nobody.
    admin.send("/dashboard/personal", &[("shows", "false")]).await;
    assert!(!tells(&admin.page(&next).await));
}

#[cfg(unix)]
#[tokio::test]
async fn an_open_page_does_not_keep_the_service_from_stopping() {
    let mut server = Server::on(Store::file()).await;
    let admin = Browser::of(&server, ADMIN).await;
    let path = "/dashboard/live?topics=orders&seen=0";
    let mut notices = admin.request("GET", path).send().await.expect("an answer");
    assert!(changed(&mut notices).await);
    let begun = Instant::now();
    let (status, _) = server.terminate();
    // Requests in flight are given ten seconds.
    assert!(status.success() && begun.elapsed() < Duration::from_secs(8), "{status} after {:?}", begun.elapsed());
}

/// What people write, as it must never be read by a browser.
const INJECTIONS: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</title><svg onload=alert(1)>",
    "{{7*7}}${7*7}<!--",
    "<b hx-get=/dashboard/sign-out hx-trigger=load>x",
];

#[tokio::test]
async fn every_text_of_users_is_shown_as_text() {
    let server = Server::on(Store::file()).await;
    let admin = Browser::of(&server, ADMIN).await;
    admin.send("/dashboard/personal", &[("shows", "true"), ("reason", "a call")]).await;
    for (n, text) in INJECTIONS.into_iter().enumerate() {
        let named =
            server.write("PUT", "/customers/mallory", ADMIN, &format!("name-{n}"), &json!({ "name": text })).await;
        assert_eq!(named.status, 200, "{}", named.text);
        let mut placed = order("mallory", 1, 100);
        placed["lines"][0]["product"] = json!(text);
        let placed = server.post("/orders", ADMIN, &format!("order-{n}"), &placed).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        let id = placed.json()["order_id"].as_str().expect("an id").to_owned();
        let reason = json!({ "reason": text });
        let cancelled = server.post(&format!("/orders/{id}/cancel"), ADMIN, &format!("cancel-{n}"), &reason).await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text);
        let position = cancelled.header("x-position").to_owned();
        server.get(&format!("/orders?at_least={position}"), ADMIN).await;
        let shown = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        let escaped = body(&[("q", text)]);
        for path in [
            format!("/dashboard/orders/{id}"),
            "/dashboard/orders".to_owned(),
            format!("/dashboard/orders?{escaped}"),
            format!("/dashboard/orders?customer=mallory&{escaped}"),
        ] {
            let page = admin.get(&path).await;
            check_page(&path, &page);
            assert!(!page.text.contains(text) || text == shown, "{path}: {text}");
        }
        assert!(admin.page("/dashboard/orders").await.contains(&shown), "{shown}");
        let page = admin.page(&format!("/dashboard/orders/{id}")).await;
        // The name, the product and the reason.
        assert!(page.matches(&shown).count() >= 3, "{shown}: {page}");
    }
}
