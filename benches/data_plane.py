"""What runs through the agent: TCP over a virtual address against HAProxy, names against unbound, and its memory."""
import re
from lab import alternate

SERVICES = 20
COMPOSE = """
services:
  server:
    image: nginx
    command: [sh, -c, "head -c 1024 /dev/zero >/usr/share/nginx/html/kilo; truncate -s 1G /usr/share/nginx/html/giga; exec nginx -g 'daemon off;'"]
    configs: [{source: conf, target: /etc/nginx/conf.d/default.conf}]
  client: {image: busybox, command: [sleep, "1000000"], stop_signal: SIGKILL}
""" + "".join(f"  s{n}: {{image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL}}\n" for n in range(SERVICES - 2)) + """
configs:
  conf: {content: "server { listen 80 reuseport; access_log off; keepalive_requests 1000000; location / { root /usr/share/nginx/html; } }"}
"""
HAPROXY = """
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen tcp
  bind {gateway}:7080
  server one {pod}:80
"""
UNBOUND = """
server:
  interface: {gateway}@7053
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  pidfile: ""
  directory: /root
  num-threads: 2
  so-reuseport: yes
{names}
"""


class Setting:
    """A project of twenty services that is up, and the addresses in it."""

    def __init__(self, host):
        self.host = host
        host.write("/root/data/compose.yaml", COMPOSE)
        host.run("/opt/bench/orch", "-f", "/root/data/compose.yaml", "up", "-d", "--wait")
        self.client = "data-client-1"
        inspect = lambda template: host.run("docker", "inspect", "-f", template, "data-server-1")
        self.pod = inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        self.gateway = inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")
        self.vip = host.run("dig", "+short", f"@{self.gateway}", "server", beside=self.client)
        host.wait_for("curl", "-fso", "/dev/null", f"http://{self.vip}/kilo", beside=self.client)

    def end(self):
        self.host.run("/opt/bench/orch", "-f", "/root/data/compose.yaml", "down", "-v")

    def wrk(self, address, *flags):
        """Requests a second of 64 connections for five seconds."""
        text = self.host.run("wrk", "-t1", "-c64", "-d5s", *flags, f"http://{address}/kilo", beside=self.client)
        assert "Socket errors" not in text and "Non-2xx" not in text, text
        return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])

    def gigabytes(self, address):
        """GB/s of one body of a gibibyte."""
        speed = self.host.run("curl", "-sSo", "/dev/null", "-w", "%{speed_download}", f"http://{address}/giga", beside=self.client)
        return float(speed) / 1e9

    def names(self, address, port):
        """Answers a second to eight clients for five seconds."""
        text = self.host.run("dnsperf", "-s", address, "-p", port, "-d", "/root/names", "-c", "8", "-l", "5", beside=self.client)
        assert re.search(r"Queries lost:\s+0 ", text) and "NOERROR" in text, text
        return float(re.search(r"Queries per second:\s+([\d.]+)", text)[1])


def tcp(setting):
    setting.host.write("/root/haproxy.cfg", HAPROXY.format(gateway=setting.gateway, pod=setting.pod))
    with setting.host.server("haproxy", "-db", "-f", "/root/haproxy.cfg"):
        theirs = f"{setting.gateway}:7080"
        setting.host.wait_for("curl", "-fso", "/dev/null", f"http://{theirs}/kilo", beside=setting.client)
        for name, unit, goal, measure in (
            ("requests on kept connections", "/s", 0.9, setting.wrk),
            ("requests, each on a new connection", "/s", 0.9, lambda to: setting.wrk(to, "-H", "Connection: close")),
            ("one body of 1 GiB", " GB/s", 0.9, setting.gigabytes),
        ):
            ours, peer, direct = alternate(lambda: measure(setting.vip), lambda: measure(theirs), lambda: measure(setting.pod))
            show = (lambda v: f"{v:.2f}{unit}") if "GB" in unit else (lambda v: f"{v:,.0f}{unit}")
            yield (f"TCP through a virtual address: {name}", show(ours), f"HAProxy {show(peer)}, direct {show(direct)}",
                   ours / peer, f"≥ {goal}")


def dns(setting):
    names = [f"s{n}" for n in range(SERVICES - 2)] + ["server", "client"]
    setting.host.write("/root/names", "".join(f"{name} A\n" for name in names))
    data = "".join(f"  local-data: '{name}. 1 IN A 10.1.1.{n}'\n" for n, name in enumerate(names, 1))
    setting.host.write("/root/unbound.conf", UNBOUND.format(gateway=setting.gateway, names=data))
    with setting.host.server("unbound", "-d", "-c", "/root/unbound.conf"):
        setting.host.wait_for("dig", "+short", "-p", "7053", f"@{setting.gateway}", "server", beside=setting.client)
        ours, peer = alternate(lambda: setting.names(setting.gateway, 53), lambda: setting.names(setting.gateway, 7053))
    yield "DNS answers, names of services", f"{ours:,.0f}/s", f"unbound {peer:,.0f}/s", ours / peer, "≥ 0.8"


def memory(setting):
    """Resident memory of the agent and its children, in MB, with twenty services and no traffic for ten seconds."""
    setting.host.run("sleep", "10")
    pid = setting.host.run("docker", "inspect", "-f", "{{.State.Pid}}", "orch-agent")
    kilobytes = int(setting.host.run("awk", "/^VmRSS/ {print $2}", f"/proc/{pid}/status"))
    yield f"agent at rest with {SERVICES} services, resident", f"{kilobytes / 1000:.1f} MB", "", None, "≤ 40 MB"


def measure(host):
    setting = Setting(host)
    rows = [*memory(setting), *tcp(setting), *dns(setting)]
    setting.end()
    return rows
