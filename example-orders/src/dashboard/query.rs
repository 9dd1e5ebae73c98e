//! The query and the path of a page; what is wrong with them is shown as a page.

use annals::engine::{Clock, SystemClock};
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use serde::de::DeserializeOwned;

use crate::dashboard::error::Trouble;
use crate::domain::order::OrderId;
use crate::service::ask::{Asked, OrderPath, moment};
use crate::service::problem::Problem;

/// The query of a page.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let Asked(query) = Asked::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// What the path of a page names. What no path can be is the path of nothing.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let path = Path::from_request_parts(parts, state).await;
        let none = |_| Problem::new(StatusCode::NOT_FOUND, "route", "there is no such page").into();
        path.map(|Path(path)| Self(path)).map_err(none)
    }
}

/// The order of a page.
pub struct OrderOf(pub OrderId);

impl<S: Send + Sync> FromRequestParts<S> for OrderOf {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let OrderPath(order) = OrderPath::from_request_parts(parts, state).await?;
        Ok(Self(order))
    }
}

/// When a page is asked for, as somebody has written it.
pub struct Then {
    /// The moment; `None` for now, also where the text is none that can be shown.
    pub at: Option<Timestamp>,
    /// The text that is no moment that is over.
    pub wrong: Option<String>,
}

impl Then {
    /// A time as people write it, which is one of UTC unless it says another.
    pub fn read(field: &str) -> Self {
        let Some(field) = filled(field) else { return Self { at: None, wrong: None } };
        let now = SystemClock.now();
        match moment_field(&field, now).filter(|at| *at <= now) {
            Some(at) => Self { at: Some(at), wrong: None },
            None => Self { at: None, wrong: Some(field) },
        }
    }

    /// As the API is asked.
    pub fn of_the_api(&self) -> Option<String> {
        self.at.map(|at| at.to_string())
    }

    /// How a page is answered on which this was written.
    pub fn answered(&self, mut page: Response) -> Response {
        if self.wrong.is_some() {
            *page.status_mut() = StatusCode::BAD_REQUEST;
        }
        page
    }
}

/// The moment of a text. A time without a day is one of today.
fn moment_field(field: &str, now: Timestamp) -> Option<Timestamp> {
    let of_utc = |time: DateTime| Offset::UTC.to_timestamp(time).ok();
    let time = |format: &str| DateTime::strptime(format, field).ok().and_then(of_utc);
    let day = |format: &str| Date::strptime(format, field).ok().and_then(|day| of_utc(day.at(0, 0, 0, 0)));
    let today = |format: &str| {
        let time = Time::strptime(format, field).ok()?;
        of_utc(Offset::UTC.to_datetime(now).date().to_datetime(time))
    };
    let times = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    times
        .into_iter()
        .find_map(time)
        .or_else(|| ["%Y-%m-%d", "%d.%m.%Y"].into_iter().find_map(day))
        .or_else(|| ["%H:%M:%S", "%H:%M"].into_iter().find_map(today))
        .or_else(|| moment(field).ok())
}

/// What a field of a form holds; an empty one holds nothing.
pub fn filled(field: &str) -> Option<String> {
    Some(field.trim()).filter(|field| !field.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_one_of_utc_and_what_is_no_time_or_not_over_stays_as_it_was_written() {
        let now: Timestamp = "2026-11-28T17:00:00Z".parse().expect("a time");
        for (field, time) in [
            ("2026-11-28 16:00", "2026-11-28T16:00:00Z"),
            ("2026-11-28T16:00", "2026-11-28T16:00:00Z"),
            ("2026-11-28 16:00:31", "2026-11-28T16:00:31Z"),
            ("2026-11-28", "2026-11-28T00:00:00Z"),
            ("28.11.2026", "2026-11-28T00:00:00Z"),
            ("16:00", "2026-11-28T16:00:00Z"),
            ("2026-11-28T16:00:00+01:00", "2026-11-28T15:00:00Z"),
            ("2026-11-28T16:00:00.000001Z", "2026-11-28T16:00:00.000001Z"),
        ] {
            assert_eq!(moment_field(field, now).map(|at| at.to_string()).as_deref(), Some(time), "{field}");
        }
        assert_eq!(moment_field("yesterday", now), None);
        for wrong in ["yesterday", "9999-01-01", "2026-13-01"] {
            let then = Then::read(&format!(" {wrong} "));
            assert_eq!((then.at, then.wrong.as_deref()), (None, Some(wrong)));
        }
        let now = Then::read("  ");
        assert!(now.at.is_none() && now.wrong.is_none());
    }
}
