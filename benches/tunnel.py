"""What runs between hosts: a server's published port on another host, through the agents' tunnel and through HAProxy TLS
to HAProxy TLS beside the agents, on the same two hosts."""
import os, re
import hosts
from lab import alternate

COMPOSE = """
services:
  server:
    image: nginx
    command: [sh, -c, "head -c 1024 /dev/zero >/usr/share/nginx/html/kilo; truncate -s 1G /usr/share/nginx/html/giga; exec nginx -g 'daemon off;'"]
    configs: [{source: conf, target: /etc/nginx/conf.d/default.conf}]
    ports: ["8090:80"]
    deploy: {placement: {constraints: [node.labels.server == yes]}}
configs:
  conf: {content: "server { listen 80; access_log off; keepalive_requests 1000000; location / { root /usr/share/nginx/html; } }"}
"""
HAPROXY = """
global
  nbthread {threads}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen tunnel
"""
ENTRY = "  bind 127.0.0.1:8091\n  server b {exit}:8092 ssl verify required ca-file /root/tunnel/authority.pem crt /root/tunnel/a.pem\n"
EXIT = "  bind :8092 ssl verify required ca-file /root/tunnel/authority.pem crt /root/tunnel/b.pem\n  server server {server}:80\n"
# As the agents' own: P-256, one authority, a certificate for each side.
CERTIFICATES = """
cd /root/tunnel
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" -keyout $1.key "${@:2}"; }
new authority -x509 -out authority.pem
for name in a b; do
    new $name -out $name.csr
    openssl x509 -req -in $name.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -out $name.crt
    cat $name.crt $name.key >$name.pem
done
"""


def requests(host, port, *flags):
    text = host.run("wrk", "-t1", "-c64", "-d5s", "--timeout", "30s", *flags, f"http://127.0.0.1:{port}/kilo")
    assert "Socket errors" not in text and "Non-2xx" not in text, text
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def gigabytes(host, port):
    return float(host.run("curl", "-sSo", "/dev/null", "-w", "%{speed_download}", f"http://127.0.0.1:{port}/giga")) / 1e9


def start_peer(entry, exit, address):
    """HAProxy on both hosts, in containers as the agents are: the kernel shares its time out by group."""
    server = exit.run("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "bench-server-1")
    entry.write("/root/tunnel/make", CERTIFICATES)
    entry.run("bash", "-e", "/root/tunnel/make")
    for name in ("authority.pem", "b.pem"):
        exit.write(f"/root/tunnel/{name}", (entry.root / "root/tunnel" / name).read_text())
    for host, text in ((exit, EXIT), (entry, ENTRY)):
        text = HAPROXY + text
        host.write("/root/tunnel/haproxy.cfg", text.format(threads=os.cpu_count(), exit=address, server=server))
        host.run("docker", "run", "-d", "--network", "host", "-v", "/root/tunnel:/root/tunnel:ro", "haproxy:2.6",
                 "haproxy", "-db", "-f", "/root/tunnel/haproxy.cfg")
    entry.wait_for("curl", "-fso", "/dev/null", "http://127.0.0.1:8091/kilo")


def measure():
    """The rows of the table."""
    with hosts.Orch("beno", "10.77.97", "nginx,haproxy") as cluster:
        entry, exit, _ = cluster.hosts
        cluster.orch("host", "label", "b", "server=yes")
        cluster.up(COMPOSE)
        entry.wait_for("curl", "-fso", "/dev/null", "http://127.0.0.1:8090/kilo")
        start_peer(entry, exit, cluster.address(2))
        for name, unit, ask in (
            ("requests on kept connections", "/s", requests),
            ("requests, each on a new connection", "/s", lambda host, port: requests(host, port, "-H", "Connection: close")),
            ("one body of 1 GiB", " GB/s", gigabytes),
        ):
            mine, theirs = alternate(*(lambda port=port: ask(entry, port) for port in (8090, 8091)))
            show = (lambda v: f"{v:.2f}{unit}") if "GB" in unit else (lambda v: f"{v:,.0f}{unit}")
            yield (f"Through the tunnel to another host: {name}", show(mine),
                   f"HAProxy TLS to HAProxy TLS {show(theirs)}", mine / theirs, "≥ 0.8")
