"""Makes a table and a plot from the rounds of `bench.py`."""

import math
import os
import platform
import statistics
from pathlib import Path


def at(*path):
    """A function that reads the value at a path of a load's figures, or None."""

    def value(figures):
        for name in path:
            figures = (figures or {}).get(name)
        return figures

    return value


def goodput(figures):
    """The ratio of the tokens per second of 64 clients to those of 8."""
    return figures["crowd"]["tokens_per_second"] / figures["alone"]["tokens_per_second"]


RATE = ("tokens/s", at("", "tokens_per_second"), "up")
TTFT = [("TTFT p50, ms", at("", "ttft_ms", "p50"), "down"), ("TTFT p99, ms", at("", "ttft_ms", "p99"), "down")]
GAP = ("worst gap, ms", at("", "gap_ms", "max"), "down")

# The measures of each load in the table: a name, where the figures have it, and whether higher or lower is better.
MEASURES = {
    "distinct-1": ("1 client, distinct prompts", [RATE, *TTFT]),
    "distinct-8": ("8 clients, distinct prompts", [RATE, *TTFT]),
    "distinct-32": ("32 clients, distinct prompts", [RATE, *TTFT]),
    "shared": ("8 clients, shared prefix of 400 words", [RATE, *TTFT]),
    "long-prompt": (
        "4 streams, a prompt of 3,000 words arrives",
        [GAP, ("its own TTFT, ms", at("", "long_ttft_ms"), "down")],
    ),
    "overload": (
        "64 connections at a server for 8",
        [
            ("goodput of 64 ÷ goodput of 8", goodput, "up"),
            ("TTFT p99 of answered requests, ms", at("crowd", "ttft_ms", "p99"), "down"),
            ("refusal p50, ms", at("crowd", "refusal_ms", "p50"), "down"),
            ("refusal p99, ms", at("crowd", "refusal_ms", "p99"), "down"),
            ("smallest Retry-After, ms", at("crowd", "retry_after_ms", "min"), None),
            ("largest Retry-After, ms", at("crowd", "retry_after_ms", "max"), None),
        ],
    ),
}


def write(directory, rows):
    lines = table(rows)
    text = "\n".join([f"{machine()}\n", *lines]) + "\n"
    (directory / "table.md").write_text(text)
    (directory / "ratios.svg").write_text(plot(rows))
    print(text, end="")
    print(f"\n{directory}: rounds.jsonl, table.md, ratios.svg")


def medians(load, rows):
    """The measures of one server under a load: their names and medians."""
    for name, read, _ in MEASURES[load][1]:
        values = [value for row in rows if (value := read(row["figures"])) is not None]
        if values:
            yield name, number(statistics.median(values))


def table(rows):
    yield '| load | | weir | `optimize = "speed"` | llama-server | weir ÷ llama-server | speed ÷ llama-server |'
    yield "|---|---|---|---|---|---|---|"
    for load, (title, measures) in MEASURES.items():
        for name, read, _ in measures:
            ours, faster, theirs = (values(rows, load, server, read) for server in ("weir", "weir-speed", "llama-server"))
            if ours or theirs:
                by_us, by_faster = spread(ratios(ours, theirs)), spread(ratios(faster, theirs))
                yield f"| {title} | {name} | {spread(ours)} | {spread(faster)} | {spread(theirs)} | {by_us} | {by_faster} |"
                title = ""
        kernels = values(rows, load, "batched-bench", RATE[1])
        if kernels:
            found = (values(rows, load, server, RATE[1]) for server in ("weir", "weir-speed", "llama-server"))
            cells = " | ".join(spread(ratios(rates, kernels)) for rates in found)
            yield f"| | tokens/s ÷ those of llama-batched-bench, {spread(kernels)} | {cells} | | |"


def values(rows, load, server, read):
    """The measure of each round, by the round's number."""
    of = {row["round"]: read(row["figures"]) for row in rows if (row["load"], row["server"]) == (load, server)}
    return {number: value for number, value in of.items() if value is not None}


def ratios(ours, theirs):
    return {number: ours[number] / theirs[number] for number in ours if theirs.get(number)}


def spread(by_round):
    if not by_round:
        return "–"
    found = sorted(by_round.values())
    middle = number(statistics.median(found))
    return middle if len(found) == 1 else f"{middle} ({number(found[0])}–{number(found[-1])})"


def number(value):
    """A number with three significant digits."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def machine():
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return f"{cpu}, {len(os.sched_getaffinity(0))} processors, {memory:.0f} GiB, {system}"


def plot(rows):
    """A plot with a line per measure that both servers have: Weir's advantage as a factor, a dot per round, a bar at the median."""
    lines = []
    for load, (title, measures) in MEASURES.items():
        for name, read, better in measures:
            for server, suffix, color in (("weir", "", "#1f77b4"), ("weir-speed", ", speed", "#ff7f0e")):
                found = ratios(values(rows, load, server, read), values(rows, load, "llama-server", read))
                if found and better:
                    times = [ratio if better == "up" else 1 / ratio for ratio in found.values()]
                    lines.append((f"{title}: {name.removesuffix(', ms')}{suffix}", times, color))
    left, width, step, top = 430, 420, 22, 44
    highest = max([2, *(max(times) for _, times, _ in lines)])
    lowest = min([0.5, *(min(times) for _, times, _ in lines)])

    def x(times):
        return left + width * math.log(times / lowest) / math.log(highest / lowest)

    bottom = top + step * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{bottom + 30}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-weight="bold">Weir, times better than llama-server (speed: optimize = "speed")</text>',
    ]
    for tick in (2.0**power for power in range(-6, 12)):
        if lowest <= tick <= highest:
            stroke = "#333" if tick == 1 else "#ddd"
            parts.append(f'<path d="M{x(tick):.1f} {top - 8}V{bottom}" stroke="{stroke}"/>')
            parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}×</text>')
    for place, (title, times, color) in enumerate(lines):
        y = top + step * (place + 0.5)
        middle = x(statistics.median(times))
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{title}</text>')
        parts.extend(f'<circle cx="{x(time):.1f}" cy="{y}" r="3.5" fill="{color}" opacity="0.6"/>' for time in times)
        parts.append(f'<path d="M{middle:.1f} {y - 8}V{y + 8}" stroke="#d62728" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
