//! The texts by which rows of the list of orders are read: one for each sort, each set of filters, and each beginning.
//!
//! A filter that is wanted compares a column with a value, so that an index finds its rows in order. One that is not wanted is null, and
//! holds for each row, as PostgreSQL sees too: of a column that is compared with itself it expects few rows, and would sort them all.
//!
//! The golden files of `plans.rs` show what the databases make of them. A search reads the rows of the shop in the order of the list
//! until it has found a part of it, and a list by customers is sorted: both take longer in a larger shop, and end by the limit of reads.

use annals::projections::QueryValue;

use crate::domain::order::CustomerId;
use crate::read_models::customers::CustomerRow;
use crate::service::api::cursor::{Column, Key, Sort};
use crate::service::api::list::Wanted;

/// So many customers are found by their names. A search for a name that more of them have finds the orders of some.
pub const MOST_NAMED: usize = 20;

/// Customers by their names.
pub const NAMED: &str = "search LIKE $1 ESCAPE '!' ORDER BY customer LIMIT 20";

macro_rules! found {
    () => {
        " AND (search LIKE $3 ESCAPE '!' OR customer IN ($5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
         $20, $21, $22, $23, $24))"
    };
}

/// From the beginning, and from a cursor.
macro_rules! text {
    ($filters:literal, $column:literal, $beyond:literal, $direction:literal) => {
        [
            concat!($filters, found!(), " ORDER BY ", $column, " ", $direction, ", order_id ", $direction, " LIMIT $4"),
            concat!(
                $filters,
                found!(),
                " AND ",
                $column,
                " ",
                $beyond,
                "= $25 AND (",
                $column,
                " ",
                $beyond,
                " $25 OR order_id ",
                $beyond,
                " $26) ORDER BY ",
                $column,
                " ",
                $direction,
                ", order_id ",
                $direction,
                " LIMIT $4"
            ),
        ]
    };
}

macro_rules! texts {
    ($filters:literal) => {
        [
            text!($filters, "placed_at", ">", "ASC"),
            text!($filters, "placed_at", "<", "DESC"),
            text!($filters, "total", ">", "ASC"),
            text!($filters, "total", "<", "DESC"),
            text!($filters, "customer", ">", "ASC"),
            text!($filters, "customer", "<", "DESC"),
        ]
    };
}

/// By the filters that are wanted, and then by the sort.
const TEXTS: [[[&str; 2]; 6]; 4] = [
    texts!("coalesce($1, status) IS NOT NULL AND coalesce($2, customer) IS NOT NULL"),
    texts!("status = $1 AND coalesce($2, customer) IS NOT NULL"),
    texts!("coalesce($1, status) IS NOT NULL AND customer = $2"),
    texts!("status = $1 AND customer = $2"),
];

/// The text for what is wanted, in a direction.
pub fn text(wanted: &Wanted, sort: Sort) -> &'static str {
    let filters = usize::from(wanted.status.is_some()) + 2 * usize::from(wanted.customer.is_some());
    let column = match sort.column {
        Column::PlacedAt => 0,
        Column::Total => 2,
        Column::Customer => 4,
    };
    TEXTS[filters][column + usize::from(sort.descending)][usize::from(wanted.from.is_some())]
}

/// The values of the text, in their order. `named` are the customers who were found by their names.
pub struct Values {
    pattern: String,
    most: i64,
    named: [Option<CustomerId>; MOST_NAMED],
}

impl Values {
    pub fn of(wanted: &Wanted, named: Vec<CustomerRow>) -> Self {
        let mut named = named.into_iter().map(|row| row.customer);
        let named = std::array::from_fn(|_| named.next());
        Self { pattern: pattern(wanted.search.as_deref()), most: wanted.limit as i64 + 1, named }
    }

    pub fn all<'a>(&'a self, wanted: &'a Wanted) -> Vec<&'a dyn QueryValue> {
        let mut values: Vec<&dyn QueryValue> = vec![&wanted.status, &wanted.customer, &self.pattern, &self.most];
        values.extend(self.named.iter().map(|customer| customer as &dyn QueryValue));
        if let Some(cursor) = &wanted.from {
            values.push(match &cursor.key {
                Key::PlacedAt(time) => time,
                Key::Total(cents) => cents,
                Key::Customer(customer) => customer,
            });
            values.push(&cursor.order);
        }
        values
    }
}

/// A pattern of `LIKE` that finds a text as it is: what stands for others in a pattern stands for itself.
pub fn pattern(search: Option<&str>) -> String {
    let mut pattern = String::from("%");
    for letter in search.unwrap_or_default().chars() {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    if search.is_some() {
        pattern.push('%');
    }
    pattern
}
