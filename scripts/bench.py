#!/usr/bin/env python3
"""Weir beside llama-server, load by load, in turns: `make bench` builds what this needs and starts it.

    ROUNDS=5 ONLY=shared,long-prompt FORCE=1 CONTINUE=1 scripts/bench.py [--try]

Prints a table of medians (minimum to maximum) and of the rounds' ratios, and writes it to target/bench, with every round's
figures (rounds.jsonl) and a plot (ratios.svg). Each load starts each server anew, on the same GGUF with the same threads;
who comes first changes from round to round. FORCE measures on a machine that has other things to do, CONTINUE adds rounds
to those that are there. `--try` compares llama-server's flags instead, to find its best ones for each load.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import bench_report
from bench_servers import ROOT, BatchedBench, LlamaServer, Weir

LOAD = ROOT / "target/release/bench-load"
RESULTS = ROOT / "target/bench"
LOAD_AVERAGE_MAX = 0.3
# The tokens that end SmolLM2's answers. They are masked, so that all answers have the same length.
ENDS = "0,2"


class Load:
    """The requests to all servers, and the flags with which llama-server answers them best: the first of `flags` are measured,
    the others were tried. `settings` are Weir's; with `requantized`, Weir is also measured with `optimize = "speed"`.
    `phases` are loads that run one after the other on the same server."""

    def __init__(self, name, phases, flags, settings="", batched=None, requantized=False):
        self.name, self.phases, self.flags, self.settings, self.batched = name, phases, flags, settings, batched
        self.requantized = requantized

    def servers(self):
        yield Weir(self.settings)
        if self.requantized:
            yield Weir(f'{self.settings}\noptimize = "speed"', name="weir-speed")
        yield LlamaServer(self.flags[0])


def split_cells(clients):
    """The fastest settings for short requests without a common prefix; `weir tune` prefers one cache if these gain less than 5 %."""
    return f'kv_layout = "split"\nsequences = {clients}\ncontext_tokens = 512\nflash_attention = "on"'


def distinct(clients, requests):
    """Prompts of 110 words, answers of 64 tokens."""
    split = f"-np {clients} -c {clients * 512} --no-kv-unified"
    return Load(
        f"distinct-{clients}",
        {"": f"load=distinct clients={clients} requests={requests}"},
        [f"{split} --cache-ram 0", split, f"-np {clients} -c {clients * 512} -kvu --cache-ram 0"],
        settings=split_cells(clients),
        batched=clients,
        requantized=True,
    )


LOADS = [
    distinct(1, 10),
    distinct(8, 32),
    distinct(32, 64),
    Load(
        "shared",
        {"": "load=shared clients=8 requests=24"},
        ["-np 8 -c 8192 -kvu", "-np 8 -c 8192 -kvu --cache-ram 0", "-np 8 -c 8192 --no-kv-unified"],
        requantized=True,
    ),
    Load(
        "long-prompt",
        {"": "load=long-prompt"},
        [
            "-np 5 -c 20480 --no-kv-unified --cache-ram 0",
            "-np 5 -c 20480 -kvu --cache-ram 0",
            "-np 5 -c 20480 --no-kv-unified --cache-ram 0 -b 256 -ub 256",
            "-np 5 -c 20480 --no-kv-unified --cache-ram 0 -b 64 -ub 64",
        ],
        requantized=True,
    ),
    Load(
        "overload",
        {
            "alone": "load=overload clients=8 requests=24",
            "crowd": "load=overload clients=64 requests=48",
        },
        ["-np 8 -c 4096 --no-kv-unified --cache-ram 0"],
        settings=f"{split_cells(8)}\nqueue_requests_max = 8",
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="trying", action="store_true", help="compare llama-server's flags")
    arguments = parser.parse_args()
    loads = chosen(os.environ.get("ONLY"))
    rounds = int(os.environ.get("ROUNDS") or 5)
    refuse_a_busy_machine()
    # SIGTERM ends this by an exception, so that the running server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))
    if arguments.trying:
        try_flags(loads, rounds)
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    journal = RESULTS / "rounds.jsonl"
    if not os.environ.get("CONTINUE"):
        journal.unlink(missing_ok=True)
    for load in loads:
        # With CONTINUE, each load continues with the round after its last one.
        done = 1 + max((row["round"] for row in read(journal) if row["load"] == load.name), default=-1)
        for number in range(done, done + rounds):
            with journal.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in one_round(load, number))
    bench_report.write(RESULTS, read(journal))


def chosen(only):
    names = only.split(",") if only else [load.name for load in LOADS]
    found = [load for load in LOADS if any(load.name == name or load.name.startswith(f"{name}-") for name in names)]
    if not found:
        sys.exit(f"bench: ONLY is some of {', '.join(load.name for load in LOADS)}")
    return found


def refuse_a_busy_machine():
    busy = os.getloadavg()[0]
    if busy > LOAD_AVERAGE_MAX and not os.environ.get("FORCE"):
        sys.exit(f"bench: the load average is {busy:.2f}, over {LOAD_AVERAGE_MAX}: wait, or measure anyway with FORCE=1")


def read(journal):
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def one_round(load, number):
    """Measures all servers under a load once, and returns rows for the journal."""
    servers = list(load.servers())
    rows = []
    first = number % len(servers)
    for server in servers[first:] + servers[:first]:
        rows.append(measure(load, server, number))
    same_work(rows)
    if load.batched:
        figures = rows[0]["figures"][""]
        prompt = round(figures["prompt_tokens"] / figures["requests"])
        rows.append(row(load, number, "batched-bench", {"": BatchedBench().run(load.batched, prompt, 64)}))
    return rows


def measure(load, server, number):
    say(f"round {number + 1}, {load.name}, {server.name}")
    with server:
        server.check()
        figures = {phase: drive(server, command, number) for phase, command in load.phases.items()}
    return row(load, number, server.name, figures)


def row(load, number, server, figures):
    busy = round(os.getloadavg()[0], 2)
    return {"load": load.name, "round": number, "server": server, "at": int(time.time()), "busy": busy, "figures": figures}


def drive(server, command, number):
    """Runs a load. All servers get the same prompts in a round, and other ones in the next."""
    more = [f"url={server.url}", f"key={server.key}", f"model={server.model}", f"seed={number + 1}", f"ends={ENDS}"]
    done = subprocess.run([LOAD, *command.split(), *more], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: the load failed; the server said:\n{server.last_words()}")
    return json.loads(done.stdout)


def same_work(rows):
    """Fails if two servers count the tokens of the same prompts differently: they have computed different things. Rounds
    with refusals aren't compared, since other requests may have been answered."""
    first, *others = (row["figures"] for row in rows)
    for phase, mine in first.items():
        for their in (figures[phase] for figures in others):
            if mine.get("retries") or their.get("retries"):
                continue
            if mine.get("requests") == their.get("requests") and mine["prompt_tokens"] != their["prompt_tokens"]:
                sys.exit(f"bench: {mine['prompt_tokens']} and {their['prompt_tokens']} prompt tokens for the same prompts")


def try_flags(loads, rounds):
    for load in loads:
        print(f"{load.name}: llama-server's median of {rounds} rounds by flags")
        found = {flags: [] for flags in load.flags}
        for number in range(rounds):
            for flags in load.flags if number % 2 == 0 else reversed(load.flags):
                found[flags].append(measure(load, LlamaServer(flags), number))
        for flags, rows in found.items():
            medians = bench_report.medians(load.name, rows)
            print(f"  {flags}\n    " + ", ".join(f"{name} {value}" for name, value in medians), flush=True)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
