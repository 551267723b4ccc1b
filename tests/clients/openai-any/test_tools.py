"""OpenAI's own Python client: tools and structured outputs."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from weather import CHOICES, FORMAT, NAMED, QUESTION, TOOL, Weather, choice_name
from weir import DEMO

REQUEST = dict(model=DEMO, messages=QUESTION, max_tokens=64, temperature=0)


@pytest.fixture
def client(url, key):
    return OpenAI(base_url=url, api_key=key, max_retries=0)


@pytest.mark.parametrize("choice", CHOICES, ids=choice_name)
def test_a_tool_is_called(client, choice):
    answer = client.chat.completions.create(**REQUEST, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert call.id and (call.type, call.function.name) == ("function", "weather")
    Weather.model_validate_json(call.function.arguments)


@pytest.mark.parametrize("choice", CHOICES, ids=choice_name)
def test_fragments_add_up_to_the_regular_call(client, choice):
    request = REQUEST | dict(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    [whole] = client.chat.completions.create(**request).choices[0].message.tool_calls
    chunks = list(client.chat.completions.create(**request, stream=True))
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    first, *rest = fragments
    assert first.id and (first.type, first.function.name, first.index) == ("function", "weather", 0)
    assert rest and all((call.id, call.type, call.function.name, call.index) == (None, None, None, 0) for call in rest)
    assert "".join(call.function.arguments or "" for call in fragments) == whole.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_result_of_a_tool(client):
    """The second round: the model reads what the tool said."""
    [call] = client.chat.completions.create(**REQUEST, tools=[TOOL], tool_choice=NAMED).choices[0].message.tool_calls
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Rain, 12 degrees."},
    ]
    request = REQUEST | dict(messages=messages, max_tokens=8)
    answer = client.chat.completions.create(**request, tools=[TOOL], tool_choice="none")
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_parse_a_tool_call(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    answer = client.chat.completions.parse(**REQUEST, tools=[tool], tool_choice=NAMED)
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


@pytest.mark.parametrize("n", [1, 2])
def test_the_stream_helper_parses_a_tool_call(client, n):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    with client.chat.completions.stream(**REQUEST, tools=[tool], tool_choice=NAMED, n=n) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert len(done) == len(final.choices) == n and all(event.name == "weather" for event in done)
    for choice in final.choices:
        assert isinstance(choice.message.tool_calls[0].function.parsed_arguments, Weather)


def test_parse_a_document(client):
    answer = client.chat.completions.parse(**REQUEST, response_format=Weather)
    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert answer.choices[0].finish_reason == "stop"


def test_parse_a_document_by_its_former_name(client):
    assert isinstance(client.beta.chat.completions.parse(**REQUEST, response_format=Weather).choices[0].message.parsed, Weather)


@pytest.mark.parametrize("n", [1, 2])
def test_the_stream_helper_parses_a_document(client, n):
    with client.chat.completions.stream(**REQUEST, response_format=Weather, n=n) as stream:
        list(stream)
        final = stream.get_final_completion()
    assert len(final.choices) == n and all(isinstance(choice.message.parsed, Weather) for choice in final.choices)


def test_async_parse(url, key):
    async def run():
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return await client.chat.completions.parse(**REQUEST, response_format=Weather)

    assert isinstance(asyncio.run(run()).choices[0].message.parsed, Weather)


def test_a_schema_as_it_is_sent(client):
    answer = client.chat.completions.create(**REQUEST, response_format=FORMAT)
    Weather.model_validate_json(answer.choices[0].message.content)
