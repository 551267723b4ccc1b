"""litellm with its `novita/` provider: tools and structured outputs."""

import os

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from weather import CHOICES, FORMAT, QUESTION, TOOL, Weather, choice_name  # noqa: E402
from weir import DEMO  # noqa: E402


@pytest.fixture
def request_(url, key):
    return dict(
        model=f"novita/{DEMO}", messages=QUESTION, max_tokens=64, temperature=0, num_retries=0, max_retries=0,
        api_base=url, api_key=key,
    )


@pytest.mark.parametrize("choice", CHOICES, ids=choice_name)
def test_a_stream_adds_up_to_the_regular_call(request_, choice):
    asked = request_ | dict(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    whole = litellm.completion(**asked).choices[0]
    [call] = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls" and call.id and call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    rebuilt = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True))).choices[0]
    [streamed] = rebuilt.message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert rebuilt.finish_reason == "tool_calls" and streamed.id


@pytest.mark.parametrize("wanted", [FORMAT, Weather], ids=["schema", "class"])
def test_structured_output(request_, wanted):
    answer = litellm.completion(**request_, response_format=wanted)
    Weather.model_validate_json(answer.choices[0].message.content)
