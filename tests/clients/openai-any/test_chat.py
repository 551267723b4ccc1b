"""OpenAI's own Python client."""

import asyncio

import pytest
from openai import AsyncOpenAI, OpenAI

from refusals import GREETING
from weir import DEMO

REQUEST = dict(model=DEMO, messages=GREETING, max_tokens=12, temperature=0)
# The client's stream helper treats `length` as a failure, so common letters end the text.
ENDS = dict(model=DEMO, messages=GREETING, max_tokens=64, stop=["e", "a", "o", " "])


@pytest.fixture
def client(url, key):
    return OpenAI(base_url=url, api_key=key, max_retries=0)


def run_async(url, key, work):
    async def run():
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return await work(client)

    return asyncio.run(run())


def test_a_stream_adds_up_to_the_regular_answer(client):
    answer = client.chat.completions.create(**REQUEST)
    chunks = list(client.chat.completions.create(**REQUEST, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == answer.choices[0].message.content
    assert chunks[-1].usage == answer.usage and answer.usage.completion_tokens <= 12


def test_legacy_completions(client):
    request = dict(model=DEMO, prompt="Once upon a time", max_tokens=8, temperature=0)
    [choice] = client.completions.create(**request).choices
    chunks = list(client.completions.create(**request, stream=True))
    assert choice.text and "".join(chunk.choices[0].text for chunk in chunks) == choice.text


def test_async(client, url, key):
    async def work(client):
        answer = await client.chat.completions.create(**REQUEST)
        chunks = [chunk async for chunk in await client.chat.completions.create(**REQUEST, stream=True)]
        return answer.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    whole, streamed = run_async(url, key, work)
    assert whole == streamed == client.chat.completions.create(**REQUEST).choices[0].message.content


@pytest.mark.parametrize("n", [1, 2])
def test_the_stream_helper(client, n):
    with client.chat.completions.stream(**ENDS, n=n, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert [choice.index for choice in final.choices] == list(range(n))
    assert all(choice.finish_reason == "stop" and choice.message.role == "assistant" for choice in final.choices)
    assert final.usage.completion_tokens > 0
    contents = [event for event in events if event.type == "content.done"]
    assert sorted(event.content for event in contents) == sorted(choice.message.content for choice in final.choices if choice.message.content)


def test_the_async_stream_helper(url, key):
    async def work(client):
        async with client.chat.completions.stream(**ENDS, n=2) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_completion()

    assert len(run_async(url, key, work).choices) == 2


def test_log_probabilities_of_the_stream_helper(client):
    with client.chat.completions.stream(**ENDS, logprobs=True, top_logprobs=2) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    content = final.choices[0].logprobs.content
    assert content and all(len(token.top_logprobs) == 2 for token in content)
    [done] = [event for event in events if event.type == "logprobs.content.done"]
    assert [token.token for token in done.content] == [token.token for token in content]


def test_a_raw_response(client):
    raw = client.chat.completions.with_raw_response.create(**REQUEST)
    assert raw.parse().choices[0].message.content
    assert raw.request_id and raw.headers["x-request-id"] == raw.request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0 and raw.headers["openai-version"] == "2020-10-01"


def test_a_streamed_raw_response(client):
    with client.chat.completions.with_streaming_response.create(**REQUEST, stream=True) as raw:
        assert raw.request_id
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_the_request_id_of_an_answer(client):
    assert client.chat.completions.create(**REQUEST)._request_id


def test_models(client):
    [model] = [model for model in client.models.list() if model.id == DEMO]
    assert model.object == "model" and model.owned_by and client.models.retrieve(DEMO) == model
