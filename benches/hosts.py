"""What several hosts cost: orch against Swarm on hosts alike, and images against `docker save | ssh docker load`.

Each side has a lab of its own, so that neither sees the other's containers: three hosts, and a fourth machine with an
engine from which orch is run by SSH. Swarm's commands run on its manager, where they need no SSH.
"""
import contextlib, http.client, json, pathlib, re, shutil, socket, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
import lab
from lab import Machine, alternate, program, run

HOSTS = (1, 2, 3)
USER = 4
SERVICES, REPLICAS = 20, 3


class Cluster:
    """Three lab hosts and the user's machine."""

    def __init__(self, name, net, images):
        self.name, self.env, self.images = name, {"LAB": name, "LAB_NET": net}, images
        self.net = net
        self.hosts = [Machine(name, f"node{number}") for number in HOSTS]
        self.user = Machine(name, f"node{USER}")

    def lab(self, *args):
        lab.script(self.env, *args)

    def __enter__(self):
        self.lab("down")
        self.lab("up", USER)
        self.lab("load-images", *(host.name for host in self.hosts), "--images", self.images)
        # The key that all hosts let in, and theirs.
        ssh = self.user.root / "root/.ssh"
        for name, mode in (("id_ed25519", 0o600), ("known_hosts", 0o644)):
            shutil.copy(self.user.dir.parent / name, ssh / name)
            (ssh / name).chmod(mode)
        return self

    def __exit__(self, *_):
        self.lab("down")

    def address(self, number):
        return f"{self.net}.{10 + number}"

    def running(self, label):
        """Containers with a label that run, on the hosts that are on: (host, id) each."""
        found = []
        for host in self.hosts:
            query = f'/containers/json?filters={{"label":["{label}"],"status":["running"]}}'
            with contextlib.suppress(OSError, http.client.HTTPException):
                found += [(host, container["Id"]) for container in json.loads(engine(host, query))]
        return found

    def wait_for_running(self, label, count, seconds=300):
        end = time.monotonic() + seconds
        while len(found := self.running(label)) != count:
            if time.monotonic() > end:
                sys.exit(f"benches: {len(found)} of {count} containers run after {seconds} s")
            time.sleep(0.05)


