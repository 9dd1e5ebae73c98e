//! Tests of the pure core.

mod accounts;
mod columns;
mod folding;
mod law;
