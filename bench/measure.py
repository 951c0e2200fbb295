"""Measuring one load: rate, latencies, and the processor time of the processes that serve it."""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from google.protobuf.message import Message


@dataclass(frozen=True)
class Load:
    """A call to repeat, who serves it, and what it is held against."""

    name: str
    address: str
    serving: Sequence[int]
    """Processes whose time counts; their children's too."""
    ceiling: str | None = None
    target: float | None = None
    rpc: str = ""
    requests: Sequence[Message] = ()
    metadata: Sequence[tuple[str, str]] = ()
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def order(self, seconds: float, threads: int) -> dict[str, Any]:
        """What a client process is told."""
        common = {"address": self.address, "seconds": seconds, "threads": threads}
        if self.path:
            return {**common, "path": self.path, "headers": self.headers}
        payloads = [base64.b64encode(each.SerializeToString()).decode() for each in self.requests]
        return {**common, "rpc": self.rpc, "payloads": payloads, "metadata": self.metadata}


@dataclass(frozen=True)
class Measured:
    """What one load gave."""

    rate: float
    p50: float
    p99: float
    server_ms: float
    failures: int


def measure(load: Load, seconds: float, clients: int, threads: int) -> Measured:
    """Runs a load with several client processes at once."""
    order = json.dumps(load.order(seconds, threads))
    before = _processor_time(load.serving)
    running = [
        subprocess.Popen([sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(clients)
    ]
    for each in running:
        assert each.stdin is not None
        each.stdin.write(order)
        each.stdin.close()
    answers = [json.loads(each.stdout.read()) for each in running if each.stdout is not None]
    spent = _processor_time(load.serving) - before
    for each in running:
        each.wait()
    latencies = sorted(latency for answer in answers for latency in answer["latencies"])
    failures = [failure for answer in answers for failure in answer["failures"]]
    if failures:
        print(f"{load.name}: {len(failures)} failures, the first: {failures[0]}", file=sys.stderr)
    return Measured(
        rate=len(latencies) / seconds,
        p50=latencies[len(latencies) // 2],
        p99=latencies[int(len(latencies) * 0.99)],
        server_ms=spent * 1000 / len(latencies),
        failures=len(failures),
    )


def measure_sql(url: str, name: str, script: str, seconds: float, pgbench: Path) -> tuple[str, float]:
    """Transactions per second of a script under pgbench, as many clients as the loads have."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [str(pgbench), "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", str(max(int(seconds), 1)), "-f"]
        done = subprocess.run([*command, file.name, url], capture_output=True, text=True, check=True)
    rate = next(line for line in done.stdout.splitlines() if line.startswith("tps"))
    return name, float(rate.split("=")[1].split()[0])


def _processor_time(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
    return total
