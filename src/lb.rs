//! The load balancer: tables of endpoints (pure), choice of one (pure), listeners and proxying (edge).
//!
//! `build` makes a [`table`] from desired and observed state; [`Balancer`] takes tables and serves; `pick` chooses,
//! `outlier` says who is passed over, `balance` what a service's own wishes mean for both.

pub mod http;
pub mod l4;
pub mod listeners;
pub mod outlier;
pub mod pick;
pub mod table;

mod ambassador;
mod balance;
mod balancer;
mod build;
mod choose;
mod endpoint;
mod inbound;
mod relay;
mod routing;
mod stats;
#[cfg(test)]
mod tests;
mod trouble;
mod udp;

pub use ambassador::{AmbassadorStats, AmbassadorTargetStats};
pub use balancer::{Balancer, BalancerOptions, BindError};
pub use http::dry::{DryRequest, DryRun, Miss, Near, PublishedTold, RuleTold, Share, Spoken};
pub use http::{AccessAsked, AccessLine, AccessLog, AccessTo};
pub use stats::{BalancerStats, DatagramStats, EndpointStats, PublishedStats, RouteStats, ServiceStats};
pub use trouble::{Trouble, TroubleStats};
