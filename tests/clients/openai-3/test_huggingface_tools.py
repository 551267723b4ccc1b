"""huggingface_hub's InferenceClient: tools and structured outputs."""

import pytest
from huggingface_hub import InferenceClient

from weather import FORMAT, NAMED, QUESTION, TOOL, Weather
from weir import DEMO

REQUEST = dict(model=DEMO, messages=QUESTION, max_tokens=64, temperature=0)


@pytest.fixture
def client(url, key):
    return InferenceClient(base_url=url, api_key=key)


def test_a_stream_adds_up_to_the_regular_call(client):
    # It has no `parallel_tool_calls`, and only a named tool is called once.
    request = REQUEST | dict(tools=[TOOL], tool_choice=NAMED)
    [whole] = client.chat_completion(**request).choices
    call = whole.message.tool_calls[0]
    assert whole.finish_reason == "tool_calls" and call.id and call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    chunks = list(client.chat_completion(**request, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or [] if call.index == 0]
    assert "".join(each.function.arguments or "" for each in calls) == whole.message.tool_calls[0].function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_structured_output(client):
    [choice] = client.chat_completion(**REQUEST, response_format=FORMAT).choices
    Weather.model_validate_json(choice.message.content)
