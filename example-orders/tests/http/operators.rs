//! What operators do on the dashboard: only they, only by its forms, and never without a record of who and why.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::browser::{Browser, between, body};
use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, Answer, BETA, OPERATOR, Server, Store, order};

const PAGES: [&str; 9] = [
    "/dashboard/sagas",
    "/dashboard/sagas?which=running",
    "/dashboard/sagas?which=ended",
    "/dashboard/sagas/decide",
    "/dashboard/projections",
    "/dashboard/projections/order_list",
    "/dashboard/policies",
    "/dashboard/policies/payment",
    "/dashboard/policies/stock",
];

#[tokio::test]
async fn pages_of_operators_are_for_operators_alone() {
    let server = Server::on(Store::file()).await;
    for (key, status) in [(ALICE, 403), (ADMIN, 403), (ALPHA_OPERATOR, 200), (OPERATOR, 200)] {
        let browser = Browser::of(&server, key).await;
        for path in PAGES {
            let answer = browser.get(path).await;
            assert_eq!(answer.status, status, "{key} {path}: {}", answer.text);
            crate::dashboard::check_page(path, &answer);
        }
    }
    let operator = Browser::of(&server, OPERATOR).await;
    for path in [
        "/dashboard/projections/none",
        "/dashboard/projections/%FF",
        "/dashboard/policies/none",
        "/dashboard/policies/%FF",
        "/dashboard/sagas/alpha/checkout-none",
        "/dashboard/sagas/alpha/none",
        "/dashboard/sagas/alpha/%FF",
    ] {
        let answer = operator.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        crate::dashboard::check_page(path, &answer);
    }
    for (path, field) in [("/dashboard/overview", "x"), ("/dashboard/policies/payment/mode", "\u{e9}")] {
        let token = operator.token().await;
        let request = operator.request("POST", path).header("origin", format!("http://{}", server.address));
        let body = [b"form_token=", token.as_bytes(), b"&reason=\xff", field.as_bytes()].concat();
        let answer = Answer::of(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await;
        assert!([400, 405].contains(&answer.status), "{path}: {}", answer.text);
        crate::dashboard::check_page(path, &answer);
    }
    let none = operator.page("/dashboard/sagas/decide?saga=alpha/checkout-none").await;
    assert!(none.contains("there is no checkout `checkout-none`"), "{none}");
}

/// A form of each kind, which would do something.
const FORMS: [(&str, &[(&str, &str)]); 4] = [
    ("/dashboard/projections/customers/control", &[("act", "pause"), ("reason", "x")]),
    ("/dashboard/policies/payment/mode", &[("mode", "open"), ("reason", "x")]),
    (
        "/dashboard/policies/payment/faults",
        &[("latency_ms", "0"), ("errors", "0"), ("lost_answers", "0"), ("down", "true"), ("reason", "x")],
    ),
    ("/dashboard/sagas/decide", &[("saga", "alpha/checkout-1"), ("decision", "retry"), ("reason", "x"), ("key", "k")]),
];

#[tokio::test]
async fn nothing_is_done_without_the_key_of_an_operator_the_form_of_the_session_and_a_reason() {
    let server = Server::on(Store::file()).await;
    let (admin, operator) = (Browser::of(&server, ADMIN).await, Browser::of(&server, OPERATOR).await);
    let of_shop = Browser::of(&server, ALPHA_OPERATOR).await;
    for (path, fields) in FORMS {
        assert_eq!(admin.send(path, fields).await.status, 403, "{path}: of an admin");
        if !path.starts_with("/dashboard/sagas") {
            // What all shops share is not stopped by the operator of one.
            assert_eq!(of_shop.send(path, fields).await.status, 403, "{path}: of an operator of one shop");
            let (page, _) = path.rsplit_once('/').expect("a page");
            assert!(
                !of_shop.page(page).await.contains(&format!("action=\"{path}\"")),
                "{page}: a form that is refused"
            );
        }
        assert_eq!(operator.post(path, fields).await.status, 403, "{path}: without the token of the session");
        let strange: Vec<_> = fields.iter().copied().chain([("form_token", "0")]).collect();
        assert_eq!(operator.post(path, &strange).await.status, 403, "{path}: with another token");
        for reason in ["", "   ", "a\nb", "\u{200b}", " \u{202e}\u{2069}", "\u{1d173}\u{301}", &"x".repeat(151)] {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (*name, if *name == "reason" { reason } else { value })).collect();
            assert_eq!(operator.send(path, &fields).await.status, 400, "{path}: because {reason:?}");
        }
    }
    // Nobody writes what was done but the service.
    for (path, field, wrong) in [
        ("/dashboard/projections/customers/control", "act", "all is well; pause"),
        ("/dashboard/policies/payment/mode", "mode", "all is well; open"),
        ("/dashboard/policies/payment/faults", "latency_ms", "60001"),
        ("/dashboard/sagas/decide", "saga", ""),
    ] {
        let (_, fields) = FORMS.iter().find(|(of, _)| *of == path).expect("a form");
        let fields = fields.iter().copied().filter(|(name, _)| *name != field);
        let wrong = Some((field, wrong)).filter(|(_, wrong)| !wrong.is_empty());
        let fields: Vec<_> = fields.chain(wrong).collect();
        assert_eq!(operator.send(path, &fields).await.status, 400, "{path}: {fields:?}");
    }
    assert!(operator.page("/dashboard/projections/customers").await.contains("Nothing yet."));
    // Whatever is held open is on the first page.
    let held = [("mode", "open"), ("reason", "too many mails")];
    for name in ["notification", "command"] {
        let path = format!("/dashboard/policies/{name}");
        assert_eq!(operator.send(&format!("{path}/mode"), &held).await.status, 303, "{name}");
        let overview = operator.page("/dashboard/overview").await;
        assert!(overview.contains(&format!("Breaker of <a href=\"{path}\">")), "{overview}");
        operator.send(&format!("{path}/mode"), &[("mode", "normal"), ("reason", "enough")]).await;
    }
    let policy = operator.page("/dashboard/policies/payment").await;
    assert!(policy.contains("Nothing yet.") && policy.contains("It has not changed"), "{policy}");
}

