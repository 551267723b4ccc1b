"""Log-probabilities are those of the model, before bias, penalties and filters."""

import re

import numpy as np
import pytest

from served import NOISE, log_softmax, token_id

PROMPT = "The first men who went to the moon came back with"
CHANGES = {
    "greedy": {"temperature": 0},
    "penalties": {"temperature": 0, "repetition_penalty": 1.5, "frequency_penalty": 1},
    "temperature and filters": {"temperature": 1.7, "top_p": 0.8, "top_k": 20, "seed": 5},
}
TOP = 5


@pytest.fixture
def prompt(served):
    return served.tokens(PROMPT)


def off(values, expected):
    """The largest absolute difference."""
    return float(np.abs(np.asarray(values) - np.asarray(expected)).max())


def check_top(tops, expected):
    """Checks that they are sorted, that the tokens are the best ones up to noise, and that the values are right."""
    values = list(tops.values())
    assert values == sorted(values, reverse=True)
    best = np.sort(expected)[::-1]
    assert off(values, best[: len(values)]) < 2 * NOISE
    return off(values, expected[list(tops)])


@pytest.mark.parametrize("change", CHANGES)
def test_completions(served, prompt, figures, change):
    parameters = CHANGES[change]
    if change == "penalties":
        liked = served.complete(prompt, temperature=0, max_tokens=1)[0].tokens[0]
        parameters = parameters | {"logit_bias": {liked: -100}}
    [choice] = served.complete(prompt, max_tokens=24, logprobs=TOP, **parameters)
    expected = log_softmax(served.logits(prompt, choice.tokens)[0])
    worst = off(choice.values, [expected[at, token] for at, token in enumerate(choice.tokens)])
    for at, top in enumerate(choice.top()):
        # The chosen token is among the best, or added to them.
        chosen = choice.tokens[at]
        assert len(top) == TOP + (list(top).index(chosen) >= TOP if chosen in top else 0)
        assert top[chosen] == choice.values[at]
        best = {token: value for token, value in list(top.items())[:TOP]}
        worst = max(worst, check_top(best, expected[at]))
    figures(case=repr(change), values=len(choice.tokens) * (TOP + 1), largest_difference=round(worst, 4))
    assert worst < NOISE


def test_the_prompt_is_scored(served, prompt, figures):
    long = served.tokens(" ".join([PROMPT] * 3) + " " + served.text(prompt[len(served.start) :]).decode().upper())
    [choice] = served.complete(long, echo=True, max_tokens=0, logprobs=TOP)
    assert choice.tokens == long and choice.finish == "length"
    assert choice.values[0] is None and choice.top()[0] is None
    expected = log_softmax(served.reference.logits(long))
    worst = off(choice.values[1:], [expected[at, token] for at, token in enumerate(long[1:])])
    for at, top in enumerate(choice.top()[1:]):
        worst = max(worst, check_top(dict(list(top.items())[:TOP]), expected[at]))
    figures(tokens=len(long), largest_difference=round(worst, 4))
    assert worst < NOISE


def test_a_prompt_longer_than_the_window_is_scored(served, figures):
    """Gemma's local layers have a window of 512 tokens; later scores depend on where exactly the window ends."""
    text = " ".join(f"{number} men and {number + 1} boats," for number in range(130))
    long = served.tokens(text)[:640]
    assert len(long) == 640
    [choice] = served.complete(long, echo=True, max_tokens=0)
    expected = log_softmax(served.reference.logits(long, first=500))
    values = choice.values[501:]
    worst = off(values, [expected[at, token] for at, token in enumerate(long[501:])])
    figures(tokens=len(values), largest_difference=round(worst, 4))
    assert worst < NOISE


def test_echo_goes_before_the_answer(served, prompt):
    [choice] = served.complete(prompt, echo=True, max_tokens=8, temperature=0)
    [alone] = served.complete(prompt, max_tokens=8, temperature=0)
    assert choice.tokens == prompt + alone.tokens
    assert choice.text == served.text(prompt[len(served.start) :]).decode() + alone.text
    expected = log_softmax(served.logits(prompt, alone.tokens)[0])
    assert off(choice.values[len(prompt) :], [expected[at, token] for at, token in enumerate(alone.tokens)]) < NOISE


