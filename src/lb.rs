//! The load balancer: tables of endpoints (pure), choice of one (pure), listeners and proxying (edge).

pub mod l4;
pub mod listeners;
pub mod pick;
pub mod table;
