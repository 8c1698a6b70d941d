//! RateLimit header fields.
