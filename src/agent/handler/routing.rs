//! `orch why http://…`: which rule a request would be for, found as for a real one.

use std::net::{IpAddr, Ipv4Addr};

use crate::api::types::{ApiError, ErrorKind, Finding, RouteQuestion, Weight, WhyTold};
use crate::diag::did_you_mean;
use crate::lb::{DryRequest, DryRun, Miss, Near, PublishedTold, RuleTold, Share, Spoken};
use crate::model::HostMatch;

use super::super::shared::Shared;
use super::error;
use super::reached::pods_told;
use super::seeing::{Seen, fine, problem, waiting};

/// Names of hosts that are told at most.
const HOSTS: usize = 32;

/// Follows a request.
///
/// # Errors
/// It has no address that could be asked for.
pub(super) fn route(shared: &Shared, question: &RouteQuestion) -> Result<WhyTold, ApiError> {
    let (request, is_tls) = read(question)?;
    let about = format!("{} {}", request.method, question.url);
    let findings = match shared.dataplane.dry_run(&request) {
        DryRun::NoRules { published, ports } => {
            let at = request.port;
            match published {
                Some(PublishedTold { project, service, target, pods }) => {
                    let text = format!(
                        "port {at} is published by service `{service}` of project `{project}`: whatever is asked for there \
                         goes to port {target} of its pods"
                    );
                    let mut findings = vec![fine(text)];
                    findings.extend(pods_told(pods.iter()));
                    findings.extend(behind(shared, &project, &service));
                    findings
                }
                None => vec![Finding {
                    weight: Weight::Problem,
                    text: format!("no rule and no published port is for port {at}: connections to it are refused"),
                    hint: (!ports.is_empty()).then(|| {
                        let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                        format!("rules are for {ports}")
                    }),
                }],
            }
        }
        DryRun::Refused { spoken, status, text } => {
            let mut findings: Vec<Finding> = handshake(&request, is_tls, &spoken).into_iter().collect();
            if findings.is_empty() {
                findings.push(problem(format!("it is answered with {status} whatever it is for: {text}")));
            }
            findings
        }
        DryRun::NoRule { spoken, near } => {
            let mut findings: Vec<Finding> = handshake(&request, is_tls, &spoken).into_iter().collect();
            // Without a handshake there is no answer either.
            if findings.is_empty() {
                findings.push(problem("no rule takes it: it is answered with 404".to_owned()));
            }
            findings.extend(near_told(&near, &request.host));
            findings
        }
        DryRun::Unclear { spoken, path } => {
            let mut findings: Vec<Finding> = handshake(&request, is_tls, &spoken).into_iter().collect();
            if findings.is_empty() {
                findings.push(problem(format!(
                    "its path means `{path}` to who resolves it, and other rules are for that: it is answered with 400"
                )));
            }
            findings
        }
        DryRun::Taken { spoken, shares } => {
            let mut findings: Vec<Finding> = handshake(&request, is_tls, &spoken).into_iter().collect();
            findings.extend(shares.iter().flat_map(|share| taken(shared, share)));
            findings
        }
    };
    Ok(WhyTold { about, findings })
}

/// Says that a client speaks TLS, or not, where the other is spoken, or that he is shown no certificate.
fn handshake(request: &DryRequest, is_tls: bool, spoken: &Spoken) -> Option<Finding> {
    let DryRequest { port, host, .. } = request;
    match spoken {
        Spoken::Plain if is_tls => Some(problem(format!("plain HTTP is spoken at port {port}: it is `http://` there"))),
        Spoken::Tls | Spoken::TlsWithout(_) if !is_tls => {
            Some(problem(format!("TLS is spoken at port {port}: it is `https://` there")))
        }
        Spoken::TlsWithout(names) => Some(Finding {
            weight: Weight::Problem,
            text: format!("there is no certificate for `{host}` at port {port}: the TLS handshake is refused"),
            hint: Some(format!(
                "there are certificates for {}; a rule with `host` and `tls` brings another one",
                some(names.clone())
            )),
        }),
        Spoken::Plain | Spoken::Tls => None,
    }
}

/// Returns the first of some names.
fn some(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(HOSTS);
    names.truncate(HOSTS);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(", "))
}

fn named(rule: &RuleTold) -> String {
    let RuleTold { project, service, name, route } = rule;
    let place = if route.place.is_empty() { String::new() } else { format!(" ({})", route.place) };
    format!("rule `{name}` of service `{service}` of project `{project}`{place}")
}

fn taken(shared: &Shared, share: &Share) -> Vec<Finding> {
    let Share { rule, weight, of, redirect, pods } = share;
    let part = if weight == of { String::new() } else { format!("{weight} of {of} such requests: ") };
    if let Some((status, location)) = redirect {
        return vec![fine(format!("{part}{} answers it with {status}, to {location}", named(rule)))];
    }
    let port = rule.route.port;
    let mut findings = vec![fine(format!("{part}{} takes it, to port {port} of its pods", named(rule)))];
    match pods_told(pods.iter()) {
        Some(told) => findings.push(told),
        None => findings.push(Finding {
            weight: Weight::Problem,
            text: format!("no pod of `{}` is ready: after some seconds it is answered with 503", rule.service),
            hint: Some(format!("`orch -p {} why {}` says why", rule.project, rule.service)),
        }),
    }
    findings.extend(behind(shared, &rule.project, &rule.service));
    findings
}

