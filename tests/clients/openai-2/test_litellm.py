"""litellm with its `novita/` provider."""

import asyncio
import os

import pytest

# Otherwise litellm fetches prices from the network when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from refusals import GREETING  # noqa: E402
from weather import FORMAT, QUESTION, TOOL, Weather  # noqa: E402
from weir import DEMO  # noqa: E402

EXCEPTIONS = {
    400: litellm.BadRequestError,
    401: litellm.AuthenticationError,
    # litellm has a class for this status only with some of its providers; the status is right all the same.
    403: litellm.APIError,
    404: litellm.NotFoundError,
    429: litellm.RateLimitError,
    500: litellm.InternalServerError,
}
REQUEST = dict(model=f"novita/{DEMO}", messages=GREETING, max_tokens=8, temperature=0, num_retries=0, max_retries=0)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    request = REQUEST | dict(api_base=url, api_key=key)
    whole = litellm.completion(**request)
    chunks = list(litellm.completion(**request, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content and text_of(chunks) == whole.choices[0].message.content
    assert whole.usage.completion_tokens <= 8 and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    rebuilt = litellm.stream_chunk_builder(chunks)
    assert rebuilt.choices[0].message.content == whole.choices[0].message.content
    assert rebuilt.choices[0].finish_reason == whole.choices[0].finish_reason


def test_by_environment(server, monkeypatch):
    monkeypatch.setenv("NOVITA_API_BASE", f"{server.url}/v3/openai")
    monkeypatch.setenv("NOVITA_API_KEY", server.key)
    assert litellm.completion(**REQUEST).choices[0].message.content


def test_async(url, key):
    async def run():
        request = REQUEST | dict(api_base=url, api_key=key)
        whole = await litellm.acompletion(**request)
        return whole, [chunk async for chunk in await litellm.acompletion(**request, stream=True)]

    whole, chunks = asyncio.run(run())
    assert text_of(chunks) == whole.choices[0].message.content


def test_text_completion(url, key):
    answer = litellm.text_completion(
        model=f"novita/{DEMO}", prompt="Once upon a time", max_tokens=8, api_base=url, api_key=key
    )
    assert answer.choices[0].text


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    with pytest.raises(EXCEPTIONS[e.status]) as raised:
        litellm.completion(
            model=f"novita/{e.model}", messages=refused.messages, max_tokens=4, presence_penalty=e.presence_penalty,
            stream=stream, api_base=refused.url, api_key=refused.key, num_retries=0, max_retries=0,
        )
    error = raised.value
    if e.code == "context_length_exceeded":
        assert isinstance(error, litellm.ContextWindowExceededError)
    else:
        assert type(error) is EXCEPTIONS[e.status]
    assert (error.status_code, error.llm_provider) == (e.status, "novita") and e.message in error.message


CALLING = REQUEST | dict(messages=QUESTION, max_tokens=48)


def test_a_stream_adds_up_to_the_regular_call(url, key):
    asked = CALLING | dict(api_base=url, api_key=key, tools=[TOOL], tool_choice="required")
    whole = litellm.completion(**asked).choices[0]
    [call] = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls" and call.id and call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    rebuilt = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True))).choices[0]
    [streamed] = rebuilt.message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert rebuilt.finish_reason == "tool_calls" and streamed.id


@pytest.mark.parametrize("wanted", [FORMAT, Weather], ids=["schema", "class"])
def test_structured_output(url, key, wanted):
    answer = litellm.completion(**CALLING, api_base=url, api_key=key, response_format=wanted)
    Weather.model_validate_json(answer.choices[0].message.content)
