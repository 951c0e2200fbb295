"""`make bench`: one run, closed loop, ratios to ceilings measured in between; the machine's mood cancels out.

    python -m bench [--seconds 3] [--rounds 3] [--clients 2] [--threads 8] [--only NAME …]

Each row is one rpc of the real system (`millrace up` on a temporary directory) under the load of several client
processes. `ratio` is its rate over that of the ceiling with the same number of hops, the median over rounds: `echo` is
our server without anything around it, `relay` is an echo that asks another echo. `server ms` is processor time per call
of all processes that serve it; the pgbench rows are PostgreSQL running the very same SQL, the floor below.
"""

import argparse
import statistics
import time

from rich.console import Console
from rich.table import Table

from bench.measure import Load, Measured, measure, measure_sql
from bench.system import Bench, running


def main() -> None:
    """Measures everything and prints one table."""
    wanted = argparse.ArgumentParser(prog="python -m bench", description="Measure rpcs as ratios to their ceilings.")
    wanted.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts")
    wanted.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    wanted.add_argument("--clients", type=int, default=2, help="client processes")
    wanted.add_argument("--threads", type=int, default=8, help="calls under way per client process")
    wanted.add_argument("--only", nargs="*", default=[], help="rows to measure beside the ceilings")
    chosen = wanted.parse_args()
    console = Console(width=118)
    with running() as bench:
        loads = [load for load in bench.loads() if not chosen.only or load.ceiling is None or load.name in chosen.only]
        found: dict[str, list[Measured]] = {load.name: [] for load in loads}
        for number in range(chosen.rounds):
            for load in loads:
                console.log(f"round {number + 1} of {chosen.rounds}: {load.name}")
                found[load.name].append(measure(load, chosen.seconds, chosen.clients, chosen.threads))
        floors = [
            measure_sql(bench.database_url, name, sql, chosen.seconds, bench.pgbench) for name, sql in bench.floors()
        ]
        console.print(_table(loads, found))
        for name, rate in floors:
            console.print(f"pgbench, the SQL of {name}: {rate:,.0f} transactions/s")
        _print_system(console, bench)


def _table(loads: list[Load], found: dict[str, list[Measured]]) -> Table:
    table = Table("call", "calls/s", "p50 ms", "p99 ms", "server ms", "ceiling", "ratio", "target", "failures")
    for load in loads:
        rounds = found[load.name]
        ratio = ""
        if load.ceiling is not None:
            ratios = [mine.rate / top.rate for mine, top in zip(rounds, found[load.ceiling], strict=True)]
            ratio = f"{statistics.median(ratios):.2f}"
        middle = sorted(rounds, key=lambda each: each.rate)[len(rounds) // 2]
        table.add_row(
            load.name,
            f"{middle.rate:,.0f}",
            f"{middle.p50:.1f}",
            f"{middle.p99:.1f}",
            f"{middle.server_ms:.2f}",
            load.ceiling or "",
            ratio,
            f"≥ {load.target}" if load.target else "",
            str(sum(each.failures for each in rounds) or ""),
        )
    return table


def _print_system(console: Console, bench: Bench) -> None:
    console.print(f"resident memory at rest: {bench.memory() / 2**20:,.0f} MiB (target ≤ 1,229)")
    bench.stop()
    began = time.perf_counter()
    bench.start()
    console.print(f"second start: {time.perf_counter() - began:.1f} s (target < 10)")


if __name__ == "__main__":
    main()
