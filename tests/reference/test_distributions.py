"""Sampled tokens: which ones are allowed, and how often each occurs."""

import collections
import dataclasses

import numpy as np
import pytest

from chi_square import p_value
from contract import WRONG_FILTERS, WRONG_PENALTIES, Sampling, adjust, bounds, distribution, softmax
from served import at_once

# Noise of the prompt's last logits, which are always computed in steps of the same shape.
NOISE_HERE = 0.03
N = 128
SEEDS = range(1, 5)
# A right sampler fails one test in ten thousand; with fixed seeds, always or never.
LEAST_P = 1e-4
PROMPT = "She opened the old box and found a letter from her"


@dataclasses.dataclass
class Case:
    """Filters, each with the range of ranks (from, to) in which it must cut. `tuned` chooses the exact place."""

    temperature: float = 1
    min_p: tuple = ()
    top_k: tuple = ()
    top_p: tuple = ()
    # Wrong definitions that the samples must rule out.
    wrong: tuple = ()


LLAMA_SERVER = "llama-server's order: top_k, top_p, min_p, temperature"
CASES = {
    "temperature 1": Case(),
    "temperature 0.7": Case(0.7, wrong=("temperature ignored", "temperature multiplies")),
    "temperature 1.6": Case(1.6, wrong=("temperature ignored", "temperature multiplies")),
    "top_k": Case(top_k=(3, 8), wrong=("top_k ignored", "one more than top_k")),
    "top_p": Case(top_p=(4, 8), wrong=("top_p ignored", "top_p without the token that reaches it")),
    "min_p": Case(min_p=(8, 20), wrong=("min_p ignored",)),
    "top_p at temperature 1.5": Case(1.5, top_p=(6, 12), wrong=(LLAMA_SERVER, "top_p ignored", "temperature ignored")),
    "min_p at temperature 2": Case(2, min_p=(10, 25), wrong=(LLAMA_SERVER, "min_p before temperature", "min_p ignored")),
    "top_k, top_p": Case(
        top_k=(8, 14),
        top_p=(4, 7),
        wrong=("top_p before top_k", "top_p not renormalised", "top_k ignored", "top_p ignored"),
    ),
    "min_p, top_p at temperature 1.5": Case(
        1.5,
        min_p=(10, 16),
        top_p=(4, 8),
        wrong=("top_p before min_p", "top_p not renormalised", "min_p ignored", "top_p ignored"),
    ),
    "min_p, top_k, top_p at temperature 2": Case(
        2,
        min_p=(14, 22),
        top_k=(10, 13),
        top_p=(4, 9),
        wrong=(LLAMA_SERVER, "top_p not renormalised", "top_p before top_k", "temperature ignored"),
    ),
}


def tuned(case, logits):
    """Parameters for a case. Filters cut where the next token is so far away that noise doesn't matter, so that the allowed
    set is known exactly."""
    parameters = {"temperature": case.temperature}
    cooled = np.sort(logits.astype(np.float64))[::-1] / case.temperature
    if case.min_p:
        rank = widest(cooled, case.min_p)
        parameters["min_p"] = float(np.exp((cooled[rank - 1] + cooled[rank]) / 2 - cooled[0]))
        cooled = cooled[:rank]
    if case.top_k:
        parameters["top_k"] = widest(cooled, case.top_k)
        cooled = cooled[: parameters["top_k"]]
    if case.top_p:
        probability = softmax(cooled)
        first, last = case.top_p
        rank = first + int(np.argmax(probability[first - 1 : last]))
        # In the middle of the probability of the token that reaches top_p.
        parameters["top_p"] = float(probability[: rank - 1].sum() + probability[rank - 1] / 2)
    return parameters


def widest(cooled, ranks):
    """The rank with the widest gap to the next token."""
    first, last = ranks
    return first + int(np.argmax(cooled[first - 1 : last] - cooled[first : last + 1]))


@pytest.fixture(scope="module")
def prompt(served):
    return served.tokens(PROMPT)


@pytest.fixture(scope="module")
def logits(served, prompt):
    return served.logits(prompt, [])[0][0]


def sample(served, prompt, parameters, tokens=1):
    """The choices of several requests, each with its own seed."""
    ask = lambda seed: served.complete(prompt, n=N, seed=seed, max_tokens=tokens, **parameters)  # noqa: E731
    choices = [choice for answer in at_once(ask, SEEDS) for choice in answer]
    assert len(choices) == N * len(SEEDS)
    return choices


def first_token(choice, served):
    """The choice's first token. An answer that ends at once has none; all end tokens count as the same."""
    if choice.tokens and choice.tokens[0] not in served.ends:
        return choice.tokens[0]
    assert choice.finish == "stop"
    return served.ends[0]


def count(choices, served):
    counts = np.zeros(served.reference.vocabulary)
    np.add.at(counts, [first_token(choice, served) for choice in choices], 1)
    return counts


def fold_ends(values, served, how):
    """Merges the values of all end tokens into those of one."""
    folded = values.copy()
    folded[served.ends] = False
    folded[served.ends[0]] = how(values[served.ends])
    return folded


