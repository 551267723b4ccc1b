"""huggingface_hub's InferenceClient, with Weir's address and through its Novita provider."""

import asyncio

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import PROVIDERS
from huggingface_hub.inference._providers._common import HARDCODED_MODEL_INFERENCE_MAPPING

from refusals import GREETING
from weather import FORMAT, QUESTION, TOOL, Weather
from weir import DEMO

REQUEST = dict(model=DEMO, messages=GREETING, max_tokens=8, temperature=0)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def check(client):
    whole = client.chat_completion(**REQUEST)
    chunks = list(client.chat_completion(**REQUEST, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content and text_of(chunks) == whole.choices[0].message.content
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens <= 8


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    check(InferenceClient(base_url=url, api_key=key))


def test_the_openai_spelling(url, key):
    assert InferenceClient(base_url=url, api_key=key).chat.completions.create(**REQUEST).choices[0].message.content


def test_its_novita_provider(server, key, monkeypatch):
    """The provider's address is a constant, and the client would ask the hub for the provider's models; both are replaced."""
    monkeypatch.setattr(PROVIDERS["novita"]["conversational"], "base_url", server.url)
    served = InferenceProviderMapping(
        provider="novita", hf_model_id=DEMO, providerId=DEMO, status="live", task="conversational"
    )
    monkeypatch.setitem(HARDCODED_MODEL_INFERENCE_MAPPING, "novita", {DEMO: served})
    check(InferenceClient(provider="novita", api_key=key))


def test_async(url, key):
    async def run():
        client = AsyncInferenceClient(base_url=url, api_key=key)
        whole = await client.chat_completion(**REQUEST)
        return whole, [chunk async for chunk in await client.chat_completion(**REQUEST, stream=True)]

    whole, chunks = asyncio.run(run())
    assert text_of(chunks) == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    client = InferenceClient(base_url=refused.url, api_key=refused.key)
    with pytest.raises(BadRequestError if e.status == 400 else HfHubHTTPError) as raised:
        answer = client.chat_completion(
            model=e.model, messages=refused.messages, max_tokens=4, presence_penalty=e.presence_penalty, stream=stream
        )
        list(answer)
    error = raised.value
    assert error.response.status_code == e.status and error.request_id == error.response.headers["x-request-id"]
    assert e.message in error.server_message and e.message in str(error)
    if not stream:
        refused.check_body(error.response.json())


CALLING = dict(model=DEMO, messages=QUESTION, max_tokens=48, temperature=0)


def test_a_stream_adds_up_to_the_regular_call(url, key):
    client = InferenceClient(base_url=url, api_key=key)
    request = CALLING | dict(tools=[TOOL], tool_choice="required")
    [whole] = client.chat_completion(**request).choices
    [call] = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls" and call.id and call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    chunks = list(client.chat_completion(**request, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(each.function.arguments or "" for each in calls) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_structured_output(url, key):
    client = InferenceClient(base_url=url, api_key=key)
    [choice] = client.chat_completion(**CALLING, response_format=FORMAT).choices
    Weather.model_validate_json(choice.message.content)
