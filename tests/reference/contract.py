"""The documented definitions of sampling in plain numpy, and wrong ones.

Wrong definitions are those of other servers, and likely mistakes. A test whose data can't tell the right definition from a
wrong one proves nothing, so each test names the wrong definitions that its data must rule out.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a request, with their defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict = dataclasses.field(default_factory=dict)

    def __init__(self, **given):
        for field in dataclasses.fields(self):
            default = {} if field.name == "logit_bias" else field.default
            object.__setattr__(self, field.name, given.pop(field.name, default))
        # JSON's keys are strings, and clients write numbers as strings too.
        bias = {int(token): float(value) for token, value in self.logit_bias.items()}
        object.__setattr__(self, "logit_bias", bias)
        assert not given, f"no such parameter: {given}"


# From the model's logits to the adjusted logits


def bias(logits, sampling):
    logits = logits.copy()
    for token, value in sampling.logit_bias.items():
        logits[token] = -np.inf if value == -100 else logits[token] + value
    return logits


def repetition(logits, tokens, penalty):
    tokens, logits = np.unique(np.asarray(tokens, int)), logits.copy()
    seen = logits[tokens]
    logits[tokens] = np.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def occurrence(logits, tokens, sampling):
    """Applies presence and frequency penalties."""
    logits = logits.copy()
    tokens, counts = np.unique(np.asarray(tokens, int), return_counts=True)
    logits[tokens] -= sampling.frequency_penalty * counts
    logits[tokens] -= sampling.presence_penalty
    return logits


def adjust(logits, prompt, output, sampling):
    """Applies the bias, then the repetition penalty over prompt and output, then presence and frequency over the output."""
    logits = bias(np.asarray(logits, np.float64), sampling)
    logits = repetition(logits, [*prompt, *output], sampling.repetition_penalty)
    return occurrence(logits, output, sampling)


def _llama_server(logits, prompt, output, sampling):
    """llama-server's: all penalties over the last 64 tokens, of prompt and output."""
    last = [*prompt, *output][-64:]
    logits = repetition(bias(np.asarray(logits, np.float64), sampling), last, sampling.repetition_penalty)
    return occurrence(logits, last, sampling)


def _penalties_before_bias(logits, prompt, output, sampling):
    logits = repetition(np.asarray(logits, np.float64), [*prompt, *output], sampling.repetition_penalty)
    return bias(occurrence(logits, output, sampling), sampling)


def _repetition_last(logits, prompt, output, sampling):
    logits = occurrence(bias(np.asarray(logits, np.float64), sampling), output, sampling)
    return repetition(logits, [*prompt, *output], sampling.repetition_penalty)


def _repetition_once_per_occurrence(logits, prompt, output, sampling):
    logits = bias(np.asarray(logits, np.float64), sampling)
    for token in [*prompt, *output]:
        logits = repetition(logits, [token], sampling.repetition_penalty)
    return occurrence(logits, output, sampling)


def _other(change):
    """The right definition, with changed parameters."""
    return lambda logits, prompt, output, sampling: adjust(logits, prompt, output, change(sampling))


def _change(**changes):
    return _other(lambda sampling: Sampling(**vars(sampling) | changes))


def _output_alone(logits, prompt, output, sampling):
    return adjust(logits, [], output, sampling)


def _prompt_too(logits, prompt, output, sampling):
    return adjust(logits, prompt, [*prompt, *output], sampling)


def _swap(sampling):
    frequency, presence = sampling.frequency_penalty, sampling.presence_penalty
    return Sampling(**vars(sampling) | {"frequency_penalty": presence, "presence_penalty": frequency})


def _negate_bias(sampling):
    flipped = {token: -value for token, value in sampling.logit_bias.items()}
    return Sampling(**vars(sampling) | {"logit_bias": flipped})


# One mistake isn't among them: a repetition penalty that divides negative logits too. A token with a negative logit is never the
# best one while others are positive, so it can't be seen from outside; the sampler's own tests cover it.
WRONG_PENALTIES = {
    "llama-server's: the prompt counts, 64 tokens back": _llama_server,
    "presence and frequency count the prompt": _prompt_too,
    "repetition looks at the output alone": _output_alone,
    "repetition once for each occurrence": _repetition_once_per_occurrence,
    "repetition after presence and frequency": _repetition_last,
    "bias after the penalties": _penalties_before_bias,
    "presence and frequency swapped": _other(_swap),
    "repetition_penalty ignored": _change(repetition_penalty=1.0),
    "presence_penalty ignored": _change(presence_penalty=0.0),
    "frequency_penalty ignored": _change(frequency_penalty=0.0),
    "logit_bias ignored": _change(logit_bias={}),
    "logit_bias subtracted": _other(_negate_bias),
}


