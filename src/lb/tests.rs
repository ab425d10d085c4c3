//! The balancer over real sockets on loopback: every test has addresses of its own, so that ports never clash.

use proptest::test_runner::Config;

mod ambassador;
mod cluster;
mod datagrams;
mod end_to_end;
mod http;
mod redirect;
mod site;

/// How often a property is tried: `usual` times, or as often as `PROPTEST_CASES` says.
pub(in crate::lb) fn tries(usual: u32) -> Config {
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    if told { Config::default() } else { Config::with_cases(usual) }
}
