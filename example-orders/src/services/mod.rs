//! The payment service, the warehouse and the carrier: services over HTTP that have an effect once, however often they are asked, and
//! not after it was taken back; and the clients that call them.

pub mod book;
pub mod clients;
pub mod faults;
pub mod payment;
pub mod server;
pub mod shipping;
pub mod stock;
