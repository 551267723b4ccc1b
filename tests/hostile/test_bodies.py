"""Memory before any limit applies: bodies that never end, and answers that are free of charge."""

import json

import pytest

from raw import ask, connect, head, memory, read
from weir import DEMO, DEMO_FILE, Weir, model

MIB = 1 << 20


@pytest.fixture(scope="module")
def weir(tmp_path_factory):
    server = Weir(tmp_path_factory.mktemp("weir"), model(DEMO, DEMO_FILE)).start()
    yield server
    server.stop()


def unfinished(weir, path, key, count, size=14 * MIB):
    """Sends requests whose bodies lack the last byte. Returns their connections, and the statuses that were answered all the same."""
    made, answers = [], []
    for _ in range(count):
        connection = connect(weir)
        connection.sendall(head("POST", path, key, length=size))
        connection.settimeout(5)
        try:
            connection.sendall(b" " * (size - 1))
        except OSError:
            pass
        made.append(connection)
    for connection in made:
        connection.settimeout(0.05)
        try:
            answers.append(read(connection)[0])
        except (OSError, AssertionError):
            pass
    return made, answers


def test_bodies_without_money_take_no_memory(weir):
    poor = weir.new_key("poor", 0)["key"]
    before = memory(weir)
    made, answers = unfinished(weir, "/v1/chat/completions", poor, 40)
    grown = memory(weir) - before
    print(f"\n40 bodies of 14 MiB without money: +{grown:.0f} MiB")
    assert answers and set(answers) == {403}
    assert grown < 64
    for connection in made:
        connection.close()


def test_bodies_of_one_key_take_a_bounded_part_of_memory(weir):
    other = weir.new_key("other", 1)["key"]
    before = memory(weir)
    made, answers = unfinished(weir, "/v1/chat/completions", weir.key, 40)
    grown = memory(weir) - before
    print(f"\n40 bodies of 14 MiB with money: +{grown:.0f} MiB")
    assert 429 in answers
    # A key may have 64 MiB in flight; a growing body is copied at times.
    assert grown < 200
    status, _, body = ask(weir, "POST", "/v1/completions", other, {"model": DEMO, "prompt": "x", "max_tokens": 1})
    assert status == 200, body
    for connection in made:
        connection.close()
    # Memory of dropped bodies is available again.
    for _ in range(6):
        big = {"model": DEMO, "prompt": "x", "max_tokens": 1, "user": "x" * (10 * MIB)}
        status, _, body = ask(weir, "POST", "/v1/completions", weir.key, big)
        assert status == 200, body


def test_answers_that_cost_nothing_are_bounded(weir):
    client = weir.client()
    [long] = sorted(range(2000), key=lambda token: len(detokenize(weir, [token])[2]))[-1:]
    before = memory(weir)
    tokens = [long] * 2_500_000
    status, _, body = detokenize(weir, tokens)
    print(f"\n{len(json.dumps(tokens)) // MIB} MiB of the token {long}: {status}, {len(body)} bytes, "
          f"+{memory(weir) - before:.0f} MiB")
    assert status == 400 and b"longer than" in body
    text = "a" * (7 * MIB)
    status, _, body = ask(
        weir, "POST", "/tokenize", weir.key, {"model": DEMO, "prompt": text, "return_token_strs": True}
    )
    assert status in (200, 400) and len(body) <= 17 * MIB, status
    assert client.completions.create(model=DEMO, prompt="x", max_tokens=1).usage


def detokenize(weir, tokens):
    return ask(weir, "POST", "/detokenize", weir.key, {"model": DEMO, "tokens": tokens})
