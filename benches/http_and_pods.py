"""HTTP and pods: requests balanced one by one against HAProxy, ambassadors against HAProxy in the pod, and pods against
the same containers under Docker Compose.

The proxies have one thread each on the last core; what loads them and what answers share the others. On few cores those would
be short before a proxy is, and the rate of requests be theirs: so something that only counts takes half of the proxies' core.
All of them are in containers: the kernel shares its time out by control group.
"""
import collections, contextlib, json, os, re
from lab import alternate, timed

CORES = os.cpu_count()
PROXY_CORE, OTHER_CORES = CORES - 1, f"0-{CORES - 2}" if CORES > 2 else "0"
HOSTS, PODS, IDLE, AMBASSADORS = 1000, 4, 2000, 100
ORCH, PEER = 8080, 7080
RATE, CHANGES = 1000, 100

NGINX = """server {
  listen 80 reuseport; access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
  location / { default_type text/plain; return 200 '""" + "x" * 1024 + """'; }
}"""
SERVER = f"""
services:
  server:
    image: nginx
    stop_signal: SIGKILL
    deploy: {{replicas: {PODS}}}
    configs: [{{source: conf, target: /etc/nginx/conf.d/default.conf}}]
"""
CONF = f"""
configs:
  conf: {{content: {json.dumps(NGINX)}}}
"""
ROUTES = SERVER + "    expose: [80]\n    x-route:\n" + "".join(
    f"      - {{host: h{number}.example.com, path: /app, listen: {ORCH}}}\n" for number in range(HOSTS)) + CONF

# As orch does it for each request: rules by host and path, X-Forwarded-*, a request id, counters, least connections, retry.
HAPROXY = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  option http-keep-alive
  option redispatch
  http-reuse always
  retries 3
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
frontend clients
  bind :{port}
  option forwardfor
  unique-id-format %[uuid]
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port {port}
  use_backend %[base,map_beg(/root/http/routes.map,none)]
backend none
  http-request deny deny_status 404
backend pods
  balance leastconn
{servers}
"""
RELAY = """
global
  nbthread 1
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen stand-in
  bind 127.0.0.1:{port}
  balance leastconn
{servers}
"""
# Requests for one host after the other, made once: the load shall not be short of its core.
SCRIPT = """
local requests = {}
function init()
  for number = 0, HOSTS - 1 do
    local fields = {["Host"] = "h" .. number .. ".example.com", ["User-Agent"] = "wrk", ["Accept"] = "*/*",
                    ["Accept-Encoding"] = "gzip, deflate, br", ["Accept-Language"] = "en-GB,en;q=0.5", FIELD}
    requests[number] = wrk.format("GET", "/app/page?number=" .. number, fields)
  end
end
local next = 0
function request()
  next = (next + 1) % HOSTS
  return requests[next]
end
"""
# Opens connections, asks once on each, and says by how much a process has grown for each while they are idle.
HOLD = """
import socket, sys, time
pid, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def resident():
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))
def ask(connection):
    connection.sendall(b"GET /app HTTP/1.1\\r\\nHost: h1.example.com\\r\\n\\r\\n")
    answer = b""
    while b"x" * 1024 not in answer:
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer
# What the first requests cost is not the connections'.
for _ in range(200):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ask(connection)
time.sleep(1)
before = resident()
connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
for connection in connections:
    ask(connection)
