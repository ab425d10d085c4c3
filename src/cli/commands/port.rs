//! `orch port`: where a port of a service is published, by the load balancer or by the engine of the pod's host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::api::types::PublishedStatus;
use crate::cli::among::{self, Which};
use crate::cli::args::PortArgs;
use crate::cli::context::{Context, if_there};
use crate::cli::error::CliError;
use crate::engine::by_hand::BoundPort;
use crate::graph::Protocol;
use crate::ids::{ProjectName, ServiceName};

/// Prints the address that a port of a replica is published at.
///
/// # Errors
/// When the service does not run, or the port is not published.
pub(crate) async fn run(context: &mut Context<'_>, args: &PortArgs) -> Result<(), CliError> {
    let services = [args.service.clone()];
    let among = among::find(context, Which { services: &services, ..Which::default() }).await?;
    let (source, container) = among::replica(context, &among, &args.service, args.index)?;
    let balanced = balanced(context, &among.project, &args.service).await?;
    let bound = source.engine.bound_ports(&container.id).await.map_err(|error| source.failed(error))?;
    let protocol = args.protocol.into();
    let Some(address) = address(&balanced, &bound, args.port, protocol) else {
        let known = balanced.iter().map(|port| format!("{}/{}", port.published, port.protocol));
        let known = known.chain(bound.iter().map(|port| format!("{}/{}", port.published, port.protocol)));
        return Err(CliError::NoPort {
            port: args.port,
            protocol,
            container: container.name.clone(),
            known: known.collect(),
        });
    };
    context.ui.line(&address.to_string())
}

/// The ports of the service that the load balancer of every host publishes; none where no agent knows the project.
async fn balanced(
    context: &mut Context<'_>,
    project: &ProjectName,
    service: &ServiceName,
) -> Result<Vec<PublishedStatus>, CliError> {
    let status = if_there(context.any_agent().await?.project(project).await)?;
    let ports = status.map(|status| status.published).unwrap_or_default();
    Ok(ports.into_iter().filter(|port| port.service == *service && port.problem.is_none()).collect())
}

fn address(balanced: &[PublishedStatus], bound: &[BoundPort], port: u16, protocol: Protocol) -> Option<SocketAddr> {
    let by_balancer = balanced.iter().find(|one| (one.target, one.protocol) == (port, protocol));
    let by_balancer = by_balancer.map(|one| (one.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), one.published));
    let by_engine = bound.iter().find(|one| (one.target, one.protocol) == (port, protocol));
    by_balancer.or_else(|| by_engine.map(|one| (one.host_ip, one.published))).map(SocketAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balancers_ports_come_before_those_of_the_engine() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let balanced = |target, host_ip: Option<&str>| PublishedStatus {
            service: ServiceName::new("web").expect("valid"),
            host_ip: host_ip.map(ip),
            published: 8000 + target,
            target,
            protocol: Protocol::Tcp,
            problem: None,
        };
        let bound = |target, protocol| BoundPort { target, protocol, host_ip: ip("::1"), published: 9000 + target };
        let ports = [balanced(80, None), balanced(81, Some("127.0.0.1"))];
        let engine = [bound(80, Protocol::Tcp), bound(80, Protocol::Udp), bound(82, Protocol::Tcp)];
        for (port, protocol, expected) in [
            (80, Protocol::Tcp, Some("0.0.0.0:8080")),
            (81, Protocol::Tcp, Some("127.0.0.1:8081")),
            (80, Protocol::Udp, Some("[::1]:9080")),
            (82, Protocol::Tcp, Some("[::1]:9082")),
            (82, Protocol::Udp, None),
        ] {
            let told = address(&ports, &engine, port, protocol).map(|address| address.to_string());
            assert_eq!(told.as_deref(), expected, "{port}/{protocol}");
        }
    }
}
