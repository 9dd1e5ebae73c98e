//! The document of the API (OpenAPI 3.1): what is common to all routes.

use serde_json::json;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder};

use crate::service::problem::Problem;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "The shop",
        description = "Orders of shops that share one store. The key of a request says whose they are.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem))
)]
struct About;

/// The document without any route.
pub fn about() -> OpenApi {
    About::openapi()
}

/// Adds what every route has: the key, errors, and for writes the idempotency key.
pub fn completed(mut document: OpenApi) -> OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("ID.SECRET").build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert("api_key".to_owned(), SecurityScheme::Http(scheme).into());
    for path in document.paths.paths.values_mut() {
        let writes = [&mut path.post, &mut path.put, &mut path.delete, &mut path.patch];
        for operation in writes.into_iter().flatten() {
            operation.parameters.get_or_insert_default().push(key().into());
            with_errors(operation);
        }
        path.get.iter_mut().for_each(with_errors);
    }
    document
}

fn key() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(200));
    let schema = schema.pattern(Some("^[!-~]+$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some("Chosen by the client, one for each request, and the same when it sends the request again."))
        .schema(Some(schema))
        .example(Some(json!("my-request-1")))
        .build()
}

fn with_errors(operation: &mut Operation) {
    for (statuses, description) in [
        ("4XX", "The request cannot be done as it is; `code` says why."),
        ("5XX", "The shop cannot answer now; the same request with the same key may work later."),
    ] {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(description).content("application/problem+json", content);
        operation.responses.responses.insert(statuses.to_owned(), RefOr::T(response.build()));
    }
}
