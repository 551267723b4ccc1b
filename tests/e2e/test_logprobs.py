"""Log-probabilities, echoed prompts, `best_of`, and tokenization, with OpenAI's own client."""

import math

import openai
import pytest

from weir import DEMO, REPRODUCIBLE

GREETING = [{"role": "user", "content": "Say hello, naïvely."}]
PROMPT = "A weir is a low dam — naïve, über, 語"


def exact(entries):
    return b"".join(bytes(entry.bytes) for entry in entries).decode()


def test_of_a_chat(client):
    request = dict(model=REPRODUCIBLE, messages=GREETING, max_tokens=16, temperature=0, logprobs=True, top_logprobs=3)
    [choice] = client.chat.completions.create(**request).choices
    content = choice.logprobs.content
    assert exact(content) == choice.message.content
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert [top.logprob for top in entry.top_logprobs] == sorted((top.logprob for top in entry.top_logprobs), reverse=True)
        # With greedy sampling the chosen token is the likeliest.
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) < 1.001
    streamed = [
        entry
        for chunk in client.chat.completions.create(**request, stream=True)
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_the_distribution_is_the_models_own(client):
    """Log-probabilities are those of the model, before any sampling parameter changes the logits."""
    request = dict(model=REPRODUCIBLE, messages=GREETING, max_tokens=1, logprobs=True, top_logprobs=5)
    first = lambda **more: client.chat.completions.create(**request, **more).choices[0].logprobs.content[0].top_logprobs
    plain = first(temperature=0)
    other = first(temperature=1.5, presence_penalty=2, extra_body={"top_k": 1, "min_p": 0.5})
    assert [top.token for top in plain] == [top.token for top in other]
    assert all(abs(a.logprob - b.logprob) < 0.01 for a, b in zip(plain, other))


def test_a_prompt_is_scored(client):
    scored = client.completions.create(model=DEMO, prompt=PROMPT, max_tokens=0, echo=True, logprobs=2)
    [choice] = scored.choices
    assert choice.text == PROMPT and scored.usage.completion_tokens == 0
    lists = choice.logprobs
    assert len(lists.tokens) == scored.usage.prompt_tokens
    assert lists.token_logprobs[0] is None and lists.top_logprobs[0] is None
    assert all(logprob <= 0 for logprob in lists.token_logprobs[1:])
    # Tokens of whole characters are in the text at their offsets.
    for token, offset in zip(lists.tokens, lists.text_offset):
        assert token.startswith("bytes:") or PROMPT[offset:].startswith(token)


def test_offsets_begin_with_the_prompt(client):
    asked = dict(model=REPRODUCIBLE, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=1)
    echoed = client.completions.create(**asked, echo=True).choices[0]
    plain = client.completions.create(**asked).choices[0]
    assert echoed.text == PROMPT + plain.text
    assert plain.logprobs.text_offset[0] == len(PROMPT)
    generated = len(plain.logprobs.tokens)
    assert echoed.logprobs.tokens[-generated:] == plain.logprobs.tokens
    assert echoed.logprobs.text_offset[-generated:] == plain.logprobs.text_offset
    tokens = client.post("/tokenize", cast_to=object, body={"model": DEMO, "prompt": PROMPT})["tokens"]
    of_tokens = client.completions.create(**asked | {"prompt": tokens}).choices[0]
    assert of_tokens.logprobs.text_offset == plain.logprobs.text_offset
    ids = client.completions.create(**asked, extra_body={"return_tokens_as_token_ids": True}).choices[0].logprobs.tokens
    assert all(token.startswith("token_id:") for token in ids)


def test_the_best_of_several(client):
    asked = dict(model=REPRODUCIBLE, prompt="A weir is", max_tokens=8, seed=5, logprobs=0)
    every = client.completions.create(**asked, n=5)
    best = client.completions.create(**asked, n=2, best_of=5)
    mean = lambda choice: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    expected = sorted(every.choices, key=mean, reverse=True)[:2]
    assert [choice.text for choice in best.choices] == [choice.text for choice in expected]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage == every.usage, "what isn't shown is charged too"


def test_tokens_and_back(client):
    ask = lambda path, **body: client.post(path, cast_to=object, body={"model": DEMO} | body)
    shown = ask("/tokenize", prompt=PROMPT, return_token_strs=True)
    assert shown["count"] == len(shown["tokens"]) == len(shown["token_strs"]) and shown["max_model_len"] > 0
    assert ask("/detokenize", tokens=shown["tokens"])["prompt"] == PROMPT
    usage = client.chat.completions.create(model=DEMO, messages=GREETING, max_tokens=1).usage
    assert ask("/tokenize", messages=GREETING)["count"] == usage.prompt_tokens
    counted = ask("/count", messages=GREETING, max_tokens=10, n=3)
    assert (counted["prompt_tokens"], counted["max_completion_tokens"]) == (usage.prompt_tokens, 30)
    assert counted["max_cost_nano_usd"] == usage.prompt_tokens * 20 + 30 * 40
    assert float(counted["max_cost_usd"]) == counted["max_cost_nano_usd"] / 1e9


def test_counting_is_free_and_exact(weir):
    asked = dict(model=DEMO, messages=GREETING, max_tokens=10)
    body = {"model": DEMO, "messages": GREETING, "max_tokens": 10}
    key = weir.new_key("counting", 0)["key"]
    client = weir.client(key)
    counted = client.post("/count", cast_to=object, body=body)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(**asked)
    assert refused.value.body["code"] == "insufficient_balance"
    assert counted["max_cost_nano_usd"] > 0
