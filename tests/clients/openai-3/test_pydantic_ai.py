"""pydantic-ai with its OpenAI provider."""

from typing import Literal

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits

from weather import ASKED, Weather
from weir import DEMO

SETTINGS = {"max_tokens": 8, "temperature": 0}


def agent(url, key, model=DEMO, **options):
    # By default the client would wait for `retry-after` and retry.
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    return Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client)), **options)


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    whole = agent(url, key).run_sync("Say hello.", model_settings=SETTINGS)
    assert whole.output and 0 < whole.usage.output_tokens <= 8
    streamed = agent(url, key).run_stream_sync("Say hello.", model_settings=SETTINGS)
    *_, last = streamed.stream_text()
    assert last == whole.output and streamed.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    asked = agent(refused.url, refused.key, e.model)
    settings = {"max_tokens": 4, "presence_penalty": e.presence_penalty}
    with pytest.raises(ModelHTTPError) as raised:
        if stream:
            list(asked.run_stream_sync(e.text, model_settings=settings).stream_text())
        else:
            asked.run_sync(e.text, model_settings=settings)
    error = raised.value
    assert (error.status_code, error.model_name) == (e.status, e.model)
    assert error.headers["x-request-id"]
    refused.check_error(error.body)


def calling(requests):
    return {"model_settings": {"max_tokens": 48, "temperature": 0}, "usage_limits": UsageLimits(request_limit=requests)}


@pytest.mark.parametrize("output", [ToolOutput(Weather), NativeOutput(Weather)], ids=["tool", "native"])
def test_output_type(url, key, output):
    asked = agent(url, key, output_type=output)
    assert isinstance(asked.run_sync(ASKED, **calling(1)).output, Weather)
    *_, last = asked.run_stream_sync(ASKED, **calling(1)).stream_output()
    assert isinstance(last, Weather)


class InTurn(AbstractCapability):
    """Sets whether a tool must be called in each turn: a small model can't be relied on to call one, nor to stop calling it."""

    def get_model_settings(self):
        return lambda run: {"tool_choice": ["weather" if run.run_step == 1 else "final_result"]}


def test_tool(url, key):
    """The agent's loop: the model calls the tool, the tool runs, the model answers."""
    asked = agent(url, key, output_type=Weather, capabilities=[InTurn()])
    called = []

    @asked.tool_plain
    def weather(city: Literal["Oslo", "Bonn"]) -> str:
        called.append(city)
        return "Rain."

    result = asked.run_sync(ASKED, **calling(2))
    assert isinstance(result.output, Weather) and len(called) == 1
    assert result.usage.requests == 2