def engine(host, path):
    """What the engine's API answers; no process is started for it."""
    connection = http.client.HTTPConnection("engine", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(f"/proc/{host.init()}/root/run/docker.sock")
        connection.request("GET", path.replace('"', "%22"))
        return connection.getresponse().read()
    finally:
        connection.close()


class Orch(Cluster):
    """A cluster of orch's, worked on from the user's machine."""
    project = "com.docker.compose.project=bench"

    def __enter__(self):
        super().__enter__()
        tools = self.user.root / "opt/bench"
        tools.mkdir(parents=True)
        shutil.copy(program(), tools / "orch")
        words = [word for number in HOSTS for word in ("abc"[number - 1], f"ssh://root@{self.address(number)}")]
        self.orch("host", "add", *words)
        return self

    def orch(self, *args):
        self.user.run("/opt/bench/orch", *args)

    def states(self):
        return self.user.run("/opt/bench/orch", "host", "ls", "--format", "json")

    def up(self, yaml):
        self.user.write("/root/bench/compose.yaml", yaml)
        self.orch("-f", "bench/compose.yaml", "up", "-d")

    def down(self):
        self.orch("-f", "bench/compose.yaml", "down", "-v", "-t", "0")


class Swarm(Cluster):
    """A Swarm of one manager and two workers."""
    project = "com.docker.stack.namespace=bench"

    def __enter__(self):
        super().__enter__()
        manager, *workers = self.hosts
        manager.run("docker", "swarm", "init", "--advertise-addr", self.address(1))
        token = manager.run("docker", "swarm", "join-token", "-q", "worker")
        for worker in workers:
            worker.run("docker", "swarm", "join", "--token", token, f"{self.address(1)}:2377")
        return self

    def states(self):
        return self.hosts[0].run("docker", "node", "ls", "--format", "{{.Status}}")

    def up(self, yaml):
        manager = self.hosts[0]
        manager.write("/root/bench.yaml", 'version: "3.8"\n' + yaml)
        manager.run("docker", "stack", "deploy", "--resolve-image", "never", "-c", "/root/bench.yaml", "bench")

    def down(self):
        manager = self.hosts[0]
        manager.run("docker", "stack", "rm", "bench")
        self.wait_for_running(self.project, 0)
        left = lambda: manager.run("docker", "network", "ls", "-q", "--filter", "label=" + self.project)
        while left():
            time.sleep(0.1)


def many_services():
    # dnsrr: Swarm's virtual addresses need ip_vs, which not every kernel has; without them it has less to do.
    service = ("{image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, "
               f"deploy: {{replicas: {REPLICAS}, endpoint_mode: dnsrr}}}}")
    return "services:\n" + "".join(f"  s{number}: {service}\n" for number in range(SERVICES))


def deploy(cluster):
    """Seconds until all containers of many services run."""
    start = time.monotonic()
    cluster.up(many_services())
    cluster.wait_for_running(cluster.project, SERVICES * REPLICAS)
    took = time.monotonic() - start
    cluster.down()
    return took


WEB = """services:
  web:
    image: busybox
    command: [httpd, -f, -p, "80", -h, /etc]
    stop_signal: SIGKILL
    deploy: {replicas: 3, endpoint_mode: dnsrr}
"""


def serves(host, container):
    ask = ["docker", "exec", container, "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/hostname"]
    return subprocess.run(host.command(ask), capture_output=True).returncode == 0


def replace(cluster):
    """Seconds from the loss of a host's power until as many replicas as before serve elsewhere."""
    cluster.up(WEB)
    cluster.wait_for_running(cluster.project, 3)
    *_, lost = cluster.hosts
    while not all(serves(*one) for one in cluster.running(cluster.project)):
        time.sleep(0.05)
    on_lost = [host for host, _ in cluster.running(cluster.project)].count(lost)
    assert on_lost == 1, f"{on_lost} of three replicas were on the host that is lost"
    start = time.monotonic()
    cluster.lab("kill", lost.name)
    while sum(serves(*one) for one in cluster.running(cluster.project)) < 3:
        if time.monotonic() - start > 180:
            sys.exit("benches: no replacement within 180 s")
        time.sleep(0.05)
    took = time.monotonic() - start
    cluster.lab("start", lost.name)
    cluster.down()
    settled(cluster)
    return took


def settled(cluster):
    """Waits until a host that was away counts again."""
    while len(re.findall(r"\bReady\b", cluster.states())) < len(HOSTS):
        time.sleep(0.2)


IMAGE = """services:
  web: {image: 'IMAGE', command: [sleep, '1000000'], stop_signal: SIGKILL, deploy: {mode: global}}
"""


class Images:
    """An image that only the user's machine has, on its way to the three hosts."""

    def __init__(self, cluster):
        self.cluster, self.version = cluster, 0
        cluster.lab("load-images", cluster.user.name, "--images", "postgres")
        self.size = int(cluster.user.run("docker", "image", "inspect", "-f", "{{.Size}}", "postgres:15"))

    def forget(self):
        for host in self.cluster.hosts:
            host.run("sh", "-c", "for name in app postgres; do docker image ls -q $name; done | sort -u | xargs -r docker image rm -f")
        assert not self.everywhere("postgres:15")

    def everywhere(self, reference):
        path = f"/images/{reference}/json"
        return all(b'"Id"' in engine(host, path) for host in self.cluster.hosts)

    def until_everywhere(self, reference, action):
        """Seconds until the image is on all three; `action` may go on."""
        start = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(action)
            while not self.everywhere(reference):
                if done.done() and done.exception():
                    raise done.exception()
                time.sleep(0.02)
            took = time.monotonic() - start
            done.result()
        return took

    def by_orch(self, reference="postgres:15"):
        took = self.until_everywhere(reference, lambda: self.cluster.up(IMAGE.replace("IMAGE", reference)))
        self.cluster.down()
        return took

    def by_pipe(self, reference="postgres:15"):
        send = f"docker save {reference} | ssh root@ADDRESS docker load -q"
        sends = " & ".join(send.replace("ADDRESS", self.cluster.address(number)) for number in HOSTS)
        return self.until_everywhere(reference, lambda: self.cluster.user.run("sh", "-c", f"{sends} & wait"))

    def whole(self, by):
        self.forget()
        return by()

    def change(self):
        """Makes a version with one more layer of a megabyte; the hosts have the one before."""
        self.version += 1
        user, name = self.cluster.user, f"app:{self.version}"
        user.run("docker", "run", "--name", "make", "--network", "none", "postgres:15",
                 "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=1 2>/dev/null")
        user.run("docker", "commit", "make", name)
        user.run("docker", "rm", "make")
        return name

    def bytes_of_change(self, by):
        """Megabytes that a host receives for that version."""
        name, host = self.change(), self.cluster.hosts[1]
        before = received(host)
        by(name)
        return (received(host) - before) / 1e6


def received(host):
    return int(host.run("cat", "/sys/class/net/eth0/statistics/rx_bytes"))


SECONDS = "{0:.2f} s".format


def row(what, measures, show, goal):
    ours, theirs = alternate(*(measure for _, measure in measures))
    _, (peer, _) = measures
    return (what, show(ours), f"{peer} {show(theirs)}", ours / theirs, f"≤ {goal}")


def against_swarm(wanted):
    """The rows of `deploy` and `power`."""
    with Orch("beno", "10.77.97", "busybox") as orch, Swarm("bens", "10.77.98", "busybox") as swarm:
        if "deploy" in wanted:
            yield row(f"{SERVICES} services × {REPLICAS} replicas on 3 hosts, until all run",
                      [("orch", lambda: deploy(orch)), ("Swarm", lambda: deploy(swarm))], SECONDS, 0.85)
        if "power" in wanted:
            yield row("Power-off of a host, until as many replicas serve elsewhere",
                      [("orch", lambda: replace(orch)), ("Swarm", lambda: replace(swarm))], SECONDS, 0.6)


def images():
    """The rows of `images`."""
    with Orch("beno", "10.77.97", "busybox") as orch:
        images = Images(orch)
        pipe = "`docker save \\| ssh docker load`"
        yield row(f"An image of {images.size / 1e6:.0f} MB to 3 hosts",
                  [("orch", lambda: images.whole(images.by_orch)), (pipe, lambda: images.whole(images.by_pipe))],
                  SECONDS, 1.1)
        images.whole(images.by_orch)
        yield row("A second version of it with a layer of 1 MB more: bytes to a host",
                  [("orch", lambda: images.bytes_of_change(images.by_orch)),
                   (pipe, lambda: images.bytes_of_change(images.by_pipe))], "{0:.2f} MB".format, 0.05)
