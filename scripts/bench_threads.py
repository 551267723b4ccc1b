#!/usr/bin/env python3
"""Compares threads for the kernels: ggml's own pool and OpenMP, between which a build of llama.cpp chooses.

ROUNDS=5 FORCE=1 scripts/bench_threads.py

`make bench-threads` builds both programs and starts this. Each is measured as a server with clients on the same machine, idle
and beside a process that is busy on one core, in turns. Prints a table of tokens/s: medians (minimum to maximum).
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys

from bench import drive, refuse_a_busy_machine, say, split_cells
from bench_servers import ROOT, THREADS, Weir

RESULTS = ROOT / "target/bench/threads.jsonl"
POOL, OPENMP = ROOT / "target/release/weir", ROOT / "target/openmp/release/weir"
# Few requests: beside a busy process they take several times as long with some of these.
LOADS = {1: "load=distinct clients=1 requests=3", 8: "load=distinct clients=8 requests=8"}
FEWER = max(1, THREADS - 1)


class Way:
    def __init__(self, name, program, threads=THREADS, settings=f"threads_min = {THREADS}", **variables):
        self.name, self.program, self.threads, self.settings, self.variables = name, program, threads, settings, variables

    def server(self):
        settings = f"{split_cells(8)}\n{self.settings}"
        return Weir(settings, name=self.name, program=self.program, threads=self.threads, variables=self.variables)


WAYS = [
    Way("ggml's pool, as many as there are cores for", POOL, settings=""),
    Way(f"ggml's pool, always {THREADS}", POOL),
    Way(f"ggml's pool, always {FEWER}", POOL, threads=FEWER, settings=""),
    Way(f"OpenMP, always {THREADS}, which spin", OPENMP),
    Way(f"OpenMP, always {THREADS}, `OMP_WAIT_POLICY=passive`", OPENMP, OMP_WAIT_POLICY="passive"),
]


def main():
    refuse_a_busy_machine()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(int(os.environ.get("ROUNDS") or 5)):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            for busy in (False, True):
                rows += measure(way, busy, number)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n".join(table(rows)))


def measure(way, busy, number):
    """Measures a server's tokens/s with each number of clients."""
    say(f"round {number + 1}, {way.name}, {'beside a busy process' if busy else 'idle'}")
    with busy_process() if busy else contextlib.nullcontext(), way.server() as server:
        for clients, load in LOADS.items():
            rate = drive(server, load, number)["tokens_per_second"]
            yield {"way": way.name, "busy": busy, "clients": clients, "round": number, "tokens_per_second": rate}


@contextlib.contextmanager
def busy_process():
    """A process that is always busy, at the server's priority."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def table(rows):
    columns = [(busy, clients) for busy in (False, True) for clients in LOADS]
    names = (f"{'busy' if busy else 'idle'}, {clients} client{'s' if clients > 1 else ''}" for busy, clients in columns)
    yield f"| tokens/s | {' | '.join(names)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for way in WAYS:
        cells = ([row["tokens_per_second"] for row in rows if (row["way"], row["busy"], row["clients"]) == (way.name, *column)] for column in columns)
        yield f"| {way.name} | {' | '.join(f'{statistics.median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})' for rates in cells)} |"


if __name__ == "__main__":
    main()
