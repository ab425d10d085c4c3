"""orch against Docker Compose on one engine: up, up with nothing to change, down; and the engine calls of each."""
import collections, json, re, statistics
from lab import ROUNDS, timed

SIZES = (3, 20, 100)
TOOLS = ("orch", "docker-compose")


def compose_file(containers):
    """At most 20 services with as many replicas as it takes, published by nobody, images present."""
    services = min(containers, 20)
    service = (f"{{image: busybox, command: [sleep, '1000000'], stop_signal: SIGKILL, "
               f"deploy: {{replicas: {containers // services}}}}}")
    return "services:\n" + "".join(f"  s{n}: {service}\n" for n in range(services))


class Project:
    def __init__(self, host, tool, containers):
        self.host, self.containers = host, containers
        file = f"/root/b{containers}/compose.yaml"
        host.write(file, compose_file(containers))
        self.argv = [f"/opt/bench/{tool}", "-f", file]

    def __call__(self, *args):
        self.host.run(*self.argv, *args)

    def up(self):
        self("up", "-d")
        running = self.host.run("docker", "ps", "-q", "--filter", f"label=com.docker.compose.project=b{self.containers}")
        assert len(running.split()) == self.containers, f"{len(running.split())} of {self.containers} run"


def measure(host):
    """Rows of name, orch, reference, ratio, goal."""
    rows = []
    for containers in SIZES:
        seconds = collections.defaultdict(list)
        for count in range(ROUNDS + 1):                     # the first does not count
            for tool in TOOLS:
                project = Project(host, tool, containers)
                took = {"up -d": timed(lambda: project("up", "-d"))}
                project.up()                                # all of them run
                took["up -d, nothing to change"] = timed(lambda: project("up", "-d"))
                took["down"] = timed(lambda: project("down"))
                for verb, value in took.items() if count else ():
                    seconds[verb, tool].append(value)
        for verb, goal in (("up -d", 1.05), ("up -d, nothing to change", 0.5), ("down", 1.0)):
            ours, theirs = (statistics.median(seconds[verb, tool]) for tool in TOOLS)
            rows.append((f"`{verb}` of {containers} containers", f"{ours:.2f} s", f"Docker Compose {theirs:.2f} s",
                         ours / theirs, f"≤ {goal}"))
    return rows


def calls(host):
    """Engine calls of an `up -d` of 20 containers, by kind: Counter for each tool, from the engine's own debug log."""
    daemon = json.loads((host.root / "etc/docker/daemon.json").read_text())
    host.write("/etc/docker/daemon.json", json.dumps({**daemon, "debug": True}))
    host.run("sh", "-c", "kill -HUP $(cat /run/engine.service.pid); sleep 1")
    log = host.root / "var/log/engine.log"
    counted = {}
    for tool in TOOLS:
        project = Project(host, tool, 20)
        start = log.stat().st_size
        project.up()
        lines = log.read_bytes()[start:].decode(errors="replace")
        found = re.findall(r'Calling (\w+) (?:/v[\d.]+)?(/\w+)(?:/[^/"? ]+)?(/\w+)?', lines)
        counted[tool] = collections.Counter(f"{method} {kind}{verb}" for method, kind, verb in found)
        project("down")
    host.write("/etc/docker/daemon.json", json.dumps({**daemon, "debug": False}))
    host.run("sh", "-c", "kill -HUP $(cat /run/engine.service.pid); sleep 1")
    return counted
