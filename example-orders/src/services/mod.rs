//! The payment service, the warehouse and the carrier: services over HTTP that have an effect once, however often they are asked, and
//! not after it was taken back; and the clients that call them.

mod book;
mod clients;
mod faults;
pub(crate) mod payment;
mod server;
pub(crate) mod shipping;
pub(crate) mod stock;

pub use book::{Entry, EntryEvent, Refused, Sums, TakeBack};
pub use clients::{BUDGET, Client, ClientSettings, Clients, Origin};
pub use faults::{Faults, Switch};
pub use server::{Kind, SHOP, Server, Servers, TRACE, serve};
