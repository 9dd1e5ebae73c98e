//! The document of the API: it is whole, its examples and bounds are true, and every answer in these tests is one that it has.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, Answer, OPERATOR, Server, Store, order};

/// The document, as the service has it.
pub(crate) async fn document(server: &Server) -> &'static Value {
    static DOCUMENT: OnceCell<Value> = OnceCell::const_new();
    let read = async || Answer::of(server.client.get(format!("http://{}/openapi.json", server.address))).await.json();
    DOCUMENT.get_or_init(read).await
}

/// Path, method and description of every route.
pub(crate) fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(method, operation)| (&**path, &**method, operation))
    })
}

/// What the document says of a route; nothing of one that it does not have, such as the dashboard.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<(&'a str, &'a Value)> {
    let path: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let fits = |pattern: &str| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        pattern.len() == path.len()
            && pattern.iter().zip(&path).all(|(part, given)| part.starts_with('{') || part == given)
    };
    let found = operations(document).filter(|(pattern, of, _)| of.eq_ignore_ascii_case(method) && fits(pattern));
    found.min_by_key(|(pattern, ..)| pattern.matches('{').count()).map(|(pattern, _, operation)| (pattern, operation))
}

/// Fails if an answer is not one that the document has: status, type of the body, headers, and the code of an error.
pub(crate) fn check(document: &Value, method: &str, path: &str, answer: &Answer) {
    let Some((pattern, operation)) = operation(document, method, path) else { return };
    let what = format!("{method} {pattern} {} {:?} {}", answer.status, answer.headers, answer.text);
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "the status is not in the document: {what}");
    let kind = answer.header("content-type").split(';').next().unwrap_or_default();
    assert!(answer.text.is_empty() || response["content"][kind].is_object(), "the body is not in the document: {what}");
    let documented: BTreeSet<String> =
        response["headers"].as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase()).collect();
    for name in answer.headers.keys().map(|name| name.as_str()) {
        let is_of_http = ["content-type", "content-length", "date", "connection", "cache-control"].contains(&name);
        assert!(is_of_http || documented.contains(name), "the header {name} is not in the document: {what}");
    }
    if answer.status < 300 && method != "GET" {
        for promised in ["x-position", "location"].into_iter().filter(|name| documented.contains(*name)) {
            assert!(!answer.header(promised).is_empty(), "there is no {promised}: {what}");
        }
    }
    if kind == "application/problem+json" {
        let code = format!("`{}`", answer.problem().1);
        assert!(response["description"].as_str().is_some_and(|text| text.contains(&code)), "{code} is not in: {what}");
    }
}

fn is_described(value: &Value) -> bool {
    value["description"].as_str().is_some_and(|text| !text.trim().is_empty())
}

/// Calls `visit` with every value in a document that is an object, and where it is.
fn each_object(value: &Value, at: &str, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            visit(at, fields);
            fields.iter().for_each(|(name, value)| each_object(value, &format!("{at}/{name}"), visit));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| each_object(item, &format!("{at}/{n}"), visit));
        }
        _ => {}
    }
}

/// Generators of clients name functions by the ids, and people read the descriptions.
#[tokio::test]
async fn the_document_of_the_api_is_whole() {
    let server = Server::on(Store::file()).await;
    let document = document(&server).await;
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(document) {
        let route = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert!(id.contains('_') && ids.insert(id), "{route}: the id `{id}` says too little, or another one has it");
        assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{route} is not described");
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{route}");
        for (status, response) in responses {
            assert!(is_described(response), "{route} {status} is not described");
        }
        let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
        for parameter in &parameters {
            assert!(is_described(parameter), "{route}: {parameter}");
        }
        if let Some(role) = operation["security"][0]["api_key"][0].as_str() {
            let key = match role {
                "customer" => ALICE,
                "admin" => ADMIN,
                _ => ALPHA_OPERATOR,
            };
            let at =
                path.replace("{order}", "o-1003").replace("{customer}", "alice").replace("{toggle}", "preferences");
            let request = server.request(&method.to_uppercase(), &format!("{at}?none=1"), key);
            let refused = Answer::of(request.header("idempotency-key", id).json(&json!({}))).await;
            assert_eq!(refused.problem(), (400, "query-invalid".to_owned()), "{route} passes over a parameter");
        }
        let in_path: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, named, "{route}");
    }
    each_object(document, "", &mut |at, object| {
        for (name, field) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(is_described(field), "the field {name} of {at} is not described");
        }
        if let Some(Value::String(to)) = object.get("$ref") {
            assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{at}: there is no {to}");
        }
        let values = object.get("enum").and_then(Value::as_array).into_iter().flatten();
        // The codes of errors are where their statuses are.
        for value in values.filter(|_| !at.ends_with("/Problem/properties/code")) {
            let text = object.get("description").and_then(Value::as_str).unwrap_or_default();
            let value = value.as_str().unwrap_or_default();
            assert!(text.contains(&format!("`{value}`")), "{at} does not say what `{value}` is");
        }
    });
}

