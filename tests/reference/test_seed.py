"""The same request and seed give the same text: alone, beside others, and after a restart."""

from itertools import takewhile

import pytest

import copies
from conftest import MODELS, config
from served import Served, at_once
from weir import Weir

PROMPT = "In the middle of the night the phone rang, and"
TOKENS = 24
SEEDS = range(40, 42)
N = 2


def ask(served, seed, **more):
    prompt = served.tokens(PROMPT)
    choices = served.complete(prompt, seed=seed, n=N, temperature=0.9, max_tokens=TOKENS, presence_penalty=0.3, **more)
    return [tuple(choice.tokens) for choice in choices]


def ask_beside_others(served, seed, **more):
    """Sends the request at the same time as others with other prompts and seeds."""
    others = [f"{PROMPT} {word}" for word in ("he", "nobody", "rain")]

    def other(text):
        return served.complete(served.tokens(text), n=2, max_tokens=TOKENS + 8, temperature=1)

    jobs = [lambda text=text: other(text) for text in others]
    jobs.insert(2, lambda: ask(served, seed, **more))
    return at_once(lambda job: job(), jobs)[2]


def same(first, second):
    """The number of tokens before the first difference, over all texts."""
    pairs = [pair for one, other in zip(first, second, strict=True) for pair in zip(one, other, strict=True)]
    return sum(len(list(takewhile(lambda both: both[0] == both[1], zip(*texts, strict=False)))) for texts in pairs)


def test_up_to_noise(served, figures):
    """By default the kernels' noise depends on a step's shape, and a token that is sampled close to a border may differ."""
    alone = [ask(served, seed) for seed in SEEDS]
    again = [ask(served, seed) for seed in SEEDS]
    beside = [ask_beside_others(served, seed) for seed in SEEDS]
    texts = {text for texts in alone for text in texts}
    assert len(texts) == N * len(SEEDS)
    asked = sum(map(len, texts))
    figures(tokens=asked, same_again=same(alone, again), same_beside_others=same(alone, beside))
    assert min(same(alone, again), same(alone, beside)) >= asked // 2


@pytest.mark.parametrize("name", MODELS)
def test_to_the_byte_when_reproducible(tmp_path, name):
    """The quantized file as users run it: with it, steps of another shape differ most."""
    id, path = MODELS[name]
    server = Weir(tmp_path, config([name], "reproducible = true", provide=lambda path: path))
    try:
        key = server.start().key
        served = Served(name, server, copies.provide(path), id)
        alone = [ask(served, seed) for seed in SEEDS]
        assert [ask_beside_others(served, seed) for seed in SEEDS] == alone
        server.stop()
        server.start().key = key
        assert [ask_beside_others(served, seed) for seed in reversed(SEEDS)] == alone[::-1]
    finally:
        server.stop()
