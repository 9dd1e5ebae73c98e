//! The checkout over three services: as a saga, and as a choreography.

pub mod choreography;
pub mod definition;
pub mod services;
