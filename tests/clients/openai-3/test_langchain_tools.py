"""langchain-openai: tools and structured outputs."""

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from weather import Weather
from weir import DEMO

QUESTION = "What is the weather in Bonn?"


@pytest.fixture
def llm(url, key):
    return ChatOpenAI(base_url=url, api_key=key, model=DEMO, max_retries=0, max_tokens=64, temperature=0)


@pytest.mark.parametrize("choice", ["Weather", "required"])
def test_a_stream_adds_up_to_the_regular_call(llm, choice):
    bound = llm.bind_tools([Weather], tool_choice=choice, parallel_tool_calls=False)
    [call] = bound.invoke(QUESTION).tool_calls
    assert call["name"] == "Weather" and call["id"]
    Weather.model_validate(call["args"])
    first, *rest = bound.stream(QUESTION)
    [streamed] = sum(rest, first).tool_calls
    assert streamed["id"] and (streamed["name"], streamed["args"]) == (call["name"], call["args"])


def test_the_result_of_a_tool(llm):
    question = HumanMessage(QUESTION)
    called = llm.bind_tools([Weather], tool_choice="Weather").invoke([question])
    result = ToolMessage("Rain, 12 degrees.", tool_call_id=called.tool_calls[0]["id"])
    said = llm.bind_tools([Weather], tool_choice="none").invoke([question, called, result], max_tokens=8)
    assert said.text and not said.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(llm, method):
    structured = llm.with_structured_output(Weather, method=method, strict=True)
    assert isinstance(structured.invoke(QUESTION), Weather)
    *_, last = structured.stream(QUESTION)
    assert isinstance(last, Weather)


def test_json_mode(llm):
    bound = llm.bind(response_format={"type": "json_object"})
    assert bound.invoke('Answer {"a": 1} in JSON.').text.startswith("{")
