//! What a gateway is answered: header fields, the body of a refusal.

pub mod fields;
pub mod problem;
