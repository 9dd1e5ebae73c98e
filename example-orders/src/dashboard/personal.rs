//! Names of customers. They are not on a page before somebody asks for them, and are asked for once in a session. Those who work for
//! the shop say why, and that is recorded; customers see their own.

use annals::Tenant;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::dashboard::error::Trouble;
use crate::dashboard::form::Form;
use crate::dashboard::operations::{self, Operation, Wanted, reason_field};
use crate::dashboard::sign_in::page_of_ours;
use crate::dashboard::visitor::Visitor;
use crate::service::access::Role;
use crate::service::problem::Problem;

/// Where it is recorded, in each shop, who has asked.
const TARGET: &str = "personal-data";

/// What is asked.
#[derive(Deserialize)]
pub struct Wish {
    shows: bool,
    #[serde(default)]
    next: String,
    #[serde(default)]
    reason: String,
}

/// Shows or hides names in this session.
pub async fn choose(Form { visitor, fields: Wish { shows, next, reason } }: Form<Wish>) -> Result<Response, Trouble> {
    let (dashboard, token) = (visitor.dashboard.clone(), visitor.token.clone());
    let page = page_of_ours(&next);
    if !shows || !is_recorded(&visitor) {
        dashboard.sessions.show_personal_data(&token, shows);
        return Ok(Redirect::to(page).into_response());
    }
    let shop = visitor.caller().tenant.clone();
    let with = vec![(shop, TARGET.to_owned(), "show personal data".to_owned())];
    let wanted = Wanted { with, reason, page: page.to_owned() };
    let act = async move {
        dashboard.sessions.show_personal_data(&token, true);
        Ok("Names of customers are shown in this session.".to_owned())
    };
    wanted.perform(&visitor, act).await
}

/// Whether it is recorded that this visitor asks: of customers it is not, who see their own name.
fn is_recorded(visitor: &Visitor) -> bool {
    visitor.caller().role != Role::Customer
}

/// Whether names are hidden from this visitor until they are asked for, with a reason.
pub fn is_asked_for(visitor: &Visitor) -> bool {
    is_recorded(visitor) && !visitor.session.shows_personal_data
}

/// Who has asked in a shop, the last first, and how many have in all.
pub async fn asked(visitor: &Visitor, shop: &Tenant) -> Result<(Vec<Operation>, u64), Problem> {
    operations::last_of_all(&visitor.dashboard.app, shop, TARGET).await
}

/// The button for that.
pub fn button(visitor: &Visitor) -> Markup {
    let shows = visitor.session.shows_personal_data;
    let next = visitor.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    html! {
        form.row method="post" action="/dashboard/personal" {
            (visitor.form_token())
            input type="hidden" name="shows" value=(!shows);
            input type="hidden" name="next" value=(next);
            @if !shows && is_recorded(visitor) { (reason_field("personal-reason")) }
            button type="submit" { @if shows { "Hide personal data" } @else { "Show personal data" } }
        }
    }
}

/// A text about a person, or that it is hidden.
pub fn personal(visitor: &Visitor, text: &str) -> Markup {
    if visitor.session.shows_personal_data {
        return html! { bdi { (text) } };
    }
    html! { span.hidden-text { span aria-hidden="true" { "•••••" } span.visually-hidden { "hidden" } } }
}

/// Who did something. The key of a customer may say which customer it is.
pub fn actor(visitor: &Visitor, key: &str) -> Markup {
    if visitor.dashboard.app.keys.is_of_staff(key) {
        return html! { (key) };
    }
    html! { "a customer (" (personal(visitor, key)) ")" }
}
