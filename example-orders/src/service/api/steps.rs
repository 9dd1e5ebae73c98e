//! The writes: place an order, change it, and lead it to its end.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::checkout::Cart;
use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderCommand, OrderId, PaymentId};
use crate::service::access::to_hex;
use crate::service::api::write::{Answer, Write, Written};
use crate::service::app::App;
use crate::service::ask::{Body, OrderPath};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(place))
        .routes(routes!(change))
        .routes(routes!(cancel))
        .routes(routes!(pay))
        .routes(routes!(reserve))
        .routes(routes!(ship))
        .routes(routes!(deliver))
        .routes(routes!(give_back))
}

/// What a customer orders.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who orders; a customer need not say it.
    #[schema(max_length = 200)]
    customer: Option<String>,
    /// What is ordered, in one currency.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<Line>,
}

impl NewOrder {
    /// The order that a caller asks for, and whose it is.
    pub fn cart(self, write: &Write) -> Result<Cart, Problem> {
        checked(&self.lines)?;
        let asked = self.customer.map(CustomerId::new).transpose()?;
        let missing = || {
            let detail = "say whose order it is: `customer`";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "customer-missing", detail)
        };
        let customer = write.caller.only(asked)?.ok_or_else(missing)?;
        Ok(Cart { order: id_of(write)?, customer, lines: self.lines })
    }
}

/// What is ordered instead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLines {
    /// What is ordered, in the currency of the order.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<Line>,
}

/// Why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reason, for people.
    #[schema(max_length = 1000)]
    reason: String,
}

/// A payment that was made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// The id of the payment at the payment service.
    #[schema(max_length = 200)]
    payment: String,
    /// The amount, which is the total price.
    amount: Money,
}

/// Where the pieces are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The warehouse.
    #[schema(max_length = 200)]
    warehouse: String,
}

/// The parcel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Parcel {
    /// The carrier.
    #[schema(max_length = 200)]
    carrier: String,
    /// The carrier's number of the parcel.
    #[schema(max_length = 200)]
    tracking: String,
}

/// Who has it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Who signed for it.
    #[schema(max_length = 200)]
    signed_by: String,
}

/// Place an order. The answer has its id.
#[utoipa::path(post, path = "/orders", tag = "orders", request_body = NewOrder,
    responses((status = 201, body = Written)),
    security(("api_key" = ["customer", "admin"])))]
async fn place(write: Write, Body(new): Body<NewOrder>) -> Result<Response, Problem> {
    let Cart { order, customer, lines } = new.cart(&write)?;
    let (position, body) = write.place(&order, OrderCommand::Place { customer, lines }).await?;
    // The id is made of hexadecimal digits.
    let place = HeaderValue::from_str(&format!("/orders/{order}")).map_err(|e| Problem::broken(&e))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], position, body).into_response())
}

/// The id of a new order follows from who asked under which key. So a request that is sent again after a crash is about the same order,
/// and is found to be the same request.
fn id_of(write: &Write) -> Result<OrderId, Problem> {
    let hash = Sha256::digest(format!("{} {}", write.caller.name(), write.key.as_str()));
    Ok(OrderId::new(format!("o-{}", to_hex(&hash[..10])))?)
}

/// Change what is ordered, before it is paid.
#[utoipa::path(put, path = "/orders/{order}/lines", tag = "orders", request_body = NewLines,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn change(write: Write, OrderPath(order): OrderPath, Body(new): Body<NewLines>) -> Result<Answer, Problem> {
    checked(&new.lines)?;
    write.change(&order, OrderCommand::Change { lines: new.lines }).await
}

/// Cancel an order that has not left. What is paid is refunded.
#[utoipa::path(post, path = "/orders/{order}/cancel", tag = "orders", request_body = Why,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn cancel(write: Write, OrderPath(order): OrderPath, Body(why): Body<Why>) -> Result<Answer, Problem> {
    let reason = short("reason", why.reason)?;
    write.change(&order, OrderCommand::Cancel { reason }).await
}

/// Record a payment.
#[utoipa::path(post, path = "/orders/{order}/pay", tag = "orders", request_body = Payment,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn pay(write: Write, OrderPath(order): OrderPath, Body(paid): Body<Payment>) -> Result<Answer, Problem> {
    let payment = PaymentId::new(&paid.payment)?;
    write.change(&order, OrderCommand::Pay { payment, amount: paid.amount }).await
}

/// Record that a warehouse has set the pieces aside.
#[utoipa::path(post, path = "/orders/{order}/reserve", tag = "orders", request_body = Reservation,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn reserve(write: Write, OrderPath(order): OrderPath, Body(at): Body<Reservation>) -> Result<Answer, Problem> {
    let warehouse = short("warehouse", at.warehouse)?;
    write.change(&order, OrderCommand::Reserve { warehouse }).await
}

/// Record that a carrier has the parcel.
#[utoipa::path(post, path = "/orders/{order}/ship", tag = "orders", request_body = Parcel,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn ship(write: Write, OrderPath(order): OrderPath, Body(parcel): Body<Parcel>) -> Result<Answer, Problem> {
    let (carrier, tracking) = (short("carrier", parcel.carrier)?, short("tracking", parcel.tracking)?);
    write.change(&order, OrderCommand::Ship { carrier, tracking }).await
}

/// Record that the parcel has arrived.
#[utoipa::path(post, path = "/orders/{order}/deliver", tag = "orders", request_body = Delivery,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn deliver(write: Write, OrderPath(order): OrderPath, Body(at): Body<Delivery>) -> Result<Answer, Problem> {
    let signed_by = short("signed_by", at.signed_by)?;
    write.change(&order, OrderCommand::Deliver { signed_by }).await
}

/// Take a delivered order back. What is paid is refunded.
#[utoipa::path(post, path = "/orders/{order}/return", tag = "orders", request_body = Why, operation_id = "return",
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn give_back(write: Write, OrderPath(order): OrderPath, Body(why): Body<Why>) -> Result<Answer, Problem> {
    let reason = short("reason", why.reason)?;
    write.change(&order, OrderCommand::Return { reason }).await
}

const MOST_LINES: usize = 100;
const LONGEST_TEXT: usize = 1_000;

/// What the domain does not ask, and a list or a search would suffer from.
fn checked(lines: &[Line]) -> Result<(), Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "order-lines", detail);
    if lines.len() > MOST_LINES {
        return Err(wrong(format!("an order has at most {MOST_LINES} lines, not {}", lines.len())));
    }
    for line in lines {
        if line.price.minor < 0 {
            return Err(wrong(format!("a price is not below zero: `{}`", line.price)));
        }
        short("product", line.product.clone())?;
    }
    Ok(())
}

/// A text that people read. Databases cannot store the character U+0000.
pub fn short(field: &str, text: String) -> Result<String, Problem> {
    let wrong = |problem: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "text", format!("`{field}` {problem}"));
    match text.trim() {
        "" => Err(wrong("is empty")),
        _ if text.chars().count() > LONGEST_TEXT => Err(wrong(&format!("has more than {LONGEST_TEXT} characters"))),
        _ if text.chars().any(char::is_control) => Err(wrong("has a control character")),
        _ => Ok(text),
    }
}
