//! The dashboard: pages for people, made on the server, over the same queries as the API.
//!
//! A page is a function that asks the API's own functions and writes HTML (`maud`, which escapes every text). It works without
//! scripts; with them a page is kept up to date: it is told that something has changed, asks for itself again, and what differs is put
//! in (`htmx`). Who is signed in has the rights of an API key, so each page says which route of the API it shows.
//!
//! A page more is a function in a file of its own, a line in `router.rs`, and one in `layout.rs` if it is in the navigation. It takes a
//! [`visitor::Visitor`], says what it [needs](visitor::Visitor::needs), and gives a [`layout::Page`] that names its
//! [topics](topic::Topic); a form begins with [`Visitor::form_token`](visitor::Visitor::form_token) and is taken as a [`form::Form`].

mod analytics;
mod assets;
mod blocks;
mod breakers;
mod chart;
mod checkout;
mod controls;
mod correlation;
mod decide;
mod error;
mod form;
mod format;
mod headers;
mod hour;
mod layout;
mod live;
mod operations;
mod order;
mod orders;
mod overview;
mod personal;
mod policies;
mod projections;
mod query;
mod rooms;
mod router;
mod saga_rows;
mod sagas;
mod sessions;
mod sign_in;
mod slider;
mod state;
mod steps;
mod timeline;
mod topic;
mod visitor;

pub use state::Dashboard;
