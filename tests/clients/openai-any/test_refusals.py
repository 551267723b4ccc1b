"""OpenAI's own Python client: each refusal is the right exception, with all that the server said."""

import asyncio

import openai
import pytest

from refusals import REFUSALS

EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}


def check(refused, error):
    e = refused.expected
    assert type(error) is EXCEPTIONS[e.status]
    assert (error.status_code, error.type, error.code, error.param) == (e.status, e.type, e.code, e.param)
    assert e.message in error.message
    assert error.request_id and error.request_id == error.response.headers["x-request-id"]
    refused.check_error(error.body)
    refused.check_body(error.response.json())
    retry_after = error.response.headers.get("retry-after")
    assert (retry_after is not None and 1 <= int(retry_after) <= 60) == (e.status == 429)


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