time.sleep(2)
print((resident() - before) / count)
"""

Run = collections.namedtuple("Run", "rate cpu")                   # requests a second, microseconds of CPU for each


class Setting:
    """A host whose agent has one core, with HAProxy beside it."""

    def __init__(self, host):
        self.host = host
        # As an agent of a host with one core would start.
        host.write("/root/http/compose.yaml", SERVER + CONF)
        self.up()
        host.run("docker", "update", "--cpuset-cpus", PROXY_CORE, "orch-agent")
        host.run("docker", "restart", "-t", "1", "orch-agent")
        for name, field in (("fast", ""), ("general", '["Trailer"] = "none"')):
            host.write(f"/root/http/{name}.lua", SCRIPT.replace("HOSTS", str(HOSTS)).replace("FIELD", field))
        host.write("/root/http/hold.py", HOLD)

    def up(self):
        self.host.run("/opt/bench/orch", "-f", "/root/http/compose.yaml", "up", "-d", "--wait")
        pods = [f"http-server-{number}" for number in range(1, PODS + 1)]
        self.host.run("docker", "update", "--cpuset-cpus", OTHER_CORES, *pods)

    def down(self):
        self.host.run("/opt/bench/orch", "-f", "/root/http/compose.yaml", "down", "-v", "-t", "0")

    def inspect(self, container, template):
        return self.host.run("docker", "inspect", "-f", template, container)

    def pid(self, container):
        return self.inspect(container, "{{.State.Pid}}")

    def servers(self):
        """Lines of HAProxy for the pods."""
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        pods = [self.inspect(f"http-server-{number}", address) for number in range(1, PODS + 1)]
        return "".join(f"  server s{number} {pod}:80\n" for number, pod in enumerate(pods))

    def haproxy(self, config, *flags):
        """Starts HAProxy on its core."""
        self.host.write("/root/http/haproxy.cfg", config)
        self.host.run("docker", "run", "-d", "--name", "haproxy", "--cpuset-cpus", PROXY_CORE, *flags,
                      "-v", "/root/http:/root/http:ro", "haproxy:2.6", "haproxy", "-db", "-f", "/root/http/haproxy.cfg")

    @contextlib.contextmanager
    def half(self):
        """Something else has half of the proxies' core for as long as the block."""
        self.host.run("docker", "run", "-d", "--name", "other", "--cpuset-cpus", PROXY_CORE, "busybox", "sh", "-c",
                      "while :; do :; done")
        try:
            yield
        finally:
            self.host.run("docker", "rm", "-f", "other")

    def end_haproxy(self):
        self.host.run("docker", "rm", "-f", "haproxy")

    def cpu(self, container):
        """Seconds of CPU that the processes of a container have used."""
        first = self.pid(container)
        fields = self.host.run("cat", f"/proc/{first}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wrk(self, container, address, *flags, beside=None):
        """The load of 64 connections for five seconds on what `container` serves."""
        before = self.cpu(container)
        text = self.host.run("taskset", "-c", OTHER_CORES, "wrk", "-t1", "-c64", "-d5s", "--timeout", "30s", *flags,
                             f"http://{address}/app", beside=beside)
        used = self.cpu(container) - before
        assert "Socket errors" not in text and "Non-2xx" not in text, text
        requests = int(re.search(r"(\d+) requests in", text)[1])
        return Run(float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), used / requests * 1e6)

    def resident(self):
        """Resident memory of the agent, in MB."""
        kilobytes = int(self.host.run("awk", "/^VmRSS/ {print $2}", f"/proc/{self.pid('orch-agent')}/status"))
        return kilobytes / 1000


