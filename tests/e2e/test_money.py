"""Charges: in full, when clients hang up, and with many requests at once."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest

from weir import DEMO, wait_until


def settled(weir, name, count):
    """The usage of an account once all of its requests are settled."""
    wait_until(lambda: len(weir.usage(name)) == count, f"{count} requests of {name} are settled")
    balance = weir.balance(name)
    rows = weir.usage(name)
    assert Decimal(balance["held"]) == 0
    assert Decimal(balance["balance"]) == 1 - sum(Decimal(row["cost"]) for row in rows)
    return rows


def test_another_turn_is_computed_from_where_the_last_one_ended(weir, account):
    name, key = account
    messages = [{"role": "user", "content": "Tell me of the river and the stones in it, at length. " * 4}]
    ask = lambda client: client.chat.completions.create(model=DEMO, messages=messages, max_tokens=16, temperature=0)
    first = ask(weir.client(key))
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And of the bridge?"},
    ]
    second = ask(weir.client(key))
    cached = lambda answer: answer.usage.prompt_tokens_details.cached_tokens
    assert cached(first) == 0 and first.usage.prompt_tokens - 2 <= cached(second) < second.usage.prompt_tokens
    assert sorted(row["cached_tokens"] for row in settled(weir, name, 2)) == [0, cached(second)]
    # Another account learns nothing of the cached prompt.
    assert cached(ask(weir.client(weir.new_key("stranger", 1)["key"]))) == 0


def start_stream(client, **change):
    request = dict(model=DEMO, prompt="A long story:", temperature=1, stream=True, logit_bias={"2": -100, "0": -100})
    return client.completions.create(**request | change)


def test_hanging_up_is_charged_for_what_was_produced(weir, account):
    name, key = account
    stream = start_stream(weir.client(key), max_tokens=4000)
    seen = sum(1 for _, chunk in zip(range(20), stream) if chunk.choices[0].text)
    stream.close()
    [row] = settled(weir, name, 1)
    assert row["outcome"] == "disconnected"
    # The charge is for at least the seen tokens, and at most those that fit the sockets' buffers before the hang-up was noticed.
    assert seen <= row["completion_tokens"] < 2000


def test_hanging_up_before_a_regular_answer_frees_the_engine(weir, account):
    name, key = account
    impatient = weir.client(key, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.completions.create(model=DEMO, prompt="x", max_tokens=4000, logit_bias={"2": -100, "0": -100})
    [row] = settled(weir, name, 1)
    assert row["outcome"] == "disconnected" and row["completion_tokens"] < 2000


def test_many_streams_half_of_them_cut(weir, account):
    name, key = account
    client = weir.client(key)

    def run(index):
        wanted = 4 + index
        stream = start_stream(client, prompt=f"Story number {index}:", max_tokens=wanted, seed=index)
        if index % 2:
            next(iter(stream))
            stream.close()
            return None
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert len({chunk.id for chunk in chunks}) == 1
        return wanted

    with ThreadPoolExecutor(32) as pool:
        lengths = [length for length in pool.map(run, range(32)) if length]
    rows = settled(weir, name, 32)
    whole = sorted(row["completion_tokens"] for row in rows if row["outcome"] == "success")
    # A stream that was to be cut may have been complete before its client hung up.
    assert all(length in whole for length in lengths)
    cut = [row for row in rows if row["outcome"] == "disconnected"]
    assert len(cut) + len(whole) == 32 and all(row["completion_tokens"] <= 36 for row in cut)


def test_a_balance_is_never_overdrawn(weir):
    # A request of 100 tokens costs some 4 µUSD: the balance covers a few, and 16 are sent at once.
    key = weir.new_key("thrifty", "0.00001")["key"]
    client = weir.client(key)

    def run(index):
        try:
            return client.completions.create(model=DEMO, prompt="x", max_tokens=100, seed=index).usage
        except Exception as error:
            assert error.status_code == 403, error
            return None

    with ThreadPoolExecutor(16) as pool:
        served = [usage for usage in pool.map(run, range(16)) if usage]
    assert served
    wait_until(lambda: Decimal(weir.balance("thrifty")["held"]) == 0, "nothing is held")
    rows = weir.usage("thrifty")
    assert len(rows) == len(served)
    left = Decimal(weir.balance("thrifty")["balance"])
    assert left >= 0 and left == Decimal("0.00001") - sum(Decimal(row["cost"]) for row in rows)
