//! Requests through the balancer over real sockets.

mod both;
mod changing;
mod choosing;
mod cookies;
mod crowded;
mod faults;
mod generated;
mod hostile;
mod hostile_http2;
mod hosts;
mod http2;
mod refusing;
mod rules;
mod script;
mod serving;
mod site;
mod traps;