#[tokio::test]
async fn what_is_done_is_recorded_and_so_is_what_could_not_be_done() {
    let mut server = Server::on(Store::file()).await;
    let operator = Browser::of(&server, OPERATOR).await;
    let payment = "/dashboard/policies/payment";
    let faults = |errors| [("latency_ms", "0"), ("errors", errors), ("lost_answers", "0"), ("reason", "a drill")];
    for (errors, status) in [("0.5", 303), ("2", 303), ("much", 400), ("NaN", 400), ("-inf", 400)] {
        assert_eq!(operator.send(&format!("{payment}/faults"), &faults(errors)).await.status, status, "{errors}");
    }
    let held = [("mode", "closed"), ("reason", "it is well")];
    assert_eq!(operator.send(&format!("{payment}/mode"), &held).await.status, 303);
    let page = operator.page(payment).await;
    assert!(page.contains("closed, held") && page.contains("value=\"0.5\""), "{page}");
    let done: Vec<&str> = page.split("<div class=\"what\">").skip(1).map(|rest| between(rest, "", "</div>")).collect();
    let expected =
        ["breaker of `payment`: closed", "faults of `payment`: 200 % fail", "faults of `payment`: 50 % fail"];
    assert_eq!(done, expected);
    assert_eq!(page.matches("<strong>Not done: </strong>").count(), 1, "{page}");

    // It is kept, unlike the mode of a breaker.
    server.crash();
    let operator = Browser::of(&server, OPERATOR).await;
    let page = operator.page(payment).await;
    assert!(page.contains("because: it is well") && !page.contains("closed, held"), "{page}");
}

