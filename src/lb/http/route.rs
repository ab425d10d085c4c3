//! Which rule a request is for. Pure: a table made whole from all rules of a port, asked once for each request.
//!
//! Of the rules that match, the one with the most exact host is taken, then the most exact path, then one that names the
//! method, then the one with the most header fields, then the first one. Rules that match the same share requests by their
//! weights, by turn ([`turn`]). Source: Kubernetes Gateway API 1.2, `HTTPRouteSpec.hostnames` and `HTTPRouteRule.matches`.
//!
//! A look-up costs as much as there are different lengths of prefixes below the host, not as many rules.

mod text;
mod turn;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use text::Text;
use turn::Order;

use crate::model::{HostMatch, PathMatch, PathRewrite, Route, RouteAction};

/// Longest name of a host that a rule can have. Source: RFC 1035, section 2.3.4.
const MAX_HOST: usize = 255;

/// Up to so many choices are looked at one after the other: they lie side by side, and nothing else is read.
const FEW: usize = 8;

/// The rules of a port, each with what it leads to.
#[derive(Debug, Clone)]
pub(super) struct RouteTable<T> {
    exact: HashMap<Text, ByPath<T>>,
    /// By the name that the host is below of.
    below: HashMap<Text, ByPath<T>>,
    any: ByPath<T>,
}

/// The rules of a host.
#[derive(Debug, Clone)]
struct ByPath<T> {
    /// In the order of precedence, those of the same path side by side.
    choices: Box<[Choice<T>]>,
    /// The lengths that prefixes have, longest first, where there are more than [`FEW`] choices.
    lengths: Box<[usize]>,
}

/// Rules that match the same.
#[derive(Debug, Clone)]
struct Choice<T> {
    path: Text,
    is_exact: bool,
    /// What else they ask for, if anything.
    when: Option<Box<When>>,
    shares: Shares<T>,
}

/// What rules ask for beside host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct When {
    methods: Vec<String>,
    headers: Vec<(String, String)>,
}

/// Rules with their shares, each with the end of its share; the shares follow one another.
#[derive(Debug, Clone)]
enum Shares<T> {
    One((u64, T)),
    Several(Vec<(u64, T)>, Box<Order>),
}

/// What a request says that rules look at.
pub(super) struct Asked<'a> {
    /// Value of `Host`, or the authority.
    pub(super) host: &'a [u8],
    /// Path without query.
    pub(super) path: &'a [u8],
    /// Method.
    pub(super) method: &'a str,
    /// Whether it has a header field of this name, in lower case, with this value.
    pub(super) has_header: &'a dyn Fn(&str, &str) -> bool,
}

impl<T: Clone> RouteTable<T> {
    /// Makes a table of rules, of which the earlier ones come first where nothing else decides.
    pub(super) fn new<'a>(rules: impl IntoIterator<Item = (&'a Route, T)>) -> Self {
        let (mut exact, mut below) = (HashMap::<Text, Rules<'a, T>>::new(), HashMap::<Text, Rules<'a, T>>::new());
        let mut any = Rules::new();
        for (route, value) in rules {
            if route.hosts.is_empty() {
                any.push((route, value.clone()));
            }
            for host in &route.hosts {
                let (map, name) = match host {
                    HostMatch::Exact(name) => (&mut exact, name),
                    HostMatch::Below(name) => (&mut below, name),
                };
                let name = name.to_ascii_lowercase();
                map.entry(name.as_bytes().into()).or_default().push((route, value.clone()));
            }
        }
        let each = |map: HashMap<Text, Rules<'a, T>>| map.into_iter().map(|(name, rules)| (name, ByPath::new(rules)));
        Self { exact: each(exact).collect(), below: each(below).collect(), any: ByPath::new(any) }
    }

    /// Returns what a request is for. Between rules that share decides whose turn it is: `turn` counts them, and is asked of the
    /// first one of those that share, for each request that they share once.
    pub(super) fn find(&self, asked: &Asked<'_>, turn: impl FnOnce(&T) -> u64) -> Option<&T> {
        self.choice(asked)?.shares.take(turn)
    }

    /// Returns all that share a request, each with the end of its share; the shares follow one another.
    pub(super) fn shares(&self, asked: &Asked<'_>) -> &[(u64, T)] {
        self.choice(asked).map_or(&[], |choice| choice.shares.all())
    }

    fn choice(&self, asked: &Asked<'_>) -> Option<&Choice<T>> {
        let mut lower = [0; MAX_HOST];
        let name = bare_host(asked.host);
        if let Some(name) = lower.get_mut(..name.len()).filter(|_| !name.is_empty()).map(|lower| {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            &*lower
        }) {
            let exact = self.exact.get(name).into_iter();
            let parents = name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(dot, _)| &name[dot + 1..]);
            let below = parents.filter(|_| !self.below.is_empty()).filter_map(|parent| self.below.get(parent));
            if let Some(found) = exact.chain(below).find_map(|rules| rules.choice(asked)) {
                return Some(found);
            }
        }
        self.any.choice(asked)
    }
}

