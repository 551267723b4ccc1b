#!/usr/bin/env python3
"""What log-probabilities and schemas cost: kinds of streams against a running server, turn by turn.

    scripts/stream_costs.py --key sk_… [--url http://127.0.0.1:8080/v1] [--model M] [--rounds 5]

Prints output tokens per second of all streams: the median of the rounds, their minimum and maximum, and the ratio to
plain streams, round by round. "beside" is what plain streams get while as many streams of that kind run."""

import argparse
import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse

TOKENS = 64
SCHEMA = {
    "type": "object",
    "properties": {
        "names": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 20},
        "numbers": {"type": "array", "items": {"type": "number"}, "minItems": 40},
    },
    "required": ["names", "numbers"],
    "additionalProperties": False,
}
KINDS = {
    "plain": {},
    "logprobs: 5": {"logprobs": True, "top_logprobs": 5},
    "logprobs: 20": {"logprobs": True, "top_logprobs": 20},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}},
}


def stream(arguments, kind, number):
    """The tokens of one stream, and when the first and the last came."""
    url = urllib.parse.urlsplit(arguments.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
    body = {
        "model": arguments.model,
        "messages": [{"role": "user", "content": f"Write a long story about {number} rivers, and never stop."}],
        "max_tokens": TOKENS,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": dict.fromkeys(arguments.ends, -100),
        **KINDS[kind],
    }
    headers = {"Authorization": f"Bearer {arguments.key}", "Content-Type": "application/json"}
    connection.request("POST", url.path + "/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {answer.read().decode()}")
    times, usage = [], None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise SystemExit(chunk)
        usage = chunk.get("usage") or usage
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            times.append(time.perf_counter())
    connection.close()
    return usage["completion_tokens"], times[0], times[-1]


def together(arguments, kinds):
    """Streams at once: for each kind, the tokens per second of its streams."""
    results = [None] * len(kinds)

    def run(place):
        # Each stream of a round has its own prompt, and each round has new ones: no prefix is shared by chance.
        results[place] = stream(arguments, kinds[place], random.randrange(10**6))

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(kinds))]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rates = {}
    for kind in dict.fromkeys(kinds):
        mine = [result for of, result in zip(kinds, results, strict=True) if of == kind]
        rates[kind] = sum(tokens for tokens, _, _ in mine) / (max(last for _, _, last in mine) - started)
    return rates


def table(name, columns, rounds):
    print(f"\n{name}\n{'':14}{'median':>8}{'min':>8}{'max':>8}{'ratio':>8}")
    for column in columns:
        rates = [of[column] for of in rounds]
        ratio = statistics.median(of[column] / of["plain"] for of in rounds)
        print(f"{column:14}{statistics.median(rates):8.1f}{min(rates):8.1f}{max(rates):8.1f}{ratio:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--ends", nargs="*", default=["0", "2"], help="tokens that end an answer: they are ruled out")
    arguments = parser.parse_args()
    for kind in KINDS:
        stream(arguments, kind, 0)
    for streams in arguments.streams:
        rounds = []
        for _ in range(arguments.rounds):
            rates = {}
            for kind in random.sample(list(KINDS), len(KINDS)):
                rates |= together(arguments, [kind] * streams)
            rounds.append(rates)
        table(f"{streams} at once, tokens/s", KINDS, rounds)
    half = max(arguments.streams) // 2
    rounds = []
    for _ in range(arguments.rounds):
        rates = {}
        for kind in random.sample(list(KINDS), len(KINDS)):
            # Plain beside plain: half of what they get together.
            got = together(arguments, ["plain"] * half + [kind] * half)["plain"]
            rates[kind] = got / 2 if kind == "plain" else got
        rounds.append(rates)
    table(f"{half} plain streams, tokens/s, beside {half} others", KINDS, rounds)


if __name__ == "__main__":
    main()
