//! Requests through the balancer over real sockets.

mod both;
mod choosing;
mod faults;
mod hosts;
mod http2;
mod rules;
mod script;
mod serving;
mod site;
