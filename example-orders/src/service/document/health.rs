//! The routes that say how the service is. The crate has them, so that they are described here.

use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Response, ResponseBuilder};

/// How the service is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the document has it; the crate writes it")]
struct HealthReport {
    /// `up`; `degraded`, if it works without something; `down`, `starting` or `draining`, if no request should come.
    status: String,
    /// What was looked at, by name: its own `status`, whether it is `critical`, the `error`, and how old that is (`age_ms`).
    #[schema(value_type = Object)]
    checks: serde_json::Value,
}

const ROUTES: [(&str, &str, &str, &str); 3] = [
    ("/health/live", "is_live", "Whether the process works, or should be restarted", "The process is blocked."),
    (
        "/health/ready",
        "is_ready",
        "Whether requests should come, and what was looked at for that",
        "Requests should not come.",
    ),
    ("/health/startup", "has_started", "Whether the start is done", "The start is not done."),
];

/// Adds them.
pub fn add_to(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    components.schemas.insert("HealthReport".to_owned(), HealthReport::schema());
    for (path, id, summary, otherwise) in ROUTES {
        let operation = OperationBuilder::new()
            .tag("health")
            .operation_id(Some(id))
            .summary(Some(format!("{summary}. It needs no key.")))
            .response("200", answer("Yes."))
            .response("503", answer(otherwise));
        document.paths.add_path_operation(path, vec![HttpMethod::Get], operation);
    }
}

fn answer(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("HealthReport"))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}
