"""A model that Weir serves, with its reference in numpy."""

import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from forward import Model
from weir import PATIENCE

# The largest accepted difference of a logit from the reference's. Attention sums in F16 if a step has few tokens, which was seen
# to move single logits by 0.16, and 0.01 on average; steps of 64 and more tokens differ by 0.005. The figures are in
# docs/conformance.md.
NOISE = 0.05
CONTEXT = 768


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status, self.error = status, body


class Served:
    def __init__(self, name, weir, path, id):
        self.name, self.weir, self.id = name, weir, id
        self.reference = Model(path)
        self.texts = [token_bytes(text, self.reference.architecture) for text in self.reference.metadata["tokenizer.ggml.tokens"]]
        self.ids = {text: token for token, text in reversed(list(enumerate(self.texts)))}
        # Tokens that end an answer: <|endoftext|>, <|im_end|>; <eos>, <end_of_turn>.
        self.ends = {"llama": [0, 2], "gemma3": [1, 106]}[self.reference.architecture]
        self.start = {"llama": [], "gemma3": [2]}[self.reference.architecture]

    def tokens(self, text):
        """Tokens that spell `text`, longest first. A tokenizer would split it otherwise, which doesn't matter to the tests."""
        text, tokens = text.encode(), list(self.start)
        while text:
            length = next(length for length in range(min(len(text), 24), 0, -1) if text[:length] in self.ids)
            tokens.append(self.ids[text[:length]])
            text = text[length:]
        return tokens

    def text(self, tokens):
        return b"".join(self.texts[token] for token in tokens)

    def logits(self, prompt, *outputs):
        """For each output, the reference's logits from which its tokens were sampled, and those after its end."""
        return self.reference.branches(prompt, outputs)

    # Requests

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.weir.url}/v1/{path}",
            json.dumps({"model": self.id} | body).encode(),
            {"Authorization": f"Bearer {self.weir.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5 * PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.load(error)) from None

    def complete(self, prompt, **parameters):
        """The choices of a completion, with tokens given by their ids."""
        parameters = {"logprobs": 0, "return_tokens_as_token_ids": True} | parameters
        return [Choice(choice) for choice in self.post("completions", prompt=prompt, **parameters)["choices"]]

    def chat(self, **parameters):
        return self.post("chat/completions", **parameters)


class Choice:
    """One choice of a completion."""

    def __init__(self, choice):
        self.text, self.index, self.finish = choice["text"], choice["index"], choice["finish_reason"]
        self.logprobs = choice["logprobs"]
        self.tokens = [token_id(token) for token in self.logprobs["tokens"]]
        self.values = self.logprobs["token_logprobs"]

    def top(self):
        """For each token, the most likely tokens with their log-probabilities."""
        tops = self.logprobs["top_logprobs"]
        return [top and {token_id(token): value for token, value in top.items()} for top in tops]


def token_id(text):
    found = re.fullmatch(r"token_id:(\d+)", text)
    assert found, f"{text!r} is not token_id:N"
    return int(found[1])


def at_once(function, items):
    """Calls the function for all items at the same time, and returns the results."""
    items = list(items)
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(function, items))


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def token_bytes(text, architecture):
    """The bytes of a token of the vocabulary."""
    if architecture == "llama":
        return bytes(BYTE_OF[letter] for letter in text) if all(letter in BYTE_OF for letter in text) else text.encode()
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", text):
        return bytes([int(byte[1], 16)])
    return text.replace("▁", " ").encode()


def _bytes_of_letters():
    """GPT-2's mapping of bytes to letters: printable bytes stand for themselves, others for letters from 256 on."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _bytes_of_letters()
