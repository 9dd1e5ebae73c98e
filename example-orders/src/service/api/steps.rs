//! The writes: place an order, change it, and lead it to its end.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::checkout::Cart;
use crate::domain::money::{Currency, Money};
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
#[schema(example = json!({
    "customer": "alice", "lines": [{ "product": "kettle", "quantity": 1, "price": { "minor": 4900, "currency": "EUR" } }]
}))]
pub struct NewOrder {
    /// Who orders; a customer need not say it.
    #[schema(min_length = 1, max_length = 200)]
    customer: Option<String>,
    /// What is ordered, in one currency.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<NewLine>,
}

/// One line of what is ordered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLine {
    /// The product.
    #[schema(min_length = 1, max_length = 1000)]
    product: String,
    /// The number of pieces.
    #[schema(minimum = 1)]
    quantity: u32,
    /// The price of one piece, not below zero.
    price: Amount,
}

/// An amount as it is sent. A field that is none is refused here, while stored amounts are read also if later builds know more of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// Cents.
    minor: i64,
    /// The currency.
    currency: Currency,
}

impl From<Amount> for Money {
    fn from(Amount { minor, currency }: Amount) -> Self {
        Self { minor, currency }
    }
}

impl NewOrder {
    /// The order that a caller asks for, and whose it is.
    pub fn cart(self, write: &Write) -> Result<Cart, Problem> {
        let lines = checked(self.lines)?;
        let asked = self.customer.map(CustomerId::new).transpose()?;
        let missing = || {
            let detail = "say whose order it is: `customer`";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "customer-missing", detail)
        };
        let customer = write.caller.only(asked)?.ok_or_else(missing)?;
        Ok(Cart { order: id_of(write)?, customer, lines })
    }
}

/// What is ordered instead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "lines": [{ "product": "teapot", "quantity": 2, "price": { "minor": 1950, "currency": "EUR" } }]
}))]
pub struct NewLines {
    /// What is ordered, in the currency of the order.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<NewLine>,
}

/// Why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "it came too late" }))]
pub struct Why {
    /// The reason, for people.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
}

/// A payment that was made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "payment": "pay-1001", "amount": { "minor": 4900, "currency": "EUR" } }))]
pub struct Payment {
    /// The id of the payment at the payment service.
    #[schema(min_length = 1, max_length = 200)]
    payment: String,
    /// The amount, which is the total price.
    amount: Amount,
}

/// Where the pieces are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "warehouse": "north" }))]
pub struct Reservation {
    /// The warehouse.
    #[schema(min_length = 1, max_length = 200)]
    warehouse: String,
}

/// The parcel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "carrier": "snail", "tracking": "SN-1001" }))]
pub struct Parcel {
    /// The carrier.
    #[schema(min_length = 1, max_length = 200)]
    carrier: String,
    /// The carrier's number of the parcel.
    #[schema(min_length = 1, max_length = 200)]
    tracking: String,
}

/// Who has it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "signed_by": "Alice Adams" }))]
pub struct Delivery {
    /// Who signed for it.
    #[schema(min_length = 1, max_length = 200)]
    signed_by: String,
}

/// Place an order. The answer has its id.
#[utoipa::path(post, path = "/orders", operation_id = "place_order", tag = "orders", request_body = NewOrder,
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
#[utoipa::path(put, path = "/orders/{order}/lines", operation_id = "change_order_lines", tag = "orders", request_body = NewLines,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn change(write: Write, OrderPath(order): OrderPath, Body(new): Body<NewLines>) -> Result<Answer, Problem> {
    let lines = checked(new.lines)?;
    write.change(&order, OrderCommand::Change { lines }).await
}

/// Cancel an order that has not left. What is paid is refunded.
#[utoipa::path(post, path = "/orders/{order}/cancel", operation_id = "cancel_order", tag = "orders", request_body = Why,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn cancel(write: Write, OrderPath(order): OrderPath, Body(why): Body<Why>) -> Result<Answer, Problem> {
    let reason = short("reason", why.reason)?;
    write.change(&order, OrderCommand::Cancel { reason }).await
}

