//! Headers of answers.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Components, Ref, RefOr, Response};

use Kind::{Number, Text};

enum Kind {
    Number,
    Text,
}

const POSITION: &str = "X-Position";
const LOCATION: &str = "Location";
const RETRY_AFTER: &str = "Retry-After";
const AUTHENTICATE: &str = "WWW-Authenticate";
const REPLAYED: &str = "Idempotent-Replayed";
/// Each answer has them.
const NAMES: [&str; 2] = ["X-Request-Id", "traceparent"];
/// Each answer to a caller who is let in has them.
const LIMITS: [&str; 3] = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];

const ALL: [(&str, Kind, &str); 10] = [
    (POSITION, Text, "Up to where a read has to see to show this write: send it as `at_least`."),
    (LOCATION, Text, "The path of what was made, or of where to look."),
    (RETRY_AFTER, Number, "In so many seconds it is worth to ask again."),
    (AUTHENTICATE, Text, "How to say who asks: `Bearer`."),
    (REPLAYED, Text, "`true` if the request was made before, under the same key, and this is its answer."),
    (
        NAMES[0],
        Text,
        "The id of the request: its own, or one that was made for it. The log has it, and the events of a write.",
    ),
    (NAMES[1], Text, "The W3C trace context of the request."),
    (LIMITS[0], Number, "How many requests the shop may make at once."),
    (LIMITS[1], Number, "How many of them are left."),
    (LIMITS[2], Number, "In so many seconds all of them are left again."),
];

/// What writes answer that a read model shows a moment later.
const SHOWN: [&str; 4] = ["Written", "Named", "Preferences", "Standing"];

/// Adds all of them to what routes refer to.
pub fn add_to(components: &mut Components) {
    for (name, kind, description) in ALL {
        let schema = ObjectBuilder::new().schema_type(match kind {
            Number => Type::Integer,
            Text => Type::String,
        });
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        components.headers.insert(name.to_owned(), header.into());
    }
}

/// Those of an answer that is no error.
pub fn add_to_success(response: &mut Response, status: &str, writes: bool, answered: Option<&str>) {
    add(response, &NAMES);
    add(response, &LIMITS);
    if writes {
        add(response, &[REPLAYED]);
    }
    if writes && answered.is_some_and(|answered| SHOWN.contains(&answered)) {
        add(response, &[POSITION]);
    }
    match status {
        "201" => add(response, &[LOCATION]),
        "202" => add(response, &[LOCATION, RETRY_AFTER]),
        _ => {}
    }
}

/// Those of an error.
pub fn add_to_problem(response: &mut Response, status: u16, writes: bool) {
    add(response, &NAMES);
    // Who is not let in has no quota.
    if status != 401 {
        add(response, &LIMITS);
    }
    if status == 401 {
        add(response, &[AUTHENTICATE]);
    }
    if matches!(status, 409 | 429 | 503) {
        add(response, &[RETRY_AFTER]);
    }
    if writes && (400..429).contains(&status) && !matches!(status, 401 | 403) {
        add(response, &[REPLAYED]);
    }
}

fn add(response: &mut Response, names: &[&str]) {
    for name in names {
        let header = RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
        response.headers.entry((*name).to_owned()).or_insert(header);
    }
}