def compare(*measures):
    """Medians of rate and CPU of each measure, over alternating rounds."""
    columns = [[] for _ in measures]

    def keep(column, measure):
        run = measure()
        column.append(run)
        return run.rate
    rates = alternate(*(lambda c=column, m=measure: keep(c, m) for column, measure in zip(columns, measures)))
    middle = lambda column: sorted(run.cpu for run in column[1:])[(len(column) - 1) // 2]
    return [Run(rate, middle(column)) for rate, column in zip(rates, columns)]


def requests(setting):
    """Rows of requests with 1,000 rules, and of connections that are idle."""
    host = setting.host
    host.write("/root/http/compose.yaml", ROUTES)
    setting.up()
    host.write("/root/http/routes.map", "".join(f"h{number}.example.com/app pods\n" for number in range(HOSTS)))
    setting.haproxy(HAPROXY.format(port=PEER, servers=setting.servers()), "--network", "host")
    for port in (ORCH, PEER):
        host.wait_for("curl", "-fso", "/dev/null", "-H", "Host: h1.example.com", f"http://127.0.0.1:{port}/app")
    # Before anything else: memory that other loads left behind would hide it.
    ours, theirs = (float(host.run("python3", "/root/http/hold.py", setting.pid(container), port, IDLE))
                    for container, port in (("orch-agent", ORCH), ("haproxy", PEER)))
    yield (f"an idle kept connection of HTTP, of {IDLE:,}", f"{ours:.1f} KiB", f"HAProxy {theirs:.1f} KiB", None, "< 16 KiB")
    for name, goals in (("fast", (1.1, 0.85)), ("general", (0.6, None))):
        script = ("-s", f"/root/http/{name}.lua")
        with setting.half():
            ours, theirs = compare(lambda: setting.wrk("orch-agent", f"127.0.0.1:{ORCH}", *script),
                                   lambda: setting.wrk("haproxy", f"127.0.0.1:{PEER}", *script))
        what = f"HTTP, {HOSTS:,} rules, {name} path"
        yield (f"{what}: requests", f"{ours.rate:,.0f}/s", f"HAProxy {theirs.rate:,.0f}/s", ours.rate / theirs.rate,
               f"≥ {goals[0]}")
        yield (f"{what}: CPU for each", f"{ours.cpu:.1f} µs", f"HAProxy {theirs.cpu:.1f} µs", ours.cpu / theirs.cpu,
               f"≤ {goals[1]}" if goals[1] else "")
    setting.end_haproxy()


def changes(setting):
    """The row of requests that fail while pods come and go: a thousand a second, on kept connections."""
    host, orch = setting.host, "/opt/bench/orch -f /root/http/compose.yaml"
    port = f"    ports: [{{target: 80, published: '{ORCH}', app_protocol: http}}]\n"
    host.write("/root/http/compose.yaml", SERVER + port + CONF)
    setting.up()
    url = f"http://127.0.0.1:{ORCH}/app"
    host.wait_for("curl", "-fso", "/dev/null", url)
    host.write("/root/http/changes.sh", f"""set -e
taskset -c {OTHER_CORES} /opt/bench/orch demo client --rate {RATE} --connections kept --seconds 3600 {url} >/root/http/counts.json &
client=$!
for round in $(seq {CHANGES // 2}); do
    {orch} up -d --wait --scale server={PODS - 1} 2>/dev/null
    {orch} up -d --wait --scale server={PODS} 2>/dev/null
done
kill -TERM $client
wait $client
""")
    took = timed(lambda: host.run("sh", "/root/http/changes.sh"))
    counts = json.loads(host.run("cat", "/root/http/counts.json"))
    bad = counts["failed"] + counts["refused"] + counts["skipped"]
    yield (f"{CHANGES} changes of pods under {RATE:,} requests a second: failed",
           f"{bad} of {counts['requests']:,}, {counts['requests'] / took:,.0f}/s", "", None, "0")
    setting.down()


def ambassadors(setting):
    """Rows of an application that reaches the pods by an ambassador, or by HAProxy in its own pod."""
    host = setting.host
    app = """  app:
    image: busybox
    command: [sleep, "1000000"]
    stop_signal: SIGKILL
    x-ambassadors: {AMBASSADORS}
"""
    few = {"server": {"listen": ORCH, "to": ["server:80"]}}
    host.write("/root/http/compose.yaml", SERVER + app.replace("{AMBASSADORS}", json.dumps(few)) + CONF)
    setting.up()
    setting.haproxy(RELAY.format(port=PEER, servers=setting.servers()), "--network", "container:http-app-1-pod")
    inside = {"beside": "http-app-1"}
    for port in (ORCH, PEER):
        host.wait_for("curl", "-fso", "/dev/null", f"http://127.0.0.1:{port}/app", **inside)
    for what, flags in (("requests on kept connections", ()), ("requests, each on a new connection", ("-H", "Connection: close"))):
        ours, theirs = compare(lambda: setting.wrk("orch-agent", f"127.0.0.1:{ORCH}", *flags, **inside),
                               lambda: setting.wrk("haproxy", f"127.0.0.1:{PEER}", *flags, **inside))
        yield (f"through an ambassador: {what}", f"{ours.rate:,.0f}/s, {ours.cpu:.1f} µs",
               f"HAProxy in the pod {theirs.rate:,.0f}/s, {theirs.cpu:.1f} µs", ours.rate / theirs.rate, "≥ 1.0")
    setting.end_haproxy()
    host.run("docker", "restart", "-t", "1", "orch-agent")
    host.wait_for("curl", "-fso", "/dev/null", f"http://127.0.0.1:{ORCH}/app", **inside)
    host.run("sleep", "5")
    before = setting.resident()
    many = {f"a{number}": {"listen": ORCH + number, "to": ["server:80"]} for number in range(AMBASSADORS + 1)}
    host.write("/root/http/compose.yaml", SERVER + app.replace("{AMBASSADORS}", json.dumps(many)) + CONF)
    setting.up()
    for number in range(AMBASSADORS + 1):
        host.wait_for("curl", "-fso", "/dev/null", f"http://127.0.0.1:{ORCH + number}/app", **inside)
    host.run("sleep", "5")
    yield f"{AMBASSADORS} ambassadors more, resident", f"{setting.resident() - before:.1f} MB", "", None, "< 20 MB"
    setting.down()


POD = """services:
  app:
    image: busybox
    command: [sleep, "1000000"]
    stop_signal: SIGKILL
    x-init: {first: {image: busybox, command: ["true"]}}
    x-sidecars: {beside: {image: busybox, command: [sleep, "1000000"], stop_signal: SIGKILL}}
"""
# The same for Docker Compose: what holds the network, what runs before, what runs beside, and the application.
PARTS = """x-part: &part {image: busybox, command: [sleep, "1000000"], stop_signal: SIGKILL}
services:
  pause: *part
  first: {image: busybox, command: ["true"], network_mode: "service:pause"}
  beside: {<<: *part, network_mode: "service:pause", depends_on: {first: {condition: service_completed_successfully}}}
  app: {<<: *part, network_mode: "service:pause", depends_on: [beside]}
"""


def starts(host):
    """The row of a pod that starts."""
    host.write("/root/pod/compose.yaml", POD)
    host.write("/root/parts/compose.yaml", PARTS)

    def start(tool, project):
        command = (f"/opt/bench/{tool}", "-f", f"/root/{project}/compose.yaml")
        took = timed(lambda: host.run(*command, "up", "-d"))
        running = host.run("docker", "ps", "-q", "--filter", f"label=com.docker.compose.project={project}")
        assert len(running.split()) == 3, running
        host.run(*command, "down", "-t", "0")
        return took
    ours, theirs = alternate(lambda: start("orch", "pod"), lambda: start("docker-compose", "parts"))
    yield ("`up -d` of a pod with an init container and a sidecar", f"{ours:.2f} s",
           f"Docker Compose, with a service that holds the network {theirs:.2f} s", ours / theirs, "≤ 1.1")


def measure(host):
    """The rows of the table. Pods first: the agent has all cores then, as Docker Compose and the engine have."""
    yield from starts(host)
    setting = Setting(host)
    yield from requests(setting)
    yield from changes(setting)
    yield from ambassadors(setting)
