//! Errors: which status has which codes.

use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::headers;

/// Where an error may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Every route.
    All,
    /// A route that is about something which may not be there for the caller.
    Something,
    /// A route that changes something.
    Writes,
    /// No route that there is.
    None,
}

const PROBLEMS: [(u16, Of, &str, &[&str]); 14] = [
    (
        400,
        Of::All,
        "The request is wrong as it is; fix it.",
        &[
            "query-invalid",
            "position-invalid",
            "position-of-another-store",
            "position-ahead",
            "as-of-invalid",
            "cursor-invalid",
            "deadline-invalid",
            "idempotency-key-missing",
            "idempotency-key-invalid",
            "body-invalid",
            "body-unreadable",
            "invalid",
        ],
    ),
    (401, Of::All, "There is no key, or none that the service knows.", &["key", "caller-unknown"]),
    (403, Of::All, "A key of this role, or of one shop alone, is not for the route.", &["role", "all-shops"]),
    (404, Of::Something, "There is no such thing, or not for this caller.", &["not-found"]),
    (404, Of::None, "There is no such route.", &["route"]),
    (405, Of::None, "The route does not have the method.", &["method"]),
    (
        409,
        Of::Writes,
        "It is in another state than the request needs; look again. Or the same request is being done, under the same key: then it is \
         `idempotency-key-in-flight`, and the same may be sent again after `Retry-After`.",
        &[
            "order-exists",
            "order-status",
            "order-amount",
            "checkout-status",
            "checkout-decision",
            "conflict",
            "idempotency-key-in-flight",
        ],
    ),
    (413, Of::Writes, "The body is too large.", &["body-too-large", "body-unreadable"]),
    (415, Of::Writes, "The body is not declared as JSON.", &["body-no-json"]),
    (
        422,
        Of::Writes,
        "The body is JSON, and not what the route takes; fix it.",
        &[
            "body-invalid",
            "order-empty",
            "order-total",
            "order-currency",
            "order-lines",
            "customer-missing",
            "customer-name",
            "language",
            "text",
            "idempotency-key-reused",
        ],
    ),
    (429, Of::All, "The shop has made too many requests.", &["rate-limited"]),
    (500, Of::All, "The service has a fault; the request id finds it in the log.", &["broken", "broken-off"]),
    (
        503,
        Of::All,
        "The service cannot answer now; send the same again, a write with the same key.",
        &[
            "busy",
            "unavailable",
            "no-answer",
            "outcome-unknown",
            "stopping",
            "position-not-reached",
            "too-many-waits",
            "too-many-replays",
            "checkout-not-seen",
            "idempotency-keys-unavailable",
        ],
    ),
    (504, Of::All, "The deadline is over; of a write the same key tells whether it was made.", &["deadline-exceeded"]),
];

/// The schema of a code: all that the API answers.
pub fn codes() -> Object {
    let mut codes: Vec<&str> = PROBLEMS.iter().flat_map(|(.., codes)| codes.iter().copied()).collect();
    codes.sort_unstable();
    codes.dedup();
    let text = "What happened, for programs. The descriptions of the statuses list which code comes with which.";
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).description(Some(text)).build()
}

/// Adds the errors that a route may answer.
pub fn add_to(operation: &mut Operation, writes: bool, about_something: bool) {
    for (status, of, description, codes) in PROBLEMS {
        let may_be = match of {
            Of::All => true,
            Of::Something => about_something,
            Of::Writes => writes,
            Of::None => false,
        };
        if may_be {
            let codes = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
            add(operation, &status.to_string(), &format!("{description} Codes: {codes}."), |response| {
                headers::add_to_problem(response, status, writes);
            });
        }
    }
    // What no program has to tell apart.
    add(operation, "4XX", "The request cannot be done as it is; `code` says why.", |_| {});
    add(operation, "5XX", "The shop cannot answer now; the same request with the same key may work later.", |_| {});
}

fn add(operation: &mut Operation, status: &str, description: &str, with: impl FnOnce(&mut utoipa::openapi::Response)) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response =
        ResponseBuilder::new().description(description).content("application/problem+json", content).build();
    with(&mut response);
    operation.responses.responses.insert(status.to_owned(), RefOr::T(response));
}