/// What is wrong with the pods that a request goes to.
fn behind(shared: &Shared, project: &crate::ids::ProjectName, service: &crate::ids::ServiceName) -> Vec<Finding> {
    let record = shared.project(project).and_then(|handle| handle.record.borrow().clone());
    let seen = Seen::of(shared, project, record.as_deref());
    seen.map(|seen| seen.reached(service)).unwrap_or_default()
}

fn near_told(near: &[Near], asked: &str) -> Vec<Finding> {
    if near.iter().all(|one| one.miss == Miss::Host) {
        let mut hosts: Vec<String> = near
            .iter()
            .flat_map(|one| &one.rule.route.hosts)
            .map(|host| match host {
                HostMatch::Exact(name) => name.clone(),
                HostMatch::Below(name) => format!("*.{name}"),
            })
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        if hosts.is_empty() {
            return Vec::new();
        }
        let asked = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
        let hint = did_you_mean(asked, hosts.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let text = format!("no rule is for that host; there are rules for {}", some(hosts));
        return vec![Finding { weight: Weight::Waiting, text, hint }];
    }
    near.iter()
        .map(|Near { rule, miss }| {
            let why = match miss {
                Miss::Host => "is for other hosts".to_owned(),
                Miss::Address(address) => format!("is reached at {address} only"),
                Miss::Path => "is for other paths".to_owned(),
                Miss::Method => format!("is for {} only", rule.route.methods.join(", ")),
                Miss::Header(name, value) => format!("wants the header field `{name}: {value}`"),
            };
            waiting(format!("{} {why}", named(rule)))
        })
        .collect()
}

/// Reads a request, and whether it comes by TLS.
fn read(question: &RouteQuestion) -> Result<(DryRequest, bool), ApiError> {
    let wrong = || {
        let message = format!("`{}` is no address of the form `http://host[:port]/path`", question.url);
        error(ErrorKind::User, message)
    };
    let uri: http::Uri = question.url.parse().map_err(|_| wrong())?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    let port = match authority.port_u16() {
        Some(port) => port,
        // A number that is no port.
        None if authority.port().is_some() || authority.as_str().ends_with(':') => return Err(wrong()),
        None if is_tls => 443,
        None => 80,
    };
    let name = authority.host().trim_matches(['[', ']']).to_lowercase();
    let local = match name.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) if name == "localhost" || name.ends_with(".localhost") => Ipv4Addr::LOCALHOST.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    let headers =
        question.headers.iter().map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned())).collect();
    let request = DryRequest {
        port,
        local,
        host: authority.as_str().rsplit('@').next().unwrap_or_default().to_owned(),
        target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        // Upper and lower case are two methods. Source: RFC 9110, section 9.1.
        method: question.method.clone(),
        headers,
    };
    Ok((request, is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str) -> RouteQuestion {
        let headers = vec![("X-Beta".to_owned(), " yes ".to_owned())];
        RouteQuestion { url: url.to_owned(), method: "get".to_owned(), headers }
    }

    /// A rule for a host that was not asked for.
    fn near(host: &str) -> Near {
        let route = std::sync::Arc::new(crate::testing::route(&format!("host={host} listen=127.0.0.1@80")));
        let (project, service) = ("shop".parse().expect("a name"), "web".parse().expect("a name"));
        Near { rule: RuleTold { project, service, name: format!("{host}/*"), route }, miss: Miss::Host }
    }

    #[test]
    fn all_hosts_are_told_to_who_asks_for_another() {
        let told = |hosts: &[String]| {
            let near: Vec<Near> = hosts.iter().map(|host| near(host)).collect();
            let finding = near_told(&near, "shopp.test:8080").pop().expect("told");
            (finding.text, finding.hint.unwrap_or_default())
        };
        let names = |count: usize| (10..10 + count).map(|number| format!("h{number}.test")).collect::<Vec<_>>();
        let few = [names(9), vec!["shop.test".to_owned(), "h10.test".to_owned()]].concat();
        let all = "h10.test, h11.test, h12.test, h13.test, h14.test, h15.test, h16.test, h17.test, h18.test, shop.test";
        let text = format!("no rule is for that host; there are rules for {all}");
        assert_eq!(told(&few), (text, "did you mean `shop.test`?".to_owned()));
        let (text, hint) = told(&names(40));
        assert!(text.ends_with("h41.test and 8 more") && hint.is_empty(), "{text} {hint}");
    }

    #[test]
    fn addresses_are_read_as_clients_send_them() {
        let (request, is_tls) = read(&question("http://Shop.Example.com:8080/a/b?c=d")).expect("good");
        assert_eq!((request.port, request.target.as_str(), request.method.as_str()), (8080, "/a/b?c=d", "get"));
        assert_eq!((request.host.as_str(), is_tls), ("Shop.Example.com:8080", false));
        assert!(request.local.is_unspecified());
        assert_eq!(request.headers, [("x-beta".to_owned(), "yes".to_owned())]);
        let (request, is_tls) = read(&question("https://shop.localhost")).expect("good");
        assert_eq!((request.port, request.target.as_str(), is_tls), (443, "/", true));
        assert!(request.local.is_loopback());
        for wrong in ["", "shop", "ftp://shop/", "http://", "/a"] {
            assert!(read(&question(wrong)).is_err(), "{wrong}");
        }
    }
}
