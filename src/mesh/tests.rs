//! Agents over real TLS on loopback.

mod faults;
pub(crate) mod site;
mod streams;
