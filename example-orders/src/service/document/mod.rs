//! The document of the API (OpenAPI 3.1): what is common to all routes. A route says what is its own: who may use it, what it takes
//! and what it answers. What the gates before the routes need and add is put in here, so that no route can forget it.

mod headers;
mod health;
mod problems;

use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, RefOr, Required, Response};

use crate::service::problem::Problem;

pub use problems::codes;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "The shop",
        description = "Orders of shops that share one store. The key of a request says whose they are.\n\n\
            A request may have three headers. `X-Deadline-Ms`: in so many milliseconds nobody waits for the answer any more; then it is \
            504, also without the header after the longest time that the service gives a request. `X-Request-Id`: up to 100 letters, digits \
            and `-_.:/`, which the events of a write are found by. `traceparent`: the W3C trace context that it is a part of. The last two are in \
            the answer, made by the service where the request does not have them.\n\n\
            A write needs `Idempotency-Key`. Sent again with the same key it has no second effect, and the first answer.\n\n\
            What a read model shows may be a moment older than a write. `X-Position` of an answer, sent as `at_least` to a read, makes it wait.\n\n\
            An error is `application/problem+json` (RFC 9457). Its `code` is for programs and never changes.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem))
)]
struct About;

/// The document without any route.
pub fn about() -> OpenApi {
    About::openapi()
}

/// Adds what every route of the API has: the key, headers, errors, and for writes the idempotency key.
pub fn completed(mut document: OpenApi) -> OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("ID.SECRET").build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert("api_key".to_owned(), SecurityScheme::Http(scheme).into());
    headers::add_to(components);
    components.schemas.values_mut().for_each(describe_optional);
    for (path, item) in &mut document.paths.paths {
        // What is not there for the caller is answered like what is not there: also where the id is in the body or in the query.
        let is_about_one = path.contains('{') || path == "/orders";
        let PathItem { get, post, put, delete, patch, .. } = item;
        for (operation, writes) in [(get, false), (post, true), (put, true), (delete, true), (patch, true)] {
            let Some(operation) = operation else { continue };
            complete(operation, writes, components);
            problems::add_to(operation, writes, writes || is_about_one);
        }
    }
    document
}

/// Adds what is served without a key.
pub fn published(mut document: OpenApi) -> OpenApi {
    health::add_to(&mut document);
    document
}

fn complete(operation: &mut Operation, writes: bool, components: &Components) {
    // The first sentence is what lists of routes show.
    if let Some((first, others)) = operation.summary.as_deref().and_then(|summary| summary.split_once(". ")) {
        let description =
            [Some(others), operation.description.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        (operation.summary, operation.description) = (Some(format!("{first}.")), Some(description));
    }
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in parameters.iter_mut() {
        if let RefOr::T(Parameter { name, parameter_in: ParameterIn::Path, description, .. }) = parameter {
            *description = of_path(name).map(str::to_owned);
        }
    }
    if writes {
        parameters.push(key().into());
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let answered = schema_of(response);
        if response.description.is_empty() {
            let schema = answered.as_ref().and_then(|name| components.schemas.get(name));
            response.description = schema.and_then(description_of).unwrap_or_default().to_owned();
        }
        headers::add_to_success(response, status, writes, answered.as_deref());
    }
}

/// What the parts of paths are.
fn of_path(name: &str) -> Option<&'static str> {
    match name {
        "order" => Some("The id of an order: `order_id` of the answer that placed it."),
        "customer" => Some("The id of a customer. A customer has only the own one."),
        "toggle" => Some("The name of a switch: one of those that `GET /operator/toggles` lists."),
        _ => None,
    }
}

/// A field that may be absent is one of two schemas, and what is said of it is in one of them. Readers look for it at the field.
fn describe_optional(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    for field in object.properties.values_mut() {
        let RefOr::T(Schema::OneOf(one_of)) = field else { continue };
        let said = one_of.items.iter().find_map(|item| match item {
            RefOr::Ref(to) => Some(to.description.clone()),
            RefOr::T(_) => None,
        });
        one_of.description = one_of.description.take().or(said);
    }
}

/// The name of the schema of a body.
fn schema_of(response: &Response) -> Option<String> {
    let Some(RefOr::T(content)) = response.content.values().next() else { return None };
    let Some(RefOr::Ref(schema)) = &content.schema else { return None };
    schema.ref_location.rsplit('/').next().map(str::to_owned)
}

fn description_of(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.description.as_deref(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description.as_deref(),
        RefOr::T(Schema::AllOf(all_of)) => all_of.description.as_deref(),
        _ => None,
    }
}

fn key() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(200));
    let schema = schema.pattern(Some("^[!-~]+$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some(
            "Chosen by the client, a new one for each request, and the same when it sends the request again. Also an answer that \
             refuses is kept, so that a request which is corrected needs another key.",
        ))
        .schema(Some(schema))
        .build()
}
