//! Two hosts of a cluster in one process, for `benches/tunnel.py`: what comes to the first one's published port goes
//! through the tunnel to a server behind the second.
//!
//! Arguments: a folder for certificates, and the server's address. Prints the published port's address; ends with its
//! standard input.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use orch::clock::{Clock, SystemClock};
use orch::graph::Protocol;
use orch::ids::{HostName, PodId, ProjectName, ServiceName};
use orch::lb::table::{Backend, Endpoint, LbTable, Published, PublishedKey};
use orch::lb::{Balancer, BalancerOptions};
use orch::mesh::identity::VALIDITY;
use orch::mesh::{Authority, HostKey, Identity, Mesh, MeshOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [folder, server] = words.as_slice() else { return Err("give a folder and the server's address".into()) };
    let (folder, server): (PathBuf, SocketAddr) = (folder.into(), server.parse()?);
    let SocketAddr::V4(server) = server else { return Err("the server's address must be IPv4".into()) };

    let clock = Arc::new(SystemClock);
    let authority = Authority::create(clock.now())?;
    std::fs::write(folder.join("authority.pem"), authority.certificate())?;
    let (a, b) = (HostName::new("a")?, HostName::new("b")?);
    let front = free_address()?;
    let project = ProjectName::new("bench")?;
    let service = ServiceName::new("web")?;
    let endpoint = Endpoint {
        pod: PodId::new(service.clone(), 1),
        container: "server".to_owned(),
        host: b.clone(),
        address: *server.ip(),
    };
    let backend = Arc::new(Backend { project, service, endpoints: vec![endpoint] });
    let mut hosts = Vec::new();
    for host in [&a, &b] {
        let key = HostKey::create()?;
        let signed = authority.sign(&key.request()?, host, clock.now(), VALIDITY)?;
        // The peer shows the same certificates.
        std::fs::write(folder.join(format!("{host}.pem")), signed.certificate.clone() + &key.to_pem())?;
        let identity = Identity::from_pem(authority.certificate(), &signed.certificate, &key)?;
        let mesh = Mesh::new(identity, Arc::clone(&clock) as Arc<dyn Clock>, MeshOptions::default())?;
        let options = BalancerOptions { threads: 1, own_host: host.clone(), ..BalancerOptions::default() };
        let balancer = Balancer::start(options)?;
        let (control, _none) = tokio::sync::mpsc::channel(1);
        let address = balancer.join(mesh.clone(), SocketAddr::from(([127, 0, 0, 1], 0)), control)?;
        // Both have the same service; on the second its port is one that nobody asks for.
        let address_here = if *host == a { front } else { free_address()? };
        let key = PublishedKey { host_ip: Some(address_here.ip()), port: address_here.port(), protocol: Protocol::Tcp };
        let published = Published { target: server.port(), backend: Arc::clone(&backend) };
        let table = LbTable { version: 1, published: BTreeMap::from([(key, published)]), ..LbTable::default() };
        if let Some((_, error)) = balancer.set_table(&table).pop_first() {
            return Err(error.into());
        }
        hosts.push((host.clone(), address, mesh, balancer));
    }
    let peers: BTreeMap<HostName, SocketAddr> =
        hosts.iter().map(|(host, address, ..)| (host.clone(), *address)).collect();
    for (_, _, mesh, _) in &hosts {
        mesh.set_peers(peers.clone());
    }
    writeln!(std::io::stdout(), "{front}")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}