def verdict(counts, logits, sampling, served):
    """The number of samples that aren't allowed, the p-value of the others, and the number of tokens for which noise decides."""
    surely, perhaps = (fold_ends(tokens, served, np.any) for tokens in bounds(logits, sampling, NOISE_HERE))
    probability = np.where(surely, fold_ends(distribution(logits, sampling), served, np.sum), 0)
    seen = np.where(surely, counts, 0)
    p = p_value(seen[surely], probability[surely] / probability.sum() * seen.sum())
    return int(counts[~perhaps].sum()), p, int((perhaps & ~surely).sum())


def ruled_out(counts, probability, served):
    """Whether the samples can't be of that distribution: a token has probability 0, or chi-square is too improbable, either over the
    tokens or over those that occurred against those that never did."""
    probability = fold_ends(probability, served, np.sum)
    if counts[probability == 0].any():
        return True
    total, seen = counts.sum(), counts > 0
    unseen = probability[~seen].sum() * total
    return min(p_value(counts, probability * total), p_value([total, 0], [total - unseen, unseen])) <= LEAST_P


def check(counts, logits, sampling, served, figures, name):
    outside, p, unsure = verdict(counts, logits, sampling, served)
    allowed = int((distribution(logits, sampling) > 0).sum())
    figures(case=repr(name), samples=int(counts.sum()), allowed=allowed, unsure=unsure, outside=outside, p=f"{p:.3g}")
    assert outside == 0, f"{outside} samples are not in the set of {allowed}"
    assert p > LEAST_P
    # For tokens within the noise of the set's border neither answer is wrong: there must be few.
    assert unsure <= 2


@pytest.mark.parametrize("name", CASES)
def test_first_token(served, prompt, logits, figures, name):
    parameters = tuned(CASES[name], logits)
    sampling = Sampling(**parameters)
    counts = count(sample(served, prompt, parameters), served)
    check(counts, logits, sampling, served, figures, name)
    for wrong in CASES[name].wrong:
        assert ruled_out(counts, WRONG_FILTERS[wrong](logits, sampling), served), f"these samples don't rule out: {wrong}"


def test_first_token_with_penalty_and_bias(served, prompt, logits, figures):
    """Penalty and bias come before temperature, and change the filters' input."""
    best = np.argsort(-logits)[:6]
    in_prompt = max(prompt, key=lambda token: logits[token])
    bias = {int(best[0]): -1.5, int(best[1]): "2", int(best[2]): -100, int(best[5]): 1.25}
    # The bias lifts a token of the prompt among the best: if the penalty came before the bias, it would be far above them.
    repetition = 1.3
    bias[in_prompt] = round(float(repetition * logits[best[3]] - logits[in_prompt]), 1)
    parameters = {"logit_bias": bias, "repetition_penalty": repetition}
    adjusted = adjust(logits, prompt, [], Sampling(**parameters))
    parameters |= tuned(Case(1.5, top_p=(4, 9)), adjusted)
    sampling = Sampling(**parameters)
    counts = count(sample(served, prompt, parameters), served)
    check(counts, adjusted, sampling, served, figures, "bias, repetition, temperature, top_p")
    for wrong in ("logit_bias ignored", "bias after the penalties", "repetition_penalty ignored"):
        other = WRONG_PENALTIES[wrong](logits, prompt, [], sampling)
        assert ruled_out(counts, distribution(other, sampling), served), f"these samples don't rule out: {wrong}"


def test_second_token(served, prompt, logits, figures):
    """Each choice continues from its own first token, which the penalties count. The random number of the first token must
    tell nothing about that of the second."""
    best = [int(token) for token in np.argsort(-logits)[:4]]
    parameters = {"top_k": 4, "temperature": 1.2, "presence_penalty": 1, "frequency_penalty": 0.5}
    sampling = Sampling(**parameters)
    firsts = collections.defaultdict(list)
    for choice in sample(served, prompt, parameters, tokens=2):
        firsts[first_token(choice, served)].append(choice)
    assert set(firsts) <= set(best)
    observed, expected = [], []
    firsts.pop(served.ends[0], None)
    after_each = served.logits(prompt, *([first] for first in firsts))
    for (first, choices), logits in zip(firsts.items(), after_each, strict=True):
        after = adjust(logits[1], prompt, [first], sampling)
        surely, perhaps = bounds(after, sampling, NOISE_HERE)
        seconds = [choice.tokens[1] if len(choice.tokens) > 1 else served.ends[0] for choice in choices]
        assert perhaps[seconds].all()
        probability = np.where(surely, distribution(after, sampling), 0)
        seconds = [second for second in seconds if surely[second]]
        for token in np.flatnonzero(surely):
            observed.append(seconds.count(token))
            expected.append(probability[token] / probability.sum() * len(seconds))
    p = p_value(observed, expected)
    figures(case=repr("second token, penalties"), samples=int(sum(observed)), cells=len(observed), p=f"{p:.3g}")
    assert p > LEAST_P and len(observed) >= 12
