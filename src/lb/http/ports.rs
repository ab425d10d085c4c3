//! The rules of each port of the host, made whole from a table: who is asked for at which address, and what is shown of
//! TLS there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::count::Tally;
use super::route::{Asked, RouteTable, is_reached_at};
use super::tls::Certificates;
use crate::graph::Protocol;
use crate::lb::routing::{Door, Pool};
use crate::lb::table::{PublishedKey, RouteRule};
use crate::model::Route;

/// A rule, and what is behind it. What every request needs is in it, so that it need not look anywhere else.
#[derive(Debug)]
pub(in crate::lb) struct Rule {
    /// Its service's pods.
    pub(in crate::lb) pool: Arc<Pool>,
    /// Its requests.
    pub(in crate::lb) tally: Arc<Tally>,
    /// The port of the pods.
    pub(in crate::lb) port: u16,
    /// Whether requests go to the pods as they are, and have the usual time.
    pub(in crate::lb) is_plain: bool,
    /// What it says.
    pub(in crate::lb) route: Arc<Route>,
    /// Its place among the rules of its service.
    pub(in crate::lb) number: usize,
    /// By which the pods are found again in later tables.
    pub(in crate::lb) door: Arc<Door>,
    /// How logs name it.
    pub(in crate::lb) name: String,
}

impl Rule {
    /// Returns what it says, if that is more than which pods a request goes to.
    pub(super) fn more(&self) -> Option<&Route> {
        (!self.is_plain).then_some(&*self.route)
    }
}

/// The rules of one port.
#[derive(Debug)]
pub(in crate::lb) struct PortRules {
    /// Whether clients speak TLS there.
    pub(in crate::lb) is_tls: bool,
    /// Rules for every address of the host.
    everywhere: RouteTable<Arc<Rule>>,
    /// By address that a rule is for: with those for every address.
    at: Vec<(IpAddr, RouteTable<Arc<Rule>>)>,
    /// Addresses to listen at; `None`: all.
    listen: BTreeSet<Option<IpAddr>>,
    /// What is shown to whom.
    pub(in crate::lb) certificates: Certificates,
}

impl PortRules {
    /// Returns the rule that a request is for which came to the address `local`.
    pub(super) fn find(&self, local: IpAddr, asked: &Asked<'_>) -> Option<&Arc<Rule>> {
        let own = self.at.iter().find(|(address, _)| is_reached_at(Some(*address), local));
        // Counted where requests are counted anyway, so that it outlives this table and costs no look elsewhere.
        own.map_or(&self.everywhere, |(_, table)| table).find(asked, |first| first.tally.turn())
    }

    /// Returns all rules that share a request, as [`RouteTable::shares`] does.
    pub(super) fn shares(&self, local: IpAddr, asked: &Asked<'_>) -> &[(u64, Arc<Rule>)] {
        let own = self.at.iter().find(|(address, _)| is_reached_at(Some(*address), local));
        own.map_or(&self.everywhere, |(_, table)| table).shares(asked)
    }

    /// Returns where to listen for the rules of `port`.
    pub(in crate::lb) fn listeners(&self, port: u16) -> impl Iterator<Item = PublishedKey> {
        let everywhere = self.listen.contains(&None).then_some(None);
        // All addresses include each; a listener at one of them would be in the way.
        let some = self.listen.iter().copied().filter(move |_| everywhere.is_none());
        let key = move |host_ip| PublishedKey { host_ip, port, protocol: Protocol::Tcp };
        everywhere.into_iter().chain(some).map(key)
    }
}

/// Makes the rules of all ports from those of a table and what each was `made` to.
pub(in crate::lb) fn compile(
    rules: &[RouteRule],
    made: &[Arc<Rule>],
    mut certified: impl FnMut(&RouteRule) -> Option<Arc<CertifiedKey>>,
) -> BTreeMap<u16, PortRules> {
    let ports: BTreeSet<u16> = rules.iter().flat_map(|one| &one.route.listen).map(|listen| listen.port).collect();
    let mut of_port = |port: u16| {
        let is_here = |one: &RouteRule| one.route.listen.iter().any(|listen| listen.port == port);
        let here: Vec<(&RouteRule, &Arc<Rule>)> = rules.iter().zip(made).filter(|(one, _)| is_here(one)).collect();
        let listen: BTreeSet<Option<IpAddr>> = here.iter().map(|(one, _)| one.route.host_ip).collect();
        let table = |local: Option<IpAddr>| {
            let reached = here.iter().filter(|(one, _)| {
                let host_ip = one.route.host_ip;
                local.map_or(host_ip.is_none(), |local| is_reached_at(host_ip, local))
            });
            RouteTable::new(reached.map(|(one, rule)| (&*one.route, Arc::clone(*rule))))
        };
        let with_tls = |one: &RouteRule| one.route.listen.iter().any(|listen| listen.port == port && listen.tls);
        let mut certificates = Certificates::default();
        for (one, _) in here.iter().filter(|(one, _)| with_tls(one)) {
            if let Some(key) = certified(one) {
                certificates.add(&one.route.hosts, &key);
            }
        }
        let is_tls = here.iter().any(|(one, _)| with_tls(one));
        let at = listen.iter().flatten().map(|address| (*address, table(Some(*address)))).collect();
        PortRules { is_tls, everywhere: table(None), at, listen, certificates }
    };
    ports.into_iter().map(|port| (port, of_port(port))).collect()
}
