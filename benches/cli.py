"""The commands that people type all day: how fast orch starts, and `ps`, `logs`, `stop`, `start` and `restart` of 60 containers against
Docker Compose on one engine, and over three hosts against one, both by SSH."""
import statistics

from lab import ROUNDS, Host, alternate, timed
from hosts import HOSTS, Orch

TOOLS = ("orch", "docker-compose")
SERVICES, REPLICAS = 20, 3
RUNS = 20                                                   # of a command that takes milliseconds
SMALL = "services: {web: {image: nginx, ports: ['8080:80']}, db: {image: postgres, volumes: ['data:/data']}}\nvolumes: {data: {}}\n"


def compose_file(constraint=""):
    """Services that write twenty lines each and end at once when they are told to."""
    script = "for line in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $$line of $$(hostname); done; exec sleep 1000000"
    placement = f", placement: {{constraints: ['{constraint}']}}" if constraint else ""
    service = (f"{{image: busybox, command: [sh, -c, '{script}'], stop_signal: SIGKILL, "
               f"deploy: {{replicas: {REPLICAS}{placement}}}}}")
    return "services:\n" + "".join(f"  s{number}: {service}\n" for number in range(SERVICES))


LOOKS = ("ps", "logs")
LIVES = ("stop", "start", "restart")                        # in this order everything runs again after each round
LIFE_ROUNDS = min(ROUNDS, 3)                                # of a minute and a half: the engine starts 240 containers in each


def compare(*runs):
    """The medians of each command for each of `runs`, in turn, after a round that does not count."""
    for what in LOOKS:
        yield (what, *alternate(*(lambda run=run: timed(lambda: run(what)) for run in runs)))
    rounds = [[[timed(lambda: run(what)) for run in runs] for what in LIVES] for _ in range(LIFE_ROUNDS + 1)][1:]
    for what, *samples in zip(LIVES, *rounds):
        yield (what, *(statistics.median(column) for column in zip(*samples)))


def starts(host):
    """Milliseconds from a shell's fork to the end of a command that asks nobody."""
    host.write("/root/small/compose.yaml", SMALL)
    for what, words in (("version", "version"), ("config -q", "-f /root/small/compose.yaml config -q")):
        def many(tool):
            script = f"for run in $(seq {RUNS}); do /opt/bench/{tool} {words} >/dev/null; done"
            return lambda: timed(lambda: host.run("sh", "-c", script)) / RUNS * 1000
        ours, theirs = alternate(*(many(tool) for tool in TOOLS))
        yield (f"`{what}`", f"{ours:.1f} ms", f"Docker Compose {theirs:.1f} ms", ours / theirs, "< 10 ms")


def on_one_host(host):
    """60 containers of each tool on one engine, side by side."""
    runs = {}
    for tool in TOOLS:
        name = tool.split("-")[-1] + "60"
        file = f"/root/{name}/compose.yaml"
        host.write(file, compose_file())
        runs[tool] = lambda *args, argv=(f"/opt/bench/{tool}", "-f", file): host.run(*argv, *args)
        runs[tool]("up", "-d")
    for what, ours, theirs in compare(*runs.values()):
        yield (f"`{what}` of {SERVICES * REPLICAS} containers", f"{ours:.2f} s", f"Docker Compose {theirs:.2f} s",
               ours / theirs, "≤ 1.0")
    for tool in TOOLS:
        runs[tool]("down", "-t", "0")


def over_hosts():
    """The same 60 containers over three hosts and on one of them, from a machine beside them."""
    with Orch("beno", "10.77.97", "busybox") as orch:
        runs = []
        for name, constraint in (("three", ""), ("one", "node.hostname == node1")):
            orch.user.write(f"/root/{name}/compose.yaml", compose_file(constraint))
            runs.append(lambda *args, name=name: orch.orch("-f", f"{name}/compose.yaml", *args))
        runs[0]("up", "-d")
        on_hosts = [host for host, _ in orch.running("com.docker.compose.project=three")]
        assert len({host.name for host in on_hosts}) == len(HOSTS), "not on all hosts"
        runs[1]("up", "-d")
        orch.wait_for_running("com.docker.compose.project=one", SERVICES * REPLICAS)
        for what, three, one in compare(*runs):
            yield (f"`{what}` of {SERVICES * REPLICAS} containers over {len(HOSTS)} hosts", f"{three:.2f} s",
                   f"on one of them {one:.2f} s", three / one, "≤ 1.3")
        for run in runs:
            run("down", "-t", "0")


def measure():
    """Rows of name, orch, reference, ratio, goal."""
    with Host("busybox") as host:
        yield from starts(host)
        yield from on_one_host(host)
    yield from over_hosts()