/// Record a payment that the shop has received, by transfer or at its till. Customers pay by a checkout, which asks the payment service.
#[utoipa::path(post, path = "/orders/{order}/pay", operation_id = "pay_order", tag = "orders", request_body = Payment,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn pay(write: Write, OrderPath(order): OrderPath, Body(paid): Body<Payment>) -> Result<Answer, Problem> {
    let payment = PaymentId::new(&paid.payment)?;
    write.change(&order, OrderCommand::Pay { payment, amount: paid.amount.into() }).await
}

/// Record that a warehouse has set the pieces aside.
#[utoipa::path(post, path = "/orders/{order}/reserve", operation_id = "reserve_order", tag = "orders", request_body = Reservation,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn reserve(write: Write, OrderPath(order): OrderPath, Body(at): Body<Reservation>) -> Result<Answer, Problem> {
    let warehouse = name("warehouse", at.warehouse)?;
    write.change(&order, OrderCommand::Reserve { warehouse }).await
}

/// Record that a carrier has the parcel.
#[utoipa::path(post, path = "/orders/{order}/ship", operation_id = "ship_order", tag = "orders", request_body = Parcel,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn ship(write: Write, OrderPath(order): OrderPath, Body(parcel): Body<Parcel>) -> Result<Answer, Problem> {
    let (carrier, tracking) = (name("carrier", parcel.carrier)?, name("tracking", parcel.tracking)?);
    write.change(&order, OrderCommand::Ship { carrier, tracking }).await
}

/// Record that the parcel has arrived.
#[utoipa::path(post, path = "/orders/{order}/deliver", operation_id = "deliver_order", tag = "orders", request_body = Delivery,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["admin"])))]
async fn deliver(write: Write, OrderPath(order): OrderPath, Body(at): Body<Delivery>) -> Result<Answer, Problem> {
    let signed_by = name("signed_by", at.signed_by)?;
    write.change(&order, OrderCommand::Deliver { signed_by }).await
}

/// Take a delivered order back. What is paid is refunded.
#[utoipa::path(post, path = "/orders/{order}/return", operation_id = "return_order", tag = "orders", request_body = Why,
    params(("order" = String, Path)), responses((status = 200, body = Written)), security(("api_key" = ["customer", "admin"])))]
async fn give_back(write: Write, OrderPath(order): OrderPath, Body(why): Body<Why>) -> Result<Answer, Problem> {
    let reason = short("reason", why.reason)?;
    write.change(&order, OrderCommand::Return { reason }).await
}

const MOST_LINES: usize = 100;
const LONGEST_TEXT: usize = 1_000;
const LONGEST_NAME: usize = 200;

/// What the domain does not ask, and a list or a search would suffer from.
fn checked(lines: Vec<NewLine>) -> Result<Vec<Line>, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "order-lines", detail);
    if lines.len() > MOST_LINES {
        return Err(wrong(format!("an order has at most {MOST_LINES} lines, not {}", lines.len())));
    }
    let line = |NewLine { product, quantity, price }| {
        let price = Money::from(price);
        if price.minor < 0 {
            return Err(wrong(format!("a price is not below zero: `{price}`")));
        }
        Ok(Line { product: short("product", product)?, quantity, price })
    };
    lines.into_iter().map(line).collect()
}

/// A text that people read.
pub fn short(field: &str, text: String) -> Result<String, Problem> {
    at_most(LONGEST_TEXT, field, text)
}

/// What something or somebody is called.
fn name(field: &str, text: String) -> Result<String, Problem> {
    at_most(LONGEST_NAME, field, text)
}

/// Databases cannot store the character U+0000, and no control character is of use to a reader.
fn at_most(longest: usize, field: &str, text: String) -> Result<String, Problem> {
    let wrong = |problem: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "text", format!("`{field}` {problem}"));
    match text.trim() {
        "" => Err(wrong("is empty")),
        _ if text.chars().count() > longest => Err(wrong(&format!("has more than {longest} characters"))),
        _ if text.chars().any(char::is_control) => Err(wrong("has a control character")),
        _ => Ok(text),
    }
}
