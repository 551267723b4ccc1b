"""Settings of the embedded engine, by their effects on the API."""

import json
import re
import socket
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from weir import DEMO, DEMO_FILE, model, wait_until


def answer(weir, key=None, tokens=8, prompt="A weir is"):
    return weir.client(key).completions.create(model=DEMO, prompt=prompt, max_tokens=tokens, temperature=0)


def test_a_requantized_copy_is_made_once(make_weir):
    weir = make_weir(models=model(DEMO, DEMO_FILE) + 'optimize = "speed"\n')
    weir.start()
    first = answer(weir)
    assert first.usage.completion_tokens == 8
    [copy] = weir.directory.glob("data/requantized/*.gguf")
    made = copy.stat()
    weir.stop()
    log = weir.log.read_text()
    assert "Q4_1 to Q8_0" in log and "new=true" in log and "kl_mean=0.00" in log, log
    weir.start()
    assert answer(weir).choices[0].text == first.choices[0].text
    weir.stop()
    assert "new=false" in weir.log.read_text()
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == (made.st_mtime_ns, made.st_ino)


def test_tune_finds_settings_and_writes_them(make_weir):
    weir = make_weir(models="# mine\n" + model(DEMO, DEMO_FILE) + "threads = 1 # for now\n")
    done = weir.run("tune", DEMO, "--streams", "2", "--write", "--json", check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = ("threads", "kv_layout", "flash_attention", "optimize")
    tried = [tuple(trial[name] for name in names) for trial in found["tried"]]
    assert len(set(tried)) == len(tried) and tuple(found["best"][name] for name in names) in tried
    assert {(layout, kernel) for _, layout, kernel, _ in tried} == {
        ("unified", "off"), ("unified", "on"), ("split", "off"), ("split", "on"),
    }
    speeds = [speed for trial in found["tried"] for speed in trial["tokens_per_second"].values()]
    assert len(speeds) == 3 * len(tried) and all(speed > 0 for speed in speeds), found
    text = weir.config.read_text()
    assert "# mine" in text
    engine = tomllib.loads(text)["models"][0]["engines"][0]
    assert engine["kv_layout"] == found["best"]["kv_layout"] and engine["threads"] == found["best"]["threads"]
    weir.start()
    assert answer(weir).usage.completion_tokens == 8


def test_tune_says_what_it_can_not_do(make_weir):
    weir = make_weir()
    for arguments, words in (
        (["nothing"], "neither a model of the config nor a file"),
        ([str(weir.config)], "is not a GGUF file"),
        ([str(DEMO_FILE), "--write"], "is in none"),
        ([DEMO, "--streams", "0"], "not in 1..=256"),
    ):
        done = weir.run("tune", *arguments, check=False)
        assert done.returncode in (1, 2) and words in done.stderr and done.stdout == "", done


def test_split_cells_bound_the_context(make_weir):
    weir = make_weir(models=model(DEMO, DEMO_FILE) + 'kv_layout = "split"\nsequences = 2\ncontext_tokens = 256\n')
    weir.start()
    card = weir.client().models.list().data[0].model_dump()
    assert card["context_size"] == 256
    with ThreadPoolExecutor(6) as callers:
        prompts = [f"{number}. A weir is a dam, and" for number in range(6)]
        texts = list(callers.map(lambda prompt: answer(weir, tokens=24, prompt=prompt), prompts))
    assert [text.usage.completion_tokens for text in texts] == [24] * 6


def test_a_long_prompt_that_nobody_wants_any_more_is_given_up(make_weir):
    weir = make_weir()
    weir.start(env={"WEIR_LOG": "info,weir_inference=trace"})
    # The prompt is computed by background prefill, in chunks of 256 tokens.
    turns = lambda: re.findall(r": aside turn=\S+ took=\S+ went=Ok\((\w+)\)", weir.log.read_text())
    body = json.dumps({"model": DEMO, "prompt": "river stone bridge " * 2000, "max_tokens": 1, "stream": True})
    place = urlsplit(weir.url)
    with socket.create_connection((place.hostname, place.port)) as caller:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {weir.key}\r\n"
        caller.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_until(turns, "the prompt is being computed")
    [row] = wait_until(lambda: weir.usage(weir.account), "it is settled")
    assert row["outcome"] == "disconnected" and row["completion_tokens"] == 0, row
    computed = turns()
    assert computed.count("Done") < 16, computed
    # The engine serves on, and no longer computes that prompt.
    assert answer(weir).usage.completion_tokens == 8
    assert len(turns()) <= len(computed) + 1


TIERS = """
[[limits.tiers]]
name = "T1"
[[limits.tiers]]
name = "T2"
weight = 3
"""


def test_an_account_of_weight_three_has_three_times_as_much(make_weir):
    # Prompts of some 160 tokens: an account's turn has a few hundred.
    requests, words = 12, "the old mill by the river " * 25
    weir = make_weir(models=model(DEMO, DEMO_FILE) + "sequences = 4\n", settings=TIERS)
    weir.start()
    keys = {}
    for name, tier in (("light", "T1"), ("heavy", "T2")):
        keys[name] = weir.new_key(name, 1)["key"]
        weir.run("account", "set", name, "--tier", tier)
    order, lock = [], threading.Lock()

    def ask(caller):
        name, number = caller
        answer(weir, keys[name], tokens=4, prompt=f"{name} {number}: {words}")
        with lock:
            order.append(name)

    with ThreadPoolExecutor(2 * requests) as callers:
        list(callers.map(ask, [(name, number) for number in range(requests) for name in keys]))
    # When the heavy account's requests are done, a third as many of the light account's are.
    done = [index for index, name in enumerate(order) if name == "heavy"][-1]
    light = order[:done].count("light")
    assert requests // 6 <= light <= requests // 2, " ".join(order)