/// Rules of one host, in the order in which they are written.
type Rules<'a, T> = Vec<(&'a Route, T)>;

impl<T: Clone> ByPath<T> {
    fn new(rules: Rules<'_, T>) -> Self {
        let mut choices: Vec<(Choice<T>, bool)> =
            rules.into_iter().map(|(route, value)| Choice::new(route, value)).collect();
        // Stable: the earlier ones stay first where nothing else decides.
        choices.sort_by(|(one, _), (other, _)| {
            let rest = |choice: &Choice<T>| {
                let when = choice.when.as_deref();
                let headers = when.map_or(0, |when| when.headers.len());
                (when.is_none_or(|when| when.methods.is_empty()), usize::MAX - headers)
            };
            one.place(other.is_exact, &other.path).then_with(|| rest(one).cmp(&rest(other)))
        });
        let mut joined: Vec<(Choice<T>, bool)> = Vec::with_capacity(choices.len());
        for (choice, is_weighted) in choices {
            let mut of_path =
                joined.iter_mut().rev().take_while(|(one, _)| one.place(choice.is_exact, &choice.path).is_eq());
            let same = of_path.find(|(one, other)| is_weighted && *other && one.when == choice.when);
            match same {
                Some((one, _)) => one.shares.add(&choice.shares),
                None => joined.push((choice, is_weighted)),
            }
        }
        let choices: Box<[Choice<T>]> = joined.into_iter().map(|(choice, _)| choice).collect();
        let mut lengths = Vec::new();
        if choices.len() > FEW {
            // Longest first already.
            lengths.extend(choices.iter().filter(|choice| !choice.is_exact).map(|choice| choice.path.len()));
            lengths.dedup();
        }
        Self { choices, lengths: lengths.into() }
    }
}

impl<T> ByPath<T> {
    fn choice(&self, asked: &Asked<'_>) -> Option<&Choice<T>> {
        let path = asked.path;
        if self.choices.len() <= FEW {
            return self.choices.iter().find(|choice| choice.takes_path(path) && choice.matches(asked));
        }
        let whole = |length: &&usize| path.len() == **length || path.get(**length) == Some(&b'/');
        let mut prefixes = self.lengths.iter().filter(whole).filter_map(|length| path.get(..*length));
        let of = |is_exact: bool, path: &[u8]| {
            let first = self.choices.partition_point(|choice| choice.place(is_exact, path).is_lt());
            let mut of_path = self.choices[first..].iter().take_while(|choice| choice.place(is_exact, path).is_eq());
            of_path.find(|choice| choice.matches(asked))
        };
        of(true, path).or_else(|| prefixes.find_map(|prefix| of(false, prefix)))
    }
}

impl<T> Choice<T> {
    /// Makes what one rule matches; returns whether it shares with others that match the same.
    fn new(route: &Route, value: T) -> (Self, bool) {
        let (is_exact, path) = match &route.path {
            PathMatch::Exact(path) => (true, path.as_str()),
            PathMatch::Prefix(path) => (false, bare_prefix(path)),
        };
        let has_more = !route.methods.is_empty() || !route.headers.is_empty();
        let more = || Box::new(When { methods: route.methods.clone(), headers: route.headers.clone() });
        let when = has_more.then(more);
        let shares = Shares::One((route.weight.unwrap_or(1).into(), value));
        (Self { path: path.as_bytes().into(), is_exact, when, shares }, route.weight.is_some())
    }

    /// Returns on which side of a path's choices it is: exact paths are before prefixes, longer ones before shorter ones.
    fn place(&self, is_exact: bool, path: &[u8]) -> Ordering {
        let exact = is_exact.cmp(&self.is_exact);
        exact.then_with(|| path.len().cmp(&self.path.len())).then_with(|| (*self.path).cmp(path))
    }

    fn takes_path(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(&*self.path) else { return false };
        rest.is_empty() || (!self.is_exact && rest[0] == b'/')
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let Some(When { methods, headers }) = self.when.as_deref() else { return true };
        let method = methods.is_empty() || methods.iter().any(|method| method == asked.method);
        method && headers.iter().all(|(name, value)| (asked.has_header)(name, value))
    }
}

