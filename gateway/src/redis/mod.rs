//! The server: connections, batches, the circuit breaker.
