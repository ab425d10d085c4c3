//! The balancer over real sockets on loopback: every test has addresses of its own, so that ports never clash.

mod ambassador;
mod choosing;
mod cluster;
mod datagrams;
mod end_to_end;
mod http;
mod redirect;
mod site;