#[tokio::test]
async fn an_operator_of_one_shop_sees_and_decides_about_its_checkouts_alone() {
    let server = Server::on(Store::file()).await;
    let begun = server.post("/checkouts", ALICE, "1", &order("alice", 1, 4_900)).await;
    assert_eq!(begun.json()["answer"], json!("completed"), "{}", begun.text);
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    let [own, all] = [Browser::of(&server, ALPHA_OPERATOR).await, Browser::of(&server, OPERATOR).await];
    for browser in [&own, &all] {
        let end = Instant::now() + Duration::from_secs(60);
        // The table of checkouts is a moment behind.
        while !browser.page("/dashboard/sagas?which=ended").await.contains(&id) {
            assert!(Instant::now() < end, "{id} is not listed");
        }
        assert!(
            browser
                .page(&format!("/dashboard/sagas/alpha/{id}"))
                .await
                .contains("the pivot is passed: from here on nothing is undone")
        );
    }
    assert_eq!(own.get(&format!("/dashboard/sagas/beta/{id}")).await.status, 404);
    assert_eq!(own.get("/dashboard/sagas/decide?saga=beta/checkout-1").await.status, 404);
    // Each of several has its own result.
    let both =
        [("saga", &*format!("alpha/{id}")), ("saga", "alpha/checkout-none"), ("decision", "retry"), ("reason", "x")];
    let answer = own.send("/dashboard/sagas/preview", &both).await;
    assert_eq!((answer.status, answer.text.matches("notice bad").count()), (200, 2), "{}", answer.text);
    // Who chooses another decision has chosen the same checkouts, and has written the reason.
    let again = between(&answer.text, "<a href=\"/dashboard/sagas/decide?", "\"").replace("&amp;", "&");
    let form = own.page(&format!("/dashboard/sagas/decide?{again}")).await;
    assert!(form.contains(&format!("value=\"alpha/{id}\"")) && form.contains("value=\"x\""), "{form}");
    assert!(form.contains("value=\"retry\" required checked"), "{form}");
}

/// Why an event cannot be read.
const WHY: &str = "the payload does not fit";

/// Where an operator reads what stops a read model.
const FAULTS: [&str; 6] = [
    "/dashboard/overview",
    "/dashboard/projections",
    "/dashboard/projections/order_list",
    "/dashboard/projections/order_detail",
    "/dashboard/projections/customer_statement",
    "/dashboard/projections/notifications",
];

