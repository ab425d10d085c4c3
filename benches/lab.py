"""A lab host to measure on, and what every benchmark does with its rounds."""
import contextlib, os, pathlib, shutil, statistics, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(os.environ.get("ORCH_BENCH_ROUNDS", "5"))


def run(argv, **kw):
    """Runs a program and returns its output; ends the benchmark when it fails."""
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **kw)
    if p.returncode:
        sys.exit(f"benches: {' '.join(map(str, argv))}: {p.returncode}\n{p.stdout}{p.stderr}")
    return p.stdout.strip()


def program():
    """The orch to measure: as said by `--orch`, else what cargo built last."""
    if given := os.environ.get("ORCH_BENCH_ORCH"):
        return pathlib.Path(given)
    return max(ROOT.glob("target/*/release/orch"), key=lambda path: path.stat().st_mtime)


def script(env, *args):
    """Runs the lab's script."""
    return run([ROOT / "tests/lab/lab", *args], env={**os.environ, **env})


class Machine:
    """A host of a lab, booted or not."""

    def __init__(self, lab, name):
        base = pathlib.Path(os.environ.get("ORCH_LAB_DIR", "/var/tmp/orch-lab"))
        self.name, self.dir = name, base / "labs" / lab / name
        self.root = self.dir / "root"

    def init(self):
        """The pid of its first process."""
        return (self.dir / "init.pid").read_text().split()[0]

    def command(self, argv, beside=None):
        """The command line that runs `argv` in the host, or in the network namespace of a container of it."""
        enter = ["nsenter", "-t", self.init(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "--wdns=/root", "--",
                 "env", "-i", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        if beside:
            pid = run([*enter, "docker", "inspect", "-f", "{{.State.Pid}}", beside])
            enter += ["nsenter", "-t", pid, "-n", "--"]
        return [*enter, *map(str, argv)]

    def run(self, *argv, beside=None):
        return run(self.command(argv, beside))

    def write(self, path, text):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @contextlib.contextmanager
    def server(self, *argv):
        """Runs a server in the host for as long as the block."""
        p = subprocess.Popen(self.command(argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            yield
        finally:
            # nsenter forks into the PID namespace: its child is the server.
            children = pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()
            for pid in children or [p.pid]:
                os.kill(int(pid), 15)
            p.wait()

    def wait_for(self, *argv, beside=None, seconds=20):
        """Runs a command again and again until it succeeds."""
        end = time.monotonic() + seconds
        while subprocess.run(self.command(argv, beside), capture_output=True).returncode:
            if time.monotonic() > end:
                sys.exit(f"benches: {' '.join(argv)}: not within {seconds} s")
            time.sleep(0.05)


class Host(Machine):
    """A booted lab host with orch (release build) and the reference Docker Compose on it."""

    def __init__(self, images="busybox,nginx"):
        super().__init__("bench", "node1")
        self.images = images

    def __enter__(self):
        self.lab("down")
        self.lab("up", "1")
        self.lab("load-images", "--images", self.images)
        tools = self.root / "opt/bench"
        tools.mkdir(parents=True)
        shutil.copy(program(), tools / "orch")
        shutil.copy(os.environ["ORCH_COMPOSE_REFERENCE"], tools / "docker-compose")
        return self

    def __exit__(self, *_):
        self.lab("down")

    def lab(self, *args):
        return script({"LAB": "bench", "LAB_NET": "10.77.99"}, *args)


def timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def alternate(*measures):
    """Runs the measures in turn, ROUNDS times after a round that does not count; the median of each."""
    for measure in measures:
        measure()
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds)]
