"""How long `config` takes to load, and how much memory: a file of 60 services as people write them, and one of 1,000 with anchors and three files over it.

Needs no engine and no lab: both programs only read files.
"""
import os, subprocess, sys, tempfile, time
from lab import alternate, program

SERVICE = """  {name}:
    image: registry.example/team/{name}:${{TAG:-1.0}}
    restart: unless-stopped
    depends_on: {{ {before}: {{condition: service_started}} }}
    environment:
      DATABASE_URL: postgres://app:${{PASSWORD:-secret}}@{before}:5432/app
      LOG_LEVEL: ${{LOG_LEVEL:-info}}
      NAME: {name}
    ports: ["{port}:80"]
    volumes: ["data:/var/lib/{name}", "./conf/{name}:/etc/{name}:ro"]
    healthcheck: {{test: curl -f http://localhost/health, interval: 30s, timeout: 5s, retries: 3}}
    networks: [front, back]
    labels: [team=a, "part={name}"]
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 256M}}}}}}
"""
ENDS = "networks: {front: , back: {internal: true}}\nvolumes: {data: }\n"


def service(number):
    return SERVICE.format(name=f"s{number}", before=f"s{number - 1}", port=8000 + number)


def sixty():
    first = "services:\n  s0: {image: x, networks: [front, back]}\n"
    return [first + "".join(service(number) for number in range(1, 60)) + ENDS]


def thousand():
    base = """x-base: &base
  restart: always
  environment: &env {A: "${A:-1}", B: two, C: "3"}
  healthcheck: &health {test: [CMD, "true"], interval: 10s}
  networks: [front]
  volumes: ["data:/data"]
services:
""" + "".join(
        f"  s{n}: {{<<: *base, image: \"x:${{TAG:-{n}}}\", environment: {{<<: *env, N: \"{n}\"}}, ports: [\"{10000 + n}:80\"]}}\n"
        for n in range(1000)) + ENDS
    overs = ["services:\n" + "".join(f"  s{n}: {{environment: {{OVER{k}: \"{n}\"}}, labels: [over={k}]}}\n" for n in range(1000)) for k in range(3)]
    return [base, *overs]


def memory(argv, cwd):
    """The most memory that a program had, in MB."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", 'cd "$0" && exec "$@" >/dev/null', cwd, *map(str, argv)], os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"benches: {argv}: {status}")
    return used.ru_maxrss / 1024


def measure():
    """The rows of the table."""
    ours, theirs = program(), os.environ["ORCH_COMPOSE_REFERENCE"]
    rows = []
    for what, texts, goal in (("60 services", sixty(), 0.3), ("1,000 services with anchors, three files over it", thousand(), None)):
        with tempfile.TemporaryDirectory() as directory:
            flags = []
            for index, text in enumerate(texts):
                path = os.path.join(directory, f"{index}.yaml")
                with open(path, "w") as file:
                    file.write(text)
                flags += ["-f", path]
            command = [*flags, "config", "--format", "json"]

            def once(which):
                start = time.monotonic()
                subprocess.run([which, *command], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
                return time.monotonic() - start

            orch, peer = alternate(lambda: once(ours), lambda: once(theirs))
            rows.append((f"`config` of {what}", f"{orch * 1e3:.0f} ms", f"Docker Compose {peer * 1e3:.0f} ms", orch / peer,
                         goal or "under 100 ms"))
            rows.append(("most memory for it", f"{memory([ours, *command], directory):.0f} MB",
                         f"Docker Compose {memory([theirs, *command], directory):.0f} MB", None, "64 MB"))
    return rows
