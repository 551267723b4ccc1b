"""pydantic-ai: output types and tools."""

from typing import Literal

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits

from weather import Weather
from weir import DEMO

QUESTION = "What is the weather in Bonn?"
ASKED = {"model_settings": {"max_tokens": 64, "temperature": 0}, "usage_limits": UsageLimits(request_limit=1)}


def agent(url, key, **options):
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    return Agent(OpenAIChatModel(DEMO, provider=OpenAIProvider(openai_client=client)), **options)


@pytest.mark.parametrize("output", [ToolOutput(Weather), NativeOutput(Weather)], ids=["tool", "native"])
def test_output_type(url, key, output):
    asked = agent(url, key, output_type=output)
    assert isinstance(asked.run_sync(QUESTION, **ASKED).output, Weather)
    *_, last = asked.run_stream_sync(QUESTION, **ASKED).stream_output()
    assert isinstance(last, Weather)


class InTurn(AbstractCapability):
    """A small model can't be relied on to call a tool by itself, nor to stop calling it."""

    def get_model_settings(self):
        return lambda run: {"tool_choice": ["weather" if run.run_step == 1 else "final_result"]}


def test_tool(url, key):
    """The agent's loop: the tool is called and run, then comes the answer."""
    asked = agent(url, key, output_type=Weather, capabilities=[InTurn()])
    called = []

    @asked.tool_plain
    def weather(city: Literal["Oslo", "Bonn"], rain: bool) -> str:
        called.append((city, rain))
        return "Rain, 12 degrees."

    result = asked.run_sync(QUESTION, **ASKED | {"usage_limits": UsageLimits(request_limit=2)})
    assert isinstance(result.output, Weather) and len(called) == 1
    assert result.usage.requests == 2
