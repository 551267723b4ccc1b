"""The two test models in plain numpy, from their published definitions, without any code of Weir or llama.cpp.

`Model(path).logits(tokens)` are the logits after each token. Weights are read from a copy made by `copies.py`. Keys and
values are rounded to F16, as in the server's cache.
"""

import json

import numpy as np


class Model:
    def __init__(self, path):
        index = json.loads(path.with_suffix(".json").read_text())
        self.metadata = index["metadata"]
        self.architecture = self.metadata["general.architecture"]
        self.block = {"llama": llama_block, "gemma3": gemma_block}[self.architecture]
        self.weights = {
            name: np.memmap(path, np.float32, "r", offset, tuple(shape)).view(np.ndarray)
            for name, (offset, shape) in index["tensors"].items()
        }
        self.vocabulary, self.width = self.weights["token_embd.weight"].shape
        self.layers = self.read("block_count")
        self.epsilon = self.read("attention.layer_norm_rms_epsilon")
        self.head_width = self.read("attention.key_length", self.width // self.read("attention.head_count"))
        self.base = self.read("rope.freq_base")
        self.window = self.read("attention.sliding_window", 0)

    def read(self, key, default=None):
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def logits(self, tokens, first=0):
        """The logits after each of `tokens` from index `first` on, a row for each."""
        return self.run(tokens, np.arange(len(tokens)), causal(len(tokens)), np.arange(first, len(tokens)))

    def branches(self, prompt, outputs):
        """For each output, the logits after the prompt and after each of its tokens. The prompt is computed once."""
        tokens, positions, own = list(prompt), list(range(len(prompt))), [-1] * len(prompt)
        for number, output in enumerate(outputs):
            tokens += output
            positions += range(len(prompt), len(prompt) + len(output))
            own += [number] * len(output)
        own = np.array(own)
        # A token attends to earlier tokens of the prompt and of its own output.
        seen = causal(len(tokens)) & ((own == -1) | (own == own[:, None]))
        starts = np.cumsum([len(prompt), *map(len, outputs)])
        rows = [[len(prompt) - 1, *range(start, start + len(output))] for start, output in zip(starts, outputs)]
        logits = self.run(tokens, np.array(positions), seen, np.concatenate(rows).astype(int))
        return np.split(logits, np.cumsum([len(row) for row in rows])[:-1])

    def run(self, tokens, positions, seen, rows):
        """The logits after the tokens in `rows`. `seen` says which tokens each token attends to."""
        hidden = self.weights["token_embd.weight"][np.asarray(tokens)]
        if self.architecture == "gemma3":
            hidden = hidden * np.float32(np.sqrt(self.width))
        for number in range(self.layers):
            hidden = self.block(self, Layer(self, number), hidden, positions, seen)
        hidden = norm(hidden[rows], self.weights["output_norm.weight"], self.epsilon)
        return hidden @ self.weights["token_embd.weight"].T


class Layer:
    """The weights of one layer, by their short names."""

    def __init__(self, model, number):
        self.weights, self.prefix, self.number = model.weights, f"blk.{number}.", number

    def __getitem__(self, name):
        return self.weights[f"{self.prefix}{name}.weight"]


def llama_block(model, layer, hidden, positions, seen):
    x = norm(hidden, layer["attn_norm"], model.epsilon)
    query, key, value = (split(x @ layer[f"attn_{name}"].T, model.head_width) for name in "qkv")
    angles = rotations(positions, model.head_width, model.base)
    # The two numbers of a rotated pair are neighbours.
    query, key = turn_neighbours(query, angles), turn_neighbours(key, angles)
    attended = attention(query, key, value, seen)
    hidden = hidden + attended @ layer["attn_output"].T
    x = norm(hidden, layer["ffn_norm"], model.epsilon)
    gate, up = x @ layer["ffn_gate"].T, x @ layer["ffn_up"].T
    return hidden + (gate / (1 + np.exp(-gate)) * up) @ layer["ffn_down"].T


def gemma_block(model, layer, hidden, positions, seen):
    # Every sixth layer has full attention; the others have a sliding window, and another base of rotations.
    everything = (layer.number + 1) % 6 == 0
    x = norm(hidden, layer["attn_norm"], model.epsilon)
    query, key, value = (split(x @ layer[f"attn_{name}"].T, model.head_width) for name in "qkv")
    query = norm(query, layer["attn_q_norm"], model.epsilon)
    key = norm(key, layer["attn_k_norm"], model.epsilon)
    angles = rotations(positions, model.head_width, model.base if everything else 10_000)
    # The two numbers of a rotated pair are half a head apart.
    query, key = turn_halves(query, angles), turn_halves(key, angles)
    if not everything:
        seen = seen & (positions[:, None] - positions < model.window)
    attended = attention(query, key, value, seen)
    attended = norm(attended @ layer["attn_output"].T, layer["post_attention_norm"], model.epsilon)
    hidden = hidden + attended
    x = norm(hidden, layer["ffn_norm"], model.epsilon)
    gate, up = x @ layer["ffn_gate"].T, x @ layer["ffn_up"].T
    out = (gelu(gate) * up) @ layer["ffn_down"].T
    return hidden + norm(out, layer["post_ffw_norm"], model.epsilon)


def norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon)) * weight


def gelu(x):
    return x / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)))


def split(x, width):
    """Splits vectors into heads: (head, token, width)."""
    return x.reshape(len(x), -1, width).transpose(1, 0, 2)


def rotations(positions, width, base):
    """The rotation of each pair of a head at each position, as complex numbers."""
    frequencies = float(base) ** -(np.arange(0, width, 2) / width)
    return np.exp(1j * np.outer(positions, frequencies)).astype(np.complex64)


def turn_neighbours(x, angles):
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * angles
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def turn_halves(x, angles):
    first, second = np.split(x, 2, axis=-1)
    turned = (first + 1j * second) * angles
    return np.concatenate([turned.real, turned.imag], axis=-1)


def causal(length):
    """The causal mask: a token attends to itself and to earlier tokens."""
    return np.tri(length, dtype=bool)


def attention(query, key, value, seen):
    """Softmax attention; several query heads share a key head (grouped-query attention)."""
    share = len(query) // len(key)
    key, value = (np.repeat(x.astype(np.float16).astype(np.float32), share, axis=0) for x in (key, value))
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[-1]))
    scores = np.where(seen, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value).transpose(1, 0, 2).reshape(query.shape[1], -1)