impl<T> Shares<T> {
    fn all(&self) -> &[(u64, T)] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several, _) => several,
        }
    }

    /// Returns the one of those that share whose turn it is; with no share at all the first one.
    fn take(&self, turn: impl FnOnce(&T) -> u64) -> Option<&T> {
        let (all, order) = match self {
            Self::One((_, only)) => return Some(only),
            Self::Several(all, order) => (all, order),
        };
        let (_, first) = all.first()?;
        let place = order.place(turn(first));
        Some(all.iter().find(|(end, _)| place < *end).map_or(first, |(_, value)| value))
    }
}

impl<T: Clone> Shares<T> {
    /// Adds what comes after.
    fn add(&mut self, others: &Self) {
        let mut all = self.all().to_vec();
        for (share, value) in others.all() {
            let end = all.last().map_or(0, |(end, _)| *end) + share;
            all.push((end, value.clone()));
        }
        let order = Order::of(all.iter().map(|(end, _)| *end));
        *self = Self::Several(all, Box::new(order));
    }
}

/// Returns a host without port and without the dot that may end it.
pub(super) fn bare_host(host: &[u8]) -> &[u8] {
    let name = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => &host[..colon],
        _ => host,
    };
    name.strip_suffix(b".").unwrap_or(name)
}

/// Returns whether a path is one of those that a rule is for.
pub(super) fn takes_path(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => {
            path.strip_prefix(bare_prefix(prefix)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

/// Returns a prefix without the slash that may end it: it is about whole parts of a path in any case.
fn bare_prefix(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// Splits path and query.
pub(super) fn split_target(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// Returns the path and query that a request goes on with; `None`: as they are.
pub(super) fn rewritten(route: &Route, target: &str) -> Option<String> {
    let RouteAction::Forward { path: Some(rewrite), .. } = &route.action else { return None };
    let (path, query) = split_target(target);
    let path = rewrite_path(&route.path, rewrite, path);
    Some(query.map_or(path.clone(), |query| format!("{path}?{query}")))
}

fn rewrite_path(matched: &PathMatch, rewrite: &PathRewrite, path: &str) -> String {
    match rewrite {
        PathRewrite::Full(full) => full.clone(),
        PathRewrite::Prefix(new) => {
            let rest = match matched {
                PathMatch::Exact(_) => "",
                PathMatch::Prefix(prefix) => path.get(bare_prefix(prefix).len()..).unwrap_or_default(),
            };
            let new = if rest.starts_with('/') { bare_prefix(new) } else { new };
            let path = format!("{new}{rest}");
            if path.starts_with('/') { path } else { format!("/{path}") }
        }
    }
}

/// Where and how a request came in, for redirects.
#[derive(Debug, Clone, Copy)]
pub(super) struct CameBy<'a> {
    /// Value of `Host`.
    pub(super) host: &'a str,
    /// Port of this host.
    pub(super) port: u16,
    /// Whether by TLS.
    pub(super) is_tls: bool,
}

/// Returns status and location of a redirect; `None`: the rule is none.
pub(super) fn redirect(route: &Route, target: &str, came: CameBy<'_>) -> Option<(u16, String)> {
    let RouteAction::Redirect { scheme, host, port, path, status } = &route.action else { return None };
    let came_scheme = if came.is_tls { "https" } else { "http" };
    let new_scheme = scheme.as_deref().unwrap_or(came_scheme);
    let (came_host, came_port) = split_port(came.host);
    let new_host = host.as_deref().unwrap_or(came_host);
    let port = port.or_else(|| {
        let same = new_scheme == came_scheme && host.is_none();
        same.then(|| came_port.unwrap_or(came.port))
    });
    let default = if new_scheme == "https" { 443 } else { 80 };
    let port = port.filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
    let (old_path, query) = split_target(target);
    let new_path = path.as_ref().map(|rewrite| rewrite_path(&route.path, rewrite, old_path));
    let path = new_path.as_deref().unwrap_or(old_path);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some((*status, format!("{new_scheme}://{new_host}{port}{path}{query}")))
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

/// Returns whether a rule that is reached at an address of the host serves what came to `local`.
pub(super) fn is_reached_at(host_ip: Option<IpAddr>, local: IpAddr) -> bool {
    // Who asks for a name below `localhost` may come by either family.
    host_ip.is_none_or(|ip| ip == local || (ip.is_loopback() && local.is_loopback()))
}

#[cfg(test)]
mod tests;
