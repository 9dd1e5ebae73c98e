//! Tests of the pure core, and of the runner over stores and databases in memory.

mod accounts;
mod columns;
mod folding;
mod law;
mod messages;
mod pages;
mod runner;
mod start;
mod swapped;
mod workshop;
