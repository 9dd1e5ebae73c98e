//! Who a page belongs to, and for how long: its session and its shop, and nobody after that.

use std::time::{Duration, Instant};

use crate::browser::{Browser, between};
use crate::server::{ADMIN, ALICE, Answer, BETA, OPERATOR, Server, Store};

/// A page asks for its content anew.
async fn anew(browser: &Browser, path: &str, of: &str) -> Answer {
    let request = browser.request("GET", path).header("hx-request", "true").header("x-by-itself", "1");
    Answer::of(request.header("x-page-of", of)).await
}

#[tokio::test]
async fn a_page_is_made_anew_only_for_the_session_and_the_shop_that_it_belongs_to() {
    let server = Server::on(Store::file()).await;
    let of = |page: &str| between(page, "data-of=\"", "\"").to_owned();
    let (admin, beta) = (Browser::of(&server, ADMIN).await, Browser::of(&server, BETA).await);
    let path = "/dashboard/orders";
    let of_admin = of(&admin.page(path).await);
    assert_eq!(anew(&admin, path, &of_admin).await.status, 200);
    // Somebody else has signed in in another tab of the browser.
    let answer = anew(&beta, path, &of_admin).await;
    assert_eq!((answer.status, answer.header("hx-redirect"), &*answer.text), (409, path, ""));
    // An operator has chosen another shop there.
    let operator = Browser::of(&server, OPERATOR).await;
    let path = "/dashboard/sagas?which=ended";
    operator.send("/dashboard/shop", &[("shop", "alpha")]).await;
    let of_alpha = of(&operator.page(path).await);
    assert_eq!(anew(&operator, path, &of_alpha).await.status, 200);
    operator.send("/dashboard/shop", &[("shop", "beta")]).await;
    let answer = anew(&operator, path, &of_alpha).await;
    assert_eq!((answer.status, answer.header("hx-redirect")), (409, path));
    // A form that comes after the end leads to its page, and not to where it was sent.
    let nobody = Browser::new(&server);
    let request = nobody.request("POST", "/dashboard/policies/payment/mode");
    let request = request.header("origin", format!("http://{}", server.address));
    let answer =
        Answer::of(request.header("referer", format!("http://{}/dashboard/policies/payment", server.address))).await;
    assert_eq!(answer.header("location"), "/dashboard/sign-in?next=%2Fdashboard%2Fpolicies%2Fpayment");
    // Another service of this host may have a cookie of the same name.
    let request = nobody.request("GET", "/dashboard/orders").header("cookie", format!("dashboard=x; {}", admin.cookie));
    assert_eq!(Answer::of(request).await.status, 200);
}

#[tokio::test]
async fn an_open_page_says_that_it_is_connected_and_ends_soon_after_its_session() {
    let server = Server::on(Store::file()).await;
    let alice = Browser::of(&server, ALICE).await;
    let path = "/dashboard/live?topics=orders&seen=999999999";
    let topics = ["orders"; 5].join(",");
    let many = alice.get(&format!("/dashboard/live?topics={topics}&seen=0")).await;
    assert_eq!(many.status, 400, "{}", many.text);
    let mut notices = alice.request("GET", path).send().await.expect("an answer");
    let mut told = String::new();
    while !told.contains("event: alive") {
        told += &String::from_utf8_lossy(&notices.chunk().await.expect("a chunk").expect("a notice"));
    }
    assert_eq!(alice.send("/dashboard/sign-out", &[]).await.status, 303);
    let signed_out = Instant::now();
    while let Some(chunk) = notices.chunk().await.expect("a chunk") {
        told += &String::from_utf8_lossy(&chunk);
    }
    // It is told once more, so that it asks who is there, and nothing had to happen for that.
    assert!(signed_out.elapsed() < Duration::from_secs(15) && told.matches("event: changed").count() == 1, "{told}");
}
