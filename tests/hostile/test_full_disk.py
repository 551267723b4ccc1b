"""A data directory on a full disk: delivered tokens are charged, and errors say what is wrong."""

import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest

from weir import DEMO, PATIENCE, wait_until

ENDLESS = dict(model=DEMO, prompt="A long story:", temperature=1, logit_bias={"2": -100, "0": -100})
STREAMS = 3


class Disk:
    """A small disk at `data`, which only processes in its mount namespace see."""

    def __init__(self, weir, size):
        self.data = weir.directory / "data"
        self.data.mkdir()
        script = f"mount -t tmpfs -o size={size} tmpfs '{self.data}' && echo mounted && exec sleep 600"
        self.keeper = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout.readline() == "mounted\n"
        enter = ["nsenter", "-t", str(self.keeper.pid), "-U", "-m", "--preserve-credentials"]
        self.enter = [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(weir.directory)]
        weir.prefix = self.enter

    def run(self, script):
        return subprocess.run([*self.enter, "sh", "-c", script], text=True, capture_output=True, timeout=PATIENCE)

    def fill(self):
        self.run("head -c 100M /dev/zero > data/fill")

    def free(self):
        self.run("rm data/fill")

    def end(self):
        self.keeper.kill()
        self.keeper.wait()


@pytest.fixture
def small(make_weir):
    """A server on a disk of 6 MB, which is filled after its streams have begun."""
    weir = make_weir(settings="[shutdown]\ngrace_seconds = 60\n")
    disk = Disk(weir, "6m")
    weir.start()
    yield weir, disk
    weir.stop()
    disk.end()


def streams(weir, tokens):
    """Begins some streams. Returns futures of their usage."""
    begun = threading.Barrier(STREAMS + 1)

    def run(seed):
        got = weir.client().completions.create(**ENDLESS, max_tokens=tokens, seed=seed, stream=True,
                                               stream_options={"include_usage": True})
        chunks = iter(got)
        seen = [next(chunks)]
        begun.wait(PATIENCE)
        seen += chunks
        return seen[-1].usage

    pool = ThreadPoolExecutor(STREAMS)
    running = [pool.submit(run, seed) for seed in range(STREAMS)]
    begun.wait(PATIENCE)
    return running


def ready(weir):
    try:
        with urllib.request.urlopen(f"{weir.url}/ready", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check_charged(weir, usages, before):
    rows = [row for row in weir.usage("demo") if row["request"] not in before]
    assert sorted(row["completion_tokens"] for row in rows) == sorted(used.completion_tokens for used in usages)
    assert {row["outcome"] for row in rows} == {"success"}
    balance = weir.balance("demo")
    assert Decimal(balance["held"]) == 0
    assert weir.run("ledger", "verify") == "the books balance\n"


def test_complete_answers_are_charged_after_kill_9(small):
    weir, disk = small
    running = streams(weir, 60)
    disk.fill()
    usages = [stream.result(PATIENCE) for stream in running]
    assert [used.completion_tokens for used in usages] == [60] * STREAMS
    status, body = ready(weir)
    assert status == 503 and "disk is full" in body["message"]
    with pytest.raises(openai.InternalServerError) as error:
        weir.client().completions.create(model=DEMO, prompt="x", max_tokens=3)
    assert error.value.status_code == 503 and "overloaded" not in error.value.message.split("'error'")[0]
    weir.signal(signal.SIGKILL)
    weir.wait()
    disk.free()
    weir.start()
    check_charged(weir, usages, set())
    assert ready(weir)[0] == 200


def test_a_regular_answer_is_charged_after_sigterm(small):
    weir, disk = small
    first = weir.client().completions.create(**ENDLESS, max_tokens=1, stream=True)
    before = {weir.usage("demo")[0]["request"]} if list(first) else set()
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(lambda: weir.client().completions.create(**ENDLESS, max_tokens=40, seed=1))
        wait_until(lambda: weir.balance("demo")["held"] != "0", "its hold is made")
        disk.fill()
        usage = whole.result(PATIENCE).usage
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 3, "the exit status tells"
    assert "the next start settles" in weir.log.read_text()
    disk.free()
    weir.start()
    check_charged(weir, [usage], before)


def test_when_there_is_room_again_it_goes_on(small):
    weir, disk = small
    running = streams(weir, 60)
    disk.fill()
    usages = [stream.result(PATIENCE) for stream in running]
    disk.free()
    wait_until(lambda: ready(weir)[0] == 200, "it is ready again", 30)
    wait_until(lambda: len(weir.usage("demo")) == STREAMS, "the streams are settled", 60)
    check_charged(weir, usages, set())
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 0
