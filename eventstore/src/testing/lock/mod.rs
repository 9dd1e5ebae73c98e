//! The schema lock: a file in version control that notices when the shape or the meaning of stored events changes.

mod compare;
mod corpus;
mod line;
mod now;
mod schema_lock;
#[cfg(test)]
mod tests;

pub use schema_lock::SchemaLock;
