"""What runs between hosts: a server behind another host, through the agents' tunnel and through HAProxy TLS to HAProxy TLS."""
import contextlib, os, pathlib, re, socket, subprocess, sys, tempfile, time
import lab
from lab import alternate, run

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{server} reuseport; root {folder}/pages; sendfile on; }}
}}
"""
HAPROXY = """
global
  nbthread 1
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
ENTRY = "  bind 127.0.0.1:{entry}\n  server b 127.0.0.1:{exit} ssl verify required ca-file {folder}/authority.pem crt {folder}/a.pem\n"
EXIT = "  bind 127.0.0.1:{exit} ssl verify required ca-file {folder}/authority.pem crt {folder}/b.pem\n  server server 127.0.0.1:{server}\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def started(*argv, **kw):
    p = subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, text=True, **kw)
    try:
        yield p
    finally:
        p.terminate()
        p.wait()


def wait_for(port):
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            sys.exit(f"benches: nothing listens on port {port}")
        time.sleep(0.05)


def requests(port, *flags):
    text = run(["wrk", "-t1", "-c64", "-d5s", *flags, f"http://127.0.0.1:{port}/kilo"])
    assert "Socket errors" not in text and "Non-2xx" not in text, text
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def gigabytes(port):
    return float(run(["curl", "-sSo", "/dev/null", "-w", "%{speed_download}", f"http://127.0.0.1:{port}/giga"])) / 1e9


def measure():
    """The rows of the table."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # nginx's worker is another user.
        folder.chmod(0o755)
        (folder / "pages").mkdir()
        (folder / "pages/kilo").write_bytes(bytes(1024))
        (folder / "pages/giga").touch()
        os.truncate(folder / "pages/giga", 1 << 30)
        ports = {name: free_port() for name in ("server", "entry", "exit")}
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, **ports))
        stack.enter_context(started("nginx", "-c", folder / "nginx.conf"))
        wait_for(ports["server"])
        ours = stack.enter_context(started(lab.program("tunnel"), folder, f"127.0.0.1:{ports['server']}", stdout=subprocess.PIPE))
        front = int(ours.stdout.readline().rsplit(":", 1)[1])
        for name, text in (("exit", EXIT), ("entry", ENTRY)):
            (folder / f"{name}.cfg").write_text(HAPROXY + text.format(folder=folder, **ports))
            stack.enter_context(started("haproxy", "-db", "-f", folder / f"{name}.cfg"))
            wait_for(ports[name])
        for name, unit, ask in (
            ("requests on kept connections", "/s", requests),
            ("requests, each on a new connection", "/s", lambda port: requests(port, "-H", "Connection: close")),
            ("one body of 1 GiB", " GB/s", gigabytes),
        ):
            mine, peer, direct = alternate(*(lambda port=port: ask(port) for port in (front, ports["entry"], ports["server"])))
            show = (lambda v: f"{v:.2f}{unit}") if "GB" in unit else (lambda v: f"{v:,.0f}{unit}")
            yield (f"Through the tunnel to another host: {name}", show(mine),
                   f"HAProxy TLS to HAProxy TLS {show(peer)}, direct {show(direct)}", mine / peer, "≥ 0.8")
