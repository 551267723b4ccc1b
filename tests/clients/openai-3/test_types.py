"""Compares answers with the types of OpenAI's own package, strictly: no value may need conversion, and no field may be one
that the types don't declare."""

from typing import Dict, List, Literal, Optional

import pytest
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_choice import Logprobs
from pydantic import BaseModel

import raw
from refusals import GREETING
from weather import FORMAT, QUESTION, TOOL
from weir import DEMO

CHAT = {"model": DEMO, "messages": GREETING, "max_tokens": 4}
LEGACY = {"model": DEMO, "prompt": "Once upon a time", "max_tokens": 4}


# Exceptions, where OpenAI's own service doesn't keep to its types.
class ScoredPrompt(Logprobs):
    # The first token of an echoed prompt has no log-probability: nothing precedes it.
    token_logprobs: Optional[List[Optional[float]]] = None
    top_logprobs: Optional[List[Optional[Dict[str, float]]]] = None


class EchoedChoice(CompletionChoice):
    logprobs: Optional[ScoredPrompt] = None


class EchoedCompletion(Completion):
    choices: List[EchoedChoice]


class StreamedChoice(EchoedChoice):
    # Null in all chunks but the last.
    finish_reason: Optional[Literal["stop", "length", "content_filter"]]


class StreamedCompletion(Completion):
    choices: List[StreamedChoice]


def unknown(value, path=""):
    """The fields of a value that its type doesn't declare."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from unknown(item, f"{path}[]")


def check(kind, text):
    value = kind.model_validate_json(text, strict=True)
    assert list(unknown(value)) == []
    return value


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n": 3, "seed": 1},
        {"temperature": 0, "stop": ["e"]},
        {"messages": [{"role": "developer", "content": "Be brief."}, *GREETING]},
        {"logprobs": True, "top_logprobs": 3},
        {"logprobs": True, "n": 2},
    ],
    ids=lambda change: "+".join(change) or "plain",
)
def test_chat(url, key, change):
    body = CHAT | change
    answer = check(ChatCompletion, raw.post(url, key, "chat/completions", body))
    assert len(answer.choices) == body.get("n", 1)
    assert all((choice.logprobs is not None) == ("logprobs" in body) for choice in answer.choices)
    for usage in (False, True):
        options = {"stream": True, "stream_options": {"include_usage": usage}}
        chunks = [check(ChatCompletionChunk, text) for text in raw.post(url, key, "chat/completions", body | options)]
        assert all(chunk.choices for chunk in chunks[:-1]) and (chunks[-1].choices == []) == usage
        assert {choice.index for chunk in chunks for choice in chunk.choices} == set(range(body.get("n", 1)))


@pytest.mark.parametrize(
    "change",
    [{}, {"n": 2}, {"prompt": ["One", "Two"]}, {"logprobs": 2}, {"logprobs": 0, "n": 2}, {"logprobs": 1, "echo": True}],
    ids=lambda change: "+".join(change) or "plain",
)
def test_legacy(url, key, change):
    body = LEGACY | change
    answer = check(EchoedCompletion if "echo" in body else Completion, raw.post(url, key, "completions", body))
    assert all((choice.logprobs is not None) == ("logprobs" in body) for choice in answer.choices)
    for usage in (False, True):
        options = {"stream": True, "stream_options": {"include_usage": usage}}
        chunks = [check(StreamedCompletion, text) for text in raw.post(url, key, "completions", body | options)]
        assert (chunks[-1].choices == []) == usage
        ends = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert len(ends) == len(set(ends)) == len({choice.index for chunk in chunks for choice in chunk.choices})


TOOLS = {"messages": QUESTION, "tools": [TOOL], "max_tokens": 48, "temperature": 0}


@pytest.mark.parametrize(
    "change",
    [
        TOOLS | {"tool_choice": "required", "n": 2, "logprobs": True},
        TOOLS | {"tool_choice": "none", "max_tokens": 4},
        {"messages": QUESTION, "response_format": FORMAT, "max_tokens": 48},
    ],
    ids=["required", "none", "document"],
)
def test_tools_and_documents(url, key, change):
    body = CHAT | change
    called = body.get("tool_choice", "none") != "none"
    answer = check(ChatCompletion, raw.post(url, key, "chat/completions", body))
    assert all((choice.message.tool_calls is not None) == called for choice in answer.choices)
    chunks = [check(ChatCompletionChunk, text) for text in raw.post(url, key, "chat/completions", body | {"stream": True})]
    assert any(chunk.choices[0].delta.tool_calls for chunk in chunks) == called


def test_the_check_can_fail(url, key):
    text = raw.post(url, key, "chat/completions", CHAT)
    for good, bad in [('"index":0', '"index":"0"'), ('"index":0', '"index":0,"idx":0'), ('"object":"chat.completion"', '"object":"x"')]:
        assert good in text
        with pytest.raises((ValueError, AssertionError)):
            check(ChatCompletion, text.replace(good, bad))