# From the adjusted logits to the distribution of the token


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def filter_min_p(logits, sampling):
    if sampling.min_p == 0:
        return logits
    return np.where(logits >= logits.max() + np.log(sampling.min_p), logits, -np.inf)


def filter_top_k(logits, sampling):
    if sampling.top_k == 0:
        return logits
    return keep(logits, np.argsort(-logits, kind="stable")[: sampling.top_k])


def filter_top_p(logits, sampling):
    """Keeps the smallest set of the most likely tokens whose probability reaches top_p."""
    if sampling.top_p == 1:
        return logits
    order = np.argsort(-logits, kind="stable")
    before = np.cumsum(softmax(logits)[order]) - softmax(logits)[order]
    return keep(logits, order[before < sampling.top_p])


def keep(logits, tokens):
    kept = np.full_like(logits, -np.inf)
    kept[tokens] = logits[tokens]
    return kept


def chain(*steps):
    def distribution(logits, sampling):
        for step in steps:
            logits = step(logits, sampling)
        return softmax(logits)

    return distribution


def cool(logits, sampling):
    return logits / sampling.temperature


distribution = chain(cool, filter_min_p, filter_top_k, filter_top_p)


def _without(**changes):
    return lambda logits, sampling: distribution(logits, Sampling(**vars(sampling) | changes))


def _short_top_p(logits, sampling):
    """top_p that leaves out the token by which top_p is reached."""
    order = np.argsort(-logits, kind="stable")
    reached = np.cumsum(softmax(logits)[order])
    return keep(logits, order[: max(1, int((reached <= sampling.top_p).sum()))])


def _top_p_of_all(logits, sampling):
    """top_p of the whole vocabulary's probability, combined with the other filters."""
    kept = filter_top_p(logits, sampling)
    others = filter_top_k(filter_min_p(logits, sampling), sampling)
    return np.where(np.isfinite(others), kept, -np.inf)


WRONG_FILTERS = {
    "temperature ignored": _without(temperature=1.0),
    "temperature multiplies": chain(lambda l, s: l * s.temperature, filter_min_p, filter_top_k, filter_top_p),
    "llama-server's order: top_k, top_p, min_p, temperature": chain(filter_top_k, filter_top_p, filter_min_p, cool),
    "min_p before temperature": chain(filter_min_p, cool, filter_top_k, filter_top_p),
    "top_p before top_k": chain(cool, filter_min_p, filter_top_p, filter_top_k),
    "top_p before min_p": chain(cool, filter_top_k, filter_top_p, filter_min_p),
    "top_p not renormalised": chain(cool, _top_p_of_all),
    "top_p without the token that reaches it": chain(cool, filter_min_p, filter_top_k, _short_top_p),
    "top_p ignored": _without(top_p=1.0),
    "top_k ignored": _without(top_k=0),
    "min_p ignored": _without(min_p=0.0),
    "one more than top_k": lambda l, s: distribution(l, Sampling(**vars(s) | {"top_k": s.top_k + 1})),
}


def bounds(logits, sampling, noise):
    """Two sets of tokens: those allowed with any noise of the logits, and those allowed with some noise."""
    surely, perhaps = (_allowed(logits, sampling, shift) for shift in (-2 * noise, 2 * noise))
    return surely, perhaps


def _allowed(logits, sampling, shift):
    """The allowed tokens if two logits may have moved by `shift` towards (or, if negative, from) each other."""
    logits = cool(logits, sampling)
    shift = shift / sampling.temperature
    if sampling.min_p:
        logits = np.where(logits >= logits.max() + np.log(sampling.min_p) - shift, logits, -np.inf)
    if sampling.top_k:
        last = np.sort(logits)[-sampling.top_k]
        # A token surely ranks within the first k if it is that far above the next one.
        floor = last - shift if shift > 0 else np.sort(logits)[-sampling.top_k - 1] - shift
        logits = np.where(logits >= floor, logits, -np.inf)
    # The probability c of a set changes by at most c (1 - c) times the shift.
    top_p = min(1.0, sampling.top_p + shift / 4) if sampling.top_p < 1 else 1.0
    return np.isfinite(filter_top_p(logits, Sampling(top_p=max(top_p, 1e-9))))
