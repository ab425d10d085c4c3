"""How long the tables of one host lag behind what happens on another: a pod ends there, and its address leaves the names here.

All hosts of the lab have the machine's clock, so that times of two of them can be compared.
"""
import json, statistics, subprocess, time
import hosts
from lab import ROUNDS

COMPOSE = """
services:
  client: {image: busybox, command: [sleep, "1000000"], stop_signal: SIGKILL, deploy: {placement: {constraints: [node.hostname == node1]}}}
  web:
    image: busybox
    command: [sleep, "1000000"]
    stop_signal: SIGKILL
    deploy: {replicas: 3, placement: {constraints: [node.hostname == node2]}}
"""
# Asks for the addresses of all pods every two milliseconds, and says when the answer is another one.
WATCH = """
import socket, struct, sys, time
def question(number):
    name = b"".join(bytes([len(word)]) + word for word in (b"tasks", b"web"))
    return struct.pack(">6H", number, 256, 1, 0, 0, 0) + name + b"\\0" + struct.pack(">2H", 1, 1)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.settimeout(1)
server.connect((sys.argv[1], 53))
before, number = None, 0
while True:
    number = (number + 1) % 65536
    server.send(question(number))
    try:
        answer = server.recv(4096)
    except TimeoutError:
        continue
    if answer[:2] == struct.pack(">H", number):
        count = struct.unpack(">H", answer[6:8])[0]
        if count != before:
            print(time.time(), count, flush=True)
        before = count
    time.sleep(0.002)
"""


def lag(cluster, watch):
    """Milliseconds from the end of a pod on one host until it is in no answer on another; it is back afterwards."""
    far = cluster.hosts[1]
    victim = far.run("docker", "ps", "-q", "--filter", "label=com.docker.compose.service=web").split()[0]
    far.run("sh", "-c", f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {victim})")
    when, count = watch.stdout.readline().split()
    assert count == "2", count
    # Until the next whole second: a time that is rounded down leaves this end out, and an earlier one would be taken for it.
    ended = far.run("docker", "events", "--since", "30s", "--until", f"{int(time.time()) + 1}", "--filter", f"container={victim}",
                    "--filter", "event=die", "--format", "{{json .}}").splitlines()[-1]
    back = watch.stdout.readline().split()[1]
    assert back == "3", back
    return (float(when) - json.loads(ended)["timeNano"] / 1e9) * 1e3


def measure():
    """The row of the table."""
    with hosts.Orch("beno", "10.77.97", "busybox") as cluster:
        cluster.up(COMPOSE)
        near = cluster.hosts[0]
        near.write("/root/watch.py", WATCH)
        gateway = near.run("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", "bench-client-1")
        command = near.command(["python3", "/root/watch.py", gateway], beside="bench-client-1")
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            while watch.stdout.readline().split()[1] != "3":
                pass
            lags = [lag(cluster, watch) for _ in range(4 * ROUNDS)]
        finally:
            watch.kill()
        shown = f"{statistics.median(lags):.0f} ms, {max(lags):.0f} ms at most of {len(lags)}"
        yield "A pod ends: until the names of another host know", shown, "", None, "< 100 ms"