#[tokio::test]
async fn what_cannot_be_read_of_another_shop_is_shown_with_its_text_to_those_alone_who_run_the_service() {
    let server = Server::on(Store::file()).await;
    let (id, _) = server.place(BETA, "1", "carol", 100).await;
    server.unreadable("beta", &id).await;
    let [own, all] = [Browser::of(&server, ALPHA_OPERATOR).await, Browser::of(&server, OPERATOR).await];
    let until = async |browser: &Browser, path: &str, text: &str| {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let page = browser.page(path).await;
            if page.contains(text) {
                return page;
            }
            assert!(Instant::now() < end, "{path} is without {text}: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let detail = "/dashboard/projections/order_detail";
    let list = "/dashboard/projections/order_list";
    let retry = [("act", "retry"), ("shop", "beta"), ("kind", "order"), ("id", &id), ("reason", "carol has called")];
    for path in ["/dashboard/overview", detail, list] {
        until(&all, path, WHY).await;
    }
    assert_eq!(all.send(&format!("{list}/parked"), &retry).await.status, 303);
    assert_eq!(
        all.send(&format!("{list}/parked"), &[("act", "retry-all"), ("reason", "carol waits")]).await.status,
        303
    );
    let page = all.page(list).await;
    assert!(page.contains("carol waits") && page.matches("retry of 1 stream in `order_list`, of beta").count() == 2);
    for path in ["/dashboard/overview", detail] {
        until(&own, path, "which is one of another shop").await;
    }
    assert!(server.get("/operator/projections", OPERATOR).await.text.contains(WHY));
    let api = server.get("/operator/projections", ALPHA_OPERATOR).await.text;
    assert!(api.contains("which is one of another shop") && !api.contains("parked"), "{api}");
    for (path, page) in stream::iter(FAULTS).then(async |path| (path, own.page(path).await)).collect::<Vec<_>>().await {
        for text in [&*id, "carol", "beta/", WHY, "stream is set aside", "is parked"] {
            assert!(!page.contains(text) && !api.contains(text), "{path} has {text}: {page}");
        }
    }
    // An event of the own shop is shown as it is, also beside others.
    let (id, _) = server.place(ALICE, "2", "alice", 100).await;
    server.unreadable("alpha", &id).await;
    until(&own, list, WHY).await;
    assert_eq!(own.send(&format!("{list}/parked"), &[("act", "retry-all"), ("reason", "she calls")]).await.status, 303);
    assert!(own.page(list).await.contains("retry of 1 stream in `order_list`, of alpha"));
    drop(server);

    let server = Server::on(Store::file()).await;
    server.unreadable("alpha", "o-1003").await;
    let own = Browser::of(&server, ALPHA_OPERATOR).await;
    for path in ["/dashboard/overview", detail] {
        until(&own, path, WHY).await;
    }
}

/// The names of the checkouts in the rows of a page, in their order, and when the last event of each was.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let rows = page.split("<tr><th scope=\"row\" data-name=\"Checkout\">").skip(1);
    rows.map(|row| (between(row, "\">", "</a>"), between(row, "datetime=\"", "\""))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checkout_is_in_one_part_of_the_list_also_among_those_of_one_moment() {
    const MANY: usize = 51;
    for store in Store::each().await {
        let server = Server::on(store).await;
        let begin = async |n: usize| {
            // The same key begins one, however often it is asked.
            while server.post("/checkouts", ALICE, &n.to_string(), &order("alice", 1, 100)).await.status >= 500 {}
        };
        stream::iter(0..MANY).for_each_concurrent(5, begin).await;
        let (all, own) = (Browser::of(&server, OPERATOR).await, Browser::of(&server, ALPHA_OPERATOR).await);
        let end = Instant::now() + Duration::from_secs(60);
        let path = "/dashboard/sagas?which=ended";
        for browser in [&all, &own] {
            let (first, rest) = loop {
                let first = browser.page(path).await;
                if rows(&first).len() == 50 && first.contains("rel=\"next\"") {
                    let next = between(between(&first, "rel=\"next\"", ">"), "href=\"", "\"").replace("&amp;", "&");
                    let rest = browser.page(&next).await;
                    assert!(!rest.contains("rel=\"next\"") && rest.contains("← Newest"), "{rest}");
                    break (first, rest);
                }
                assert!(Instant::now() < end, "{first}");
            };
            let seen: Vec<&str> = [rows(&first), rows(&rest)].concat().into_iter().map(|(id, _)| id).collect();
            assert_eq!((seen.len(), BTreeSet::from_iter(&seen).len()), (MANY, MANY), "{seen:?}");
            // What is of the same moment as the last row of a part follows by its name.
            let rest = rows(&rest);
            let (id, at) = rest[0];
            let behind = async |id: &str| {
                let page = browser.page(&format!("{path}&before={at}&shop=alpha&id={id}")).await;
                rows(&page).iter().map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(behind(&format!("{id}~")).await, [id], "a row of the same moment is left out");
            assert!(behind(id).await.is_empty(), "a row is in two parts");
            for part in ["before=2026-03-02T09:30:00Z", "shop=alpha&id=x", "other=1"] {
                let answer = browser.get(&format!("{path}&{part}")).await;
                assert_eq!(answer.status, 400, "{part}");
                crate::dashboard::check_page(part, &answer);
            }
        }
    }
}

#[tokio::test]
async fn what_is_done_is_recorded_to_its_end_when_the_browser_leaves_and_when_many_are_at_it() {
    const MANY: usize = 20;
    let server = Server::on(Store::file()).await;
    let operator = Browser::of(&server, OPERATOR).await;
    let (path, token) = ("/dashboard/policies/stock", operator.token().await);
    // A browser that sends a form twice gives up the first request.
    let fields = body(&[("form_token", &*token), ("mode", "closed"), ("reason", "in a hurry")]);
    let request = format!(
        "POST {path}/mode HTTP/1.1\r\nhost: {0}\r\norigin: http://{0}\r\ncookie: {1}\r\ncontent-type: \
         application/x-www-form-urlencoded\r\ncontent-length: {2}\r\n\r\n{fields}",
        server.address,
        operator.cookie,
        fields.len()
    );
    for _ in 0..MANY {
        let mut connection = TcpStream::connect(&server.address).await.expect("connected");
        connection.write_all(request.as_bytes()).await.expect("sent");
        // The service has begun with it when it was read, and sees that nobody waits while it records.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let held = [("mode", "open"), ("reason", "all at once")];
    // Of another policy: the last of the forms above may still be at work.
    let other = "/dashboard/policies/shipping";
    let form = format!("{other}/mode");
    let many = (0..MANY).map(|_| operator.send(&form, &held));
    let statuses: Vec<u16> = futures::future::join_all(many).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [303; MANY]);
    let page = operator.page(other).await;
    assert_eq!((page.matches("all at once").count(), page.matches("not recorded").count()), (MANY, 0), "{page}");
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let page = operator.page(path).await;
        if page.contains("because: in a hurry") && !page.contains("What came of it was not recorded") {
            break;
        }
        assert!(Instant::now() < end, "{page}");
    }
}
