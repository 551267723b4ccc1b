"""Greedy answers, token by token, with penalties and bias."""

import dataclasses

import numpy as np
import pytest

from contract import WRONG_PENALTIES, Sampling, adjust
from served import NOISE, at_once

TOKENS = 24
# Two logits may each have moved by the noise. A repetition penalty below 1 increases that.
TOLERANCE = 2 * NOISE
# A list that can continue in many ways, so that every penalty soon changes it.
PROMPT = (
    "The river, the sea, the river, the boat, the sea, the river, the sea, the man, the river, the boat, the house, the"
    " sea, the man, the river, the"
)


def cases(served):
    """Parameters by name. Biases are for tokens that are likely here; others would change nothing."""
    prompt = served.tokens(PROMPT)
    plain = served.complete(prompt, temperature=0, max_tokens=TOKENS)[0].tokens
    first = np.argsort(-served.logits(prompt, [])[0][0])[:8]
    liked = list(dict.fromkeys([*plain, *first.tolist()]))
    up = {token: bias for token, bias in zip(liked[:6], (0.5, 1, 1.5, 2, 2.5, 3), strict=False)}
    down = {token: -bias for token, bias in up.items()}
    penalties = {"repetition_penalty": 1.2, "presence_penalty": 0.6, "frequency_penalty": 0.4}
    return {
        "plain": {},
        "repetition 1.3": {"repetition_penalty": 1.3},
        "repetition 2": {"repetition_penalty": 2},
        "repetition 0.9": {"repetition_penalty": 0.9},
        "presence 1.5": {"presence_penalty": 1.5},
        "presence -1": {"presence_penalty": -1},
        "frequency 0.7": {"frequency_penalty": 0.7},
        "frequency 2": {"frequency_penalty": 2},
        "frequency -0.5": {"frequency_penalty": -0.5},
        "bias +": {"logit_bias": up},
        "bias - in numeric strings": {"logit_bias": {token: str(bias) for token, bias in down.items()}},
        "bias -100": {"logit_bias": {token: -100 for token in liked[:8]}},
        "bias 100": {"logit_bias": {liked[2]: 100}},
        "presence, frequency": {"presence_penalty": 1, "frequency_penalty": 0.5},
        "frequency -1, presence 2": {"frequency_penalty": -1, "presence_penalty": 2},
        "frequency 2, presence -2": {"frequency_penalty": 2, "presence_penalty": -2},
        "frequency -0.5, presence 2": {"frequency_penalty": -0.5, "presence_penalty": 2},
        "all penalties": penalties,
        "all at their ends": {"repetition_penalty": 0.8, "presence_penalty": 2, "frequency_penalty": 2},
        "all, repetition 0.6": {"repetition_penalty": 0.6, "presence_penalty": 2, "frequency_penalty": 1},
        "all, repetition 1.8": {"repetition_penalty": 1.8, "presence_penalty": 2, "frequency_penalty": 1},
        "bias, repetition": {"logit_bias": {token: 12 for token in liked[:3]} | {liked[4]: -20}, "repetition_penalty": 1.5},
        # A bias that the penalty divides away again. A bias after the penalty would make these tokens always win.
        "bias 7, repetition 1.5": {"logit_bias": dict.fromkeys([*prompt, *liked], 7), "repetition_penalty": 1.5},
        "bias 10, repetition 1.8": {"logit_bias": dict.fromkeys([*prompt, *liked], 10), "repetition_penalty": 1.8},
        "bias, all penalties": {"logit_bias": up | {liked[-1]: 5}, **penalties},
    }


@dataclasses.dataclass
class Answer:
    """Weir's answer in a case, and the reference's logits at each of its tokens.

    Only the columns of tokens that could be the best one are kept: those that bias and penalties change, and an even
    larger number of the best others. Tokens are named by their columns.
    """

    sampling: Sampling
    prompt: list
    tokens: list
    finish: str
    ends: list
    logits: np.ndarray

    @classmethod
    def of(cls, served, prompt, parameters, choice, logits):
        sampling = Sampling(**parameters)
        touched = {*prompt, *choice.tokens, *sampling.logit_bias, *served.ends}
        best = np.argpartition(-logits, len(touched) + 1)[:, : len(touched) + 1]
        columns = np.unique([*best.ravel(), *touched])
        place = {int(token): number for number, token in enumerate(columns)}
        bias = {place[token]: value for token, value in sampling.logit_bias.items()}
        return cls(
            Sampling(**vars(sampling) | {"logit_bias": bias}),
            [place[token] for token in prompt],
            [place[token] for token in choice.tokens],
            choice.finish,
            [place[token] for token in served.ends],
            logits[:, columns],
        )

    def deficits(self, definition=adjust):
        """How far each token is below the best one, by a definition."""
        for at, token in enumerate(self.tokens):
            adjusted = definition(self.logits[at], self.prompt, self.tokens[:at], self.sampling)
            yield float(adjusted.max() - adjusted[token])


@pytest.fixture(scope="module")
def answers(served):
    """The answers of all cases."""
    prompt = served.tokens(PROMPT)
    named = cases(served)

    def ask(parameters):
        return served.complete(prompt, temperature=0, max_tokens=TOKENS, **parameters)[0]

    choices = at_once(ask, named.values())
    logits = served.logits(prompt, *(choice.tokens for choice in choices))
    return {
        name: Answer.of(served, prompt, parameters, choice, rows)
        for (name, parameters), choice, rows in zip(named.items(), choices, logits, strict=True)
    }


def test_every_token_is_the_best_one(answers, figures):
    positions = near = 0
    largest = 0.0
    for name, answer in answers.items():
        for at, deficit in enumerate(answer.deficits()):
            assert deficit <= TOLERANCE, f"{name}: token {at} is {deficit:.3f} below the best one"
            positions, near = positions + 1, near + (deficit > 0)
            largest = max(largest, deficit)
    figures(cases=len(answers), positions=positions, mismatches=0, near_ties=near, largest_deficit=round(largest, 4))
    assert positions > 15 * TOKENS and near <= positions / 50


def test_an_answer_ends_where_the_model_ends_it(answers):
    for name, answer in answers.items():
        if answer.finish == "length":
            assert len(answer.tokens) == TOKENS, name
            continue
        best = adjust(answer.logits[len(answer.tokens)], answer.prompt, answer.tokens, answer.sampling)
        assert best[answer.ends].max() >= best.max() - TOLERANCE, f"{name} ends too early"


def test_the_parameters_make_a_difference(answers):
    """Checks that answers differ between cases; otherwise the first test would prove little."""
    assert len({answer.logits.tobytes() for answer in answers.values()}) >= len(answers) - 3


@pytest.mark.parametrize("wrong", WRONG_PENALTIES)
def test_a_wrong_definition_would_be_found(answers, wrong, figures):
    off = sum(
        deficit > TOLERANCE for answer in answers.values() for deficit in answer.deficits(WRONG_PENALTIES[wrong])
    )
    figures(wrong=repr(wrong), positions_off=off)
    # Each deficit is beyond the noise, so a single one would do.
    assert off >= 2
