"""A frozen node: another node ends its requests, and when it wakes it generates nothing free of charge."""

import os
import signal
import subprocess
import time
from decimal import Decimal

import openai
import pytest

from weir import DEMO, ROOT, wait_until

ENDLESS = dict(model=DEMO, prompt="A long story:", temperature=1, logit_bias={"2": -100, "0": -100})
SILENCE = 5


@pytest.fixture
def postgres(tmp_path):
    """A PostgreSQL for this test alone."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    folder = tmp_path / "cluster"
    script = ROOT / "scripts/test-postgres.sh"
    subprocess.run([script, folder, str(os.getpid())], check=True)
    yield "postgres://weir@" + str(folder).replace("/", "%2F") + "/postgres"
    subprocess.run([script, folder, "stop"], check=True)


def test_a_node_that_wakes_up_gives_nothing_away(make_weir, postgres):
    settings = f'database = "{postgres}"\n[node]\nsilence_seconds = {SILENCE}\n'
    frozen = make_weir(settings=settings, directory="frozen").start()
    other = make_weir(settings=settings, directory="other").start()
    key = other.new_key("alice", 1)["key"]
    stream = frozen.client(key=key).completions.create(**ENDLESS, max_tokens=4000, stream=True)
    chunks = iter(stream)
    seen = [next(chunks)]
    # Long enough for a checkpoint, which is written every second.
    began = time.monotonic()
    wait_until(lambda: seen.append(next(chunks)) or time.monotonic() - began > 2.5, "it streams")
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: other.balance("alice")["held"] == "0", "the other node ends it", 60)
    assert time.monotonic() - began >= SILENCE * 0.8, "it was alive"
    [row] = other.usage("alice")
    assert row["outcome"] == "expired"
    frozen.signal(signal.SIGCONT)
    with pytest.raises(openai.APIError) as error:
        seen += chunks
    assert "accounts at the moment" in str(error.value), error.value
    wait_until(lambda: "a hold was ended again" in frozen.log.read_text() or len(other.usage("alice")) == 2, "it settles")
    tokens = sum(row["completion_tokens"] for row in other.usage("alice"))
    assert tokens >= len([chunk for chunk in seen if chunk.choices[0].text]), "what came is charged"
    assert Decimal(other.balance("alice")["held"]) == 0
    # The node serves again, under a new name.
    frozen.client(key=key).completions.create(model=DEMO, prompt="x", max_tokens=3)
    assert other.run("ledger", "verify") == "the books balance\n"
