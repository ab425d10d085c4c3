//! Requests through the balancer over real sockets.

mod both;
mod faults;
mod http2;
mod script;
mod serving;
mod site;
