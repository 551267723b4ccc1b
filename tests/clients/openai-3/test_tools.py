"""OpenAI's own Python client: tools and structured outputs."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from weather import FORMAT, NAMED, QUESTION, TOOL, Weather
from weir import DEMO

REQUEST = dict(model=DEMO, messages=QUESTION, max_tokens=48, temperature=0)


@pytest.fixture
def client(url, key):
    return OpenAI(base_url=url, api_key=key, max_retries=0)


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_fragments_add_up_to_the_regular_call(client, choice):
    request = REQUEST | dict(tools=[TOOL], tool_choice=choice, parallel_tool_calls=choice is NAMED)
    [answered] = client.chat.completions.create(**request).choices
    [whole] = answered.message.tool_calls
    assert answered.finish_reason == "tool_calls"
    assert whole.id and (whole.type, whole.function.name) == ("function", "weather")
    Weather.model_validate_json(whole.function.arguments)
    chunks = list(client.chat.completions.create(**request, stream=True))
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    first, *rest = fragments
    assert first.id and (first.type, first.function.name, first.index) == ("function", "weather", 0)
    assert rest and all((call.id, call.type, call.function.name, call.index) == (None, None, None, 0) for call in rest)
    assert "".join(call.function.arguments or "" for call in fragments) == whole.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_result_of_a_tool(client):
    """The second turn: the model reads the tool's result."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn", "rain": true}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]
    request = REQUEST | dict(messages=messages, max_tokens=8)
    answer = client.chat.completions.create(**request, tools=[TOOL], tool_choice="none")
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_parse_a_tool_call(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    answer = client.chat.completions.parse(**REQUEST, tools=[tool], tool_choice=NAMED)
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_the_stream_helper_parses_a_tool_call(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    with client.chat.completions.stream(**REQUEST, tools=[tool], tool_choice=NAMED, n=2) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert len(done) == len(final.choices) == 2 and all(event.name == "weather" for event in done)
    for choice in final.choices:
        assert isinstance(choice.message.tool_calls[0].function.parsed_arguments, Weather)


def test_parse_a_document(client):
    answer = client.chat.completions.parse(**REQUEST, response_format=Weather)
    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert answer.choices[0].finish_reason == "stop"


def test_parse_a_document_by_its_former_name(client):
    assert isinstance(client.beta.chat.completions.parse(**REQUEST, response_format=Weather).choices[0].message.parsed, Weather)


def test_the_stream_helper_parses_a_document(client):
    with client.chat.completions.stream(**REQUEST, response_format=Weather, n=2) as stream:
        list(stream)
        final = stream.get_final_completion()
    assert len(final.choices) == 2 and all(isinstance(choice.message.parsed, Weather) for choice in final.choices)


def test_async_parse(url, key):
    async def run():
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return await client.chat.completions.parse(**REQUEST, response_format=Weather)

    assert isinstance(asyncio.run(run()).choices[0].message.parsed, Weather)


def test_a_schema_as_it_is_sent(client):
    answer = client.chat.completions.create(**REQUEST, response_format=FORMAT)
    Weather.model_validate_json(answer.choices[0].message.content)