/// What breaks each bound of a body alone, and what just fits: where, the one and the other.
fn bounds(document: &Value, schema: &Value, body: &Value, at: &str, found: &mut Vec<(String, Option<Value>, Value)>) {
    let schema = match schema["$ref"].as_str() {
        Some(to) => document.pointer(to.trim_start_matches('#')).expect("a schema"),
        None => schema,
    };
    let number = |name: &str| schema[name].as_u64().map(|bound| usize::try_from(bound).expect("a small one"));
    let text = |length| json!("x".repeat(length));
    if let Some(most) = number("maxLength") {
        found.push((at.to_owned(), Some(text(most)), text(most + 1)));
    }
    if let Some(least @ 1..) = number("minLength") {
        found.push((at.to_owned(), Some(text(least)), text(least - 1)));
    }
    if let Some(least) = schema["minimum"].as_i64() {
        found.push((at.to_owned(), Some(json!(least)), json!(least - 1)));
    }
    if schema["pattern"].is_string() {
        found.push((at.to_owned(), None, json!("?")));
    }
    let items = |length| json!(vec![body[0].clone(); length]);
    if let Some(most) = number("maxItems") {
        found.push((at.to_owned(), Some(items(most)), items(most + 1)));
    }
    if let Some(least @ 1..) = number("minItems") {
        found.push((at.to_owned(), Some(items(least)), items(least - 1)));
    }
    if schema["items"].is_object() {
        bounds(document, &schema["items"], &body[0], &format!("{at}/0"), found);
    }
    if schema["properties"].is_object() {
        // What is passed over in silence may be a discount.
        let mut with_another = body.clone();
        with_another["another"] = json!(1);
        found.push((at.to_owned(), None, with_another));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert!(!body[name].is_null(), "the example has no {name}: {body}");
        bounds(document, field, &body[name], &format!("{at}/{name}"), found);
    }
}

#[tokio::test]
async fn the_example_of_every_body_is_taken_and_its_bounds_are_those_of_the_service() {
    let server = Server::on(Store::file()).await;
    let document = document(&server).await;
    let checkout = server.post("/checkouts", ALICE, "checkout", &order("alice", 1, 100)).await;
    let checkout = checkout.json()["order"].as_str().expect("an id").to_owned();
    let (mut number, mut bounded) = (0, 0);
    let mut send = async |method: &str, path: &str, body: &Value| {
        number += 1;
        let key = match path {
            _ if path.starts_with("/operator") => OPERATOR,
            _ if path.ends_with("/decision") => ALPHA_OPERATOR,
            _ => ADMIN,
        };
        server.write(&method.to_uppercase(), path, key, &format!("bound-{number}"), body).await
    };
    for (path, method, operation) in operations(document).filter(|(.., operation)| operation["requestBody"].is_object())
    {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let of =
            document.pointer(schema["$ref"].as_str().expect("a schema").trim_start_matches('#')).expect("it is there");
        let example = &of["example"];
        // One that is placed, and not what another route has made of it.
        let order = match path.ends_with("/decision") {
            true => checkout.clone(),
            false => server.place(ADMIN, &format!("{method} {path}").replace(' ', "-"), "alice", 100).await.0,
        };
        let at = path.replace("{order}", &order).replace("{customer}", "alice").replace("{toggle}", "recommendations");
        let wrong = [400, 404, 415, 422];
        let taken = send(method, &at, example).await;
        assert!(!wrong.contains(&taken.status), "{method} {path} {example}: {}", taken.text);
        let mut found = Vec::new();
        bounds(document, schema, example, "", &mut found);
        for (field, fits, breaks) in found {
            bounded += 1;
            let with = |value: &Value| {
                let mut body = example.clone();
                *body.pointer_mut(&field).expect("a field") = value.clone();
                body
            };
            let refused = send(method, &at, &with(&breaks)).await;
            assert!(
                [400, 422].contains(&refused.status),
                "{method} {path} {field} {breaks}: {} {}",
                refused.status,
                refused.text
            );
            // A checkout takes the same body as an order.
            if let Some(fits) = fits.filter(|_| path != "/checkouts") {
                let taken = send(method, &at, &with(&fits)).await;
                assert!(
                    !wrong.contains(&taken.status),
                    "{method} {path} {field} {fits}: {} {}",
                    taken.status,
                    taken.text
                );
            }
        }
    }
    assert!(bounded > 30, "{bounded}");
}
