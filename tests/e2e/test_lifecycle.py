"""Starting, stopping, and starting again."""

import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import openai
import pytest

from weir import BINARY, DEMO, DEMO_FILE, PATIENCE, environment, wait_until

PROMPT = dict(model=DEMO, prompt="A long story:", temperature=1, logit_bias={"2": -100, "0": -100})


def test_first_start_makes_an_account_once(make_weir):
    weir = make_weir().start()
    assert weir.first["account"] == "demo" and weir.key.startswith("sk_")
    assert weir.balance("demo")["balance"] == "5"
    used = weir.client().completions.create(model=DEMO, prompt="x", max_tokens=3).usage
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 0

    weir.start()
    assert weir.first is None
    assert weir.client().completions.create(model=DEMO, prompt="x", max_tokens=3).usage
    assert len(weir.usage("demo")) == 2 and weir.usage("demo")[1]["completion_tokens"] == used.completion_tokens


def test_from_start_to_the_first_token(make_weir):
    weir = make_weir().start()
    weir.stop()
    times, cores = [], []
    for _ in range(3):
        began = time.monotonic()
        weir.start()
        stream = weir.client().completions.create(model=DEMO, prompt="x", max_tokens=1, stream=True)
        next(iter(stream))
        times.append(time.monotonic() - began)
        user, system = Path(f"/proc/{weir.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        cores.append((int(user) + int(system)) / os.sysconf("SC_CLK_TCK"))
        stream.close()
        weir.stop()
    print(f"\nstart to first token, seconds: {times}; seconds of a core: {cores}")
    # 2 s are promised. Other programs on the machine make the wall time longer, but hardly the time of a core.
    assert min(cores) < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish(make_weir, number):
    weir = make_weir(settings="[shutdown]\ngrace_seconds = 120\n").start()
    stream = weir.client().completions.create(**PROMPT, max_tokens=100, stream=True)
    chunks = [next(iter(stream))]
    weir.signal(number)
    assert weir.next_event()["event"] == "draining"
    with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
        weir.client().completions.create(model=DEMO, prompt="x", max_tokens=1)
    chunks += stream
    assert chunks[-1].choices[0].finish_reason == "length"
    assert weir.wait() == 0
    [row] = weir.usage("demo")
    assert (row["outcome"], row["completion_tokens"]) == ("success", 100)


def test_a_signal_under_load_loses_no_usage(make_weir):
    weir = make_weir(settings="[shutdown]\ngrace_seconds = 120\n").start()
    client, streams = weir.client(), 16
    begun = threading.Barrier(streams + 1)

    def run(index):
        chunks = client.completions.create(
            **PROMPT, max_tokens=60 + index, stream=True, stream_options={"include_usage": True}, seed=index
        )
        seen = [next(iter(chunks))]
        begun.wait(PATIENCE)
        seen += chunks
        return seen[-1].usage.completion_tokens

    with ThreadPoolExecutor(streams) as pool:
        lengths = pool.map(run, range(streams))
        begun.wait(PATIENCE)
        weir.signal(signal.SIGTERM)
        lengths = list(lengths)
    assert weir.wait() == 0
    assert lengths == [60 + index for index in range(streams)], "every stream came to its end"
    rows = weir.usage("demo")
    assert sorted(row["completion_tokens"] for row in rows) == lengths
    assert {row["outcome"] for row in rows} == {"success"}
    balance = weir.balance("demo")
    assert Decimal(balance["held"]) == 0
    assert Decimal(balance["balance"]) == 5 - sum(Decimal(row["cost"]) for row in rows)


def check_cut(weir, stop):
    stream = weir.client().completions.create(**PROMPT, max_tokens=8000, stream=True)
    seen = [next(iter(stream))]
    weir.signal(signal.SIGTERM)
    assert weir.next_event()["event"] == "draining"
    stop()
    with pytest.raises(openai.APIConnectionError):
        for chunk in stream:
            seen.append(chunk)
    assert seen[-1].choices[0].finish_reason is None
    weir.wait()
    [row] = weir.usage("demo")
    assert row["outcome"] == "disconnected" and row["completion_tokens"] >= 1
    assert weir.balance("demo")["held"] == "0"


def test_a_second_signal_ends_at_once_and_still_charges(make_weir):
    weir = make_weir().start()
    began = time.monotonic()
    check_cut(weir, lambda: weir.signal(signal.SIGTERM))
    assert time.monotonic() - began < 20, "the grace time is 30 s"


def test_the_grace_time_ends(make_weir):
    check_cut(make_weir(settings="[shutdown]\ngrace_seconds = 1\n").start(), lambda: None)


def test_after_kill_9_nothing_stays_held(make_weir):
    weir = make_weir().start()
    stream = weir.client().completions.create(**PROMPT, max_tokens=8000, stream=True)
    next(iter(stream))
    weir.signal(signal.SIGKILL)
    weir.wait()
    assert weir.balance("demo")["held"] != "0"
    weir.start()
    assert weir.balance("demo")["held"] == "0"
    checks = {row["check"]: row for row in json.loads(weir.run("doctor", "--json", check=False).stdout)}
    assert checks["database"]["detail"] == "the books balance"


def test_a_second_server_on_the_same_data_is_refused(make_weir):
    weir = make_weir().start()
    second = weir.run("serve", check=False)
    assert second.returncode == 1 and second.stderr.startswith("weir: ") and second.stdout == ""


def test_the_environment_overrides_the_config(make_weir):
    weir = make_weir().start(env={"WEIR_LIMITS_REQUESTS_PER_MINUTE": "1", "WEIR_MODELS_0_INPUT_PRICE": "7"})
    [model] = weir.client().models.list()
    assert model.input_token_price_per_m == 7
    weir.client().completions.create(model=DEMO, prompt="x", max_tokens=1)
    with pytest.raises(openai.RateLimitError):
        weir.client().completions.create(model=DEMO, prompt="x", max_tokens=1)


def test_without_a_config_it_serves_the_files_it_finds(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / DEMO_FILE.name).symlink_to(DEMO_FILE)
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [BINARY, "serve", "--listen", "127.0.0.1:0"],
        cwd=tmp_path, env=environment({"WEIR_DEMO": "true"}), stdout=log, stderr=subprocess.STDOUT,
    )
    try:
        text = lambda: (tmp_path / "log").read_text()
        wait_until(lambda: "listening on http://127.0.0.1:" in text(), "it listens")
        assert f"serving {DEMO} from" in text() and "no config file" in text()
        assert "curl " in text() and "from openai import OpenAI" in text() and "sk_" in text()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
