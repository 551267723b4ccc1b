"""langchain-openai."""

import asyncio

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI

from raised import check
from weather import ASKED, Weather
from weir import DEMO


def chat(url, key, **options):
    return ChatOpenAI(**{"base_url": url, "api_key": key, "model": DEMO, "max_retries": 0, "max_tokens": 8, "temperature": 0} | options)


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    whole = chat(url, key).invoke("Say hello.")
    assert whole.text and whole.id
    assert whole.usage_metadata["output_tokens"] <= 8 and whole.usage_metadata["input_tokens"] > 0
    assert whole.response_metadata["model_name"] == DEMO and whole.response_metadata["finish_reason"] in ("stop", "length")
    first, *rest = chat(url, key, stream_usage=True).stream("Say hello.")
    total = sum(rest, first)
    assert total.text == whole.text and total.usage_metadata == whole.usage_metadata
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


def test_async(url, key):
    async def run():
        whole = await chat(url, key).ainvoke("Say hello.")
        return whole.text, "".join([chunk.text async for chunk in chat(url, key).astream("Say hello.")])

    whole, streamed = asyncio.run(run())
    assert whole and whole == streamed


def test_legacy_completions(url, key):
    llm = OpenAI(base_url=url, api_key=key, model=DEMO, max_retries=0, max_tokens=8, temperature=0)
    whole = llm.invoke("Once upon a time")
    assert whole and "".join(llm.stream("Once upon a time")) == whole


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    llm = chat(refused.url, refused.key, model=e.model, presence_penalty=e.presence_penalty)
    with pytest.raises(openai.APIStatusError) as raised:
        list(llm.stream(e.text)) if stream else llm.invoke(e.text)
    check(refused, raised.value)


def test_a_stream_adds_up_to_the_regular_call(url, key):
    bound = chat(url, key, max_tokens=48).bind_tools([Weather], tool_choice="required")
    [call] = bound.invoke(ASKED).tool_calls
    assert call["name"] == "Weather" and call["id"]
    Weather.model_validate(call["args"])
    first, *rest = bound.stream(ASKED)
    [streamed] = sum(rest, first).tool_calls
    assert streamed["id"] and (streamed["name"], streamed["args"]) == (call["name"], call["args"])


def test_the_result_of_a_tool(url, key):
    call = {"id": "call_1", "name": "Weather", "args": {"city": "Bonn", "rain": True}}
    messages = [HumanMessage(ASKED), AIMessage("", tool_calls=[call]), ToolMessage("Rain.", tool_call_id="call_1")]
    said = chat(url, key).bind_tools([Weather], tool_choice="none").invoke(messages)
    assert said.text and not said.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(url, key, method):
    structured = chat(url, key, max_tokens=48).with_structured_output(Weather, method=method, strict=True)
    assert isinstance(structured.invoke(ASKED), Weather)
    # Streaming by a tool call is tested above.
    if method == "json_schema":
        *_, last = structured.stream(ASKED)
        assert isinstance(last, Weather)


def test_json_mode(url, key):
    bound = chat(url, key).bind(response_format={"type": "json_object"})
    assert bound.invoke('Answer {"a": 1} in JSON.').text.startswith("{")
