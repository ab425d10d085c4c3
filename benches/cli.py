"""The commands that people type all day: how fast orch starts, and `ps`, `logs`, `stop` and `restart` of 60 containers against
Docker Compose on one engine, and over three hosts against one, both by SSH."""
from lab import Host, alternate, timed
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


def commands(run):
    """Each command with what makes the containers be as before it."""
    return {
        "ps": (lambda: run("ps"), None),
        "logs": (lambda: run("logs"), None),
        "stop": (lambda: run("stop"), lambda: run("start")),
        "restart": (lambda: run("restart"), None),
    }


def sample(command):
    act, back = command
    took = timed(act)
    if back:
        back()
    return took


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
    for what in ("ps", "logs", "stop", "restart"):
        ours, theirs = alternate(*(lambda tool=tool: sample(commands(runs[tool])[what]) for tool in TOOLS))
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
        for what in ("ps", "logs", "stop", "restart"):
            three, one = alternate(*(lambda run=run: sample(commands(run)[what]) for run in runs))
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