@pytest.mark.parametrize("echo", [False, True])
def test_text_offset(served, echo):
    """The offset of each token in the text, in characters."""
    prompt = served.tokens("It was naïve — the café in 東京 said")
    body = {"echo": echo, "max_tokens": 12, "temperature": 0, "logprobs": 1}
    answer = served.post("completions", prompt=prompt, **body)["choices"][0]
    offsets, text = answer["logprobs"]["text_offset"], answer["text"]
    assert len(offsets) == len(answer["logprobs"]["tokens"]) and offsets == sorted(offsets)
    ids = served.complete(prompt, **body)[0].tokens
    # Without echo too, offsets count from the prompt's beginning, as OpenAI's do.
    said = b"" if echo else served.text(prompt[len(served.start) :])
    before = len(said)
    for token, offset in zip(ids, offsets, strict=True):
        # A token that continues a character has that character's offset.
        assert offset == len(said.decode(errors="ignore"))
        said += b"" if token in served.start else served.texts[token]
    assert text == said[before:].decode(errors="ignore")


def test_best_of(served, prompt, figures):
    """The choices with the best mean log-probability, among the choices that `n` gives."""
    parameters = {"max_tokens": 10, "temperature": 1.3, "seed": 11}
    all_of_them = served.complete(prompt, n=12, **parameters)
    best = served.complete(prompt, n=3, best_of=12, **parameters)
    assert [choice.index for choice in best] == [0, 1, 2]
    means = mean_logprobs(served, prompt, all_of_them)
    order = sorted(range(len(means)), key=lambda place: -means[place])
    figures(choices=len(order), means=[round(means[place], 3) for place in order[:4]])
    found = mean_logprobs(served, prompt, best)
    assert all(before >= after - NOISE for before, after in zip(found, found[1:], strict=False))
    # The second request finds the prompt in the prefix cache, in other cells. So its noise differs, and some token may too.
    same = [choice.text == all_of_them[place].text for choice, place in zip(best, order, strict=False)]
    assert sum(same) >= 2, (best, [all_of_them[place] for place in order[:3]])


def mean_logprobs(served, prompt, choices):
    """Mean log-probabilities by the reference."""
    means = []
    for choice, logits in zip(choices, served.logits(prompt, *(choice.tokens for choice in choices)), strict=True):
        expected = log_softmax(logits)
        means.append(float(np.mean([expected[at, token] for at, token in enumerate(choice.tokens)])))
    return means


def test_chat(served, figures):
    if served.name != "smollm2":
        pytest.skip("the model has no chat template")
    messages = [{"role": "system", "content": "You answer."}, {"role": "user", "content": "Name a river."}]
    body = {"messages": messages, "max_tokens": 12, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    answer = served.chat(**body, return_tokens_as_token_ids=True)
    spelled = served.chat(**body)["choices"][0]
    content = answer["choices"][0]["logprobs"]["content"]
    tokens = [token_id(entry["token"]) for entry in content]
    rendered = "<|im_start|>system\nYou answer.<|im_end|>\n<|im_start|>user\nName a river.<|im_end|>\n<|im_start|>assistant\n"
    prompt = chat_tokens(served, rendered)
    assert len(prompt) == answer["usage"]["prompt_tokens"]
    expected = log_softmax(served.logits(prompt, tokens)[0])
    worst = off([entry["logprob"] for entry in content], [expected[at, token] for at, token in enumerate(tokens)])
    for at, entry in enumerate(content):
        assert len(entry["top_logprobs"]) == 20
        tops = {token_id(top["token"]): top["logprob"] for top in entry["top_logprobs"]}
        worst = max(worst, check_top(tops, expected[at]))
        assert [bytes(top["bytes"]) for top in entry["top_logprobs"]] == [served.texts[token] for token in tops]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode().startswith(spelled["message"]["content"])
    figures(values=21 * len(content), largest_difference=round(worst, 4))
    assert worst < NOISE


def chat_tokens(served, rendered):
    """The tokens of a conversation: special tokens by name, the text between them by Weir's tokenizer."""
    tokens = []
    for piece in re.split(r"(<\|im_start\|>|<\|im_end\|>)", rendered):
        if piece.startswith("<|"):
            tokens.append(served.ids[piece.encode()])
        elif piece:
            tokens += served.complete(piece, echo=True, max_tokens=0)[0].tokens
    return tokens
