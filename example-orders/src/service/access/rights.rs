//! Which roles a route takes. It is read from the document of the API, so that what is published is what is enforced.

use std::collections::HashMap;

use axum::http::Method;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::caller::Role;

/// The name of the security scheme in the document.
pub const SCHEME: &str = "api_key";

/// What the document says of each route that is enforced before it.
#[derive(Debug)]
pub struct Rights(HashMap<(Method, String), Route>);

#[derive(Debug)]
struct Route {
    roles: Vec<Role>,
    takes_query: bool,
}

/// A route whose document does not say who may use it.
#[derive(Debug, thiserror::Error)]
#[error("the document of `{0}` names no role that may use it; add `security((\"api_key\" = [\"admin\"]))`")]
pub struct RightsFault(String);

impl Rights {
    /// Reads the roles of all routes.
    ///
    /// # Errors
    /// [`RightsFault`] for a route that has none, so that a new one cannot be forgotten.
    pub fn of(document: &OpenApi) -> Result<Self, RightsFault> {
        let mut rights = HashMap::new();
        let document = serde_json::to_value(document).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let route = format!("{} {path}", method.to_ascii_uppercase());
                let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else { continue };
                let roles = roles_of(operation).ok_or(RightsFault(route))?;
                let mut parameters = operation["parameters"].as_array().into_iter().flatten();
                let takes_query = parameters.any(|parameter| parameter["in"] == "query");
                rights.insert((method, path.clone()), Route { roles, takes_query });
            }
        }
        Ok(Self(rights))
    }

    /// Whether there is such a route.
    pub fn knows(&self, method: &Method, path: &str) -> bool {
        self.0.contains_key(&route(method, path))
    }

    /// Whether a caller of this role may use the route.
    pub fn allow(&self, method: &Method, path: &str, role: Role) -> bool {
        self.0.get(&route(method, path)).is_some_and(|route| route.roles.contains(&role))
    }

    /// Whether the route has any parameter in its query.
    pub fn takes_query(&self, method: &Method, path: &str) -> bool {
        self.0.get(&route(method, path)).is_some_and(|route| route.takes_query)
    }
}

fn route(method: &Method, path: &str) -> (Method, String) {
    // A HEAD is answered by the handler of the GET.
    (if *method == Method::HEAD { Method::GET } else { method.clone() }, path.to_owned())
}

fn roles_of(operation: &Value) -> Option<Vec<Role>> {
    let names = operation["security"].get(0)?.get(SCHEME)?.as_array()?;
    let role = |name: &Value| Role::ALL.into_iter().find(|role| Some(role.name()) == name.as_str());
    names.iter().map(role).collect::<Option<Vec<_>>>().filter(|roles| !roles.is_empty())
}
