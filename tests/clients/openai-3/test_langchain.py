"""langchain-openai."""

import asyncio

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAI

from weir import DEMO

EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}


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
    with pytest.raises(EXCEPTIONS[e.status]) as raised:
        list(llm.stream(e.text)) if stream else llm.invoke(e.text)
    error = raised.value
    assert (error.status_code, error.code, error.param) == (e.status, e.code, e.param) and e.message in error.message
    assert error.request_id
    refused.check_body(error.response.json())
