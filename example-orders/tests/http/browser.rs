//! What a browser does, as far as the dashboard is concerned: it keeps a cookie, says where a form comes from, and follows no link by
//! itself.

use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};

use crate::server::{Answer, Server};

/// A browser, in which somebody may be signed in.
pub(crate) struct Browser {
    client: Client,
    origin: String,
    pub(crate) cookie: String,
}

impl Browser {
    /// One in which nobody is signed in.
    pub(crate) fn new(server: &Server) -> Self {
        let client = Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { client, origin: format!("http://{}", server.address), cookie: String::new() }
    }

    /// One in which a key is signed in.
    pub(crate) async fn of(server: &Server, key: &str) -> Self {
        let mut browser = Self::new(server);
        let answer = browser.post("/dashboard/sign-in", &[("key", key)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        let cookie = answer.header(SET_COOKIE.as_str());
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        browser.cookie = cookie.split(';').next().expect("a pair").to_owned();
        browser
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.client.request(method.parse().expect("a method"), format!("{}{path}", self.origin));
        request.header(COOKIE, &self.cookie)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request("GET", path)).await
    }

    /// A page that has to be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.text
    }

    /// Sends a form as this page would, without the token.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        Answer::of(
            self.request("POST", path).header(ORIGIN, &self.origin).header("content-type", FORM).body(body(fields)),
        )
        .await
    }

    /// Sends a form with the token of this session.
    pub(crate) async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token().await;
        let fields: Vec<_> = [("form_token", &*token)].into_iter().chain(fields.iter().copied()).collect();
        self.post(path, &fields).await
    }

    /// The token of this session, as each of its pages has it.
    pub(crate) async fn token(&self) -> String {
        let first = self.get("/dashboard").await;
        let page = if first.status == 200 { first.text } else { self.page(first.header("location")).await };
        between(&page, "name=\"form_token\" value=\"", "\"").to_owned()
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// Fields as a form sends them.
pub(crate) fn body(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// What is between two texts, where both are for the first time.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {rest}")).0
}
