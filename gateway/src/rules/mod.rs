//! The rules of a configuration.
