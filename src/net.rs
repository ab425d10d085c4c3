//! Names and addresses: subnets and virtual addresses (pure), the DNS table (pure), the DNS server (edge).

pub mod addr;
pub mod dns;
pub mod lookup;
pub mod names;

#[cfg(any(test, feature = "testing"))]
pub mod fixtures;
