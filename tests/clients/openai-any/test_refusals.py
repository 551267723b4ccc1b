"""OpenAI's own Python client: each refusal raises the right exception, with everything that the server said."""

import asyncio

import openai
import pytest

from raised import EXCEPTIONS, check
from refusals import REFUSALS


def request(refused, stream):
    return dict(
        model=refused.model, messages=refused.messages, max_tokens=4, presence_penalty=refused.presence_penalty, stream=stream
    )


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    client = openai.OpenAI(base_url=refused.url, api_key=refused.key, max_retries=0)
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(**request(refused, stream))
    check(refused, error.value)


def test_refusal_of_the_stream_helper(refused):
    client = openai.OpenAI(base_url=refused.url, api_key=refused.key, max_retries=0)
    asked = {name: value for name, value in request(refused, True).items() if name != "stream"}
    with pytest.raises(openai.APIStatusError) as error, client.chat.completions.stream(**asked) as stream:
        list(stream)
    check(refused, error.value)


def test_async_refusal(refused):
    async def run():
        async with openai.AsyncOpenAI(base_url=refused.url, api_key=refused.key, max_retries=0) as client:
            await client.chat.completions.create(**request(refused, False))

    with pytest.raises(openai.APIStatusError) as error:
        asyncio.run(run())
    check(refused, error.value)


def test_the_table_covers_what_clients_tell_apart():
    assert {refusal.status for refusal in REFUSALS} == set(EXCEPTIONS)
