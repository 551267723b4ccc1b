"""llama-index's Novita class. Its address is a constant, so another one is assigned after construction."""

import asyncio

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.novita import NovitaAI

from weir import DEMO

EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}
MESSAGES = [ChatMessage(role="user", content="Say hello.")]


def novita(url, key, model=DEMO, **options):
    llm = NovitaAI(model=model, api_key=key, temperature=0, max_tokens=8, max_retries=0, **options)
    llm.api_base = url
    return llm


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    whole = novita(url, key).chat(MESSAGES).message.content
    *_, last = novita(url, key).stream_chat(MESSAGES)
    assert whole and last.message.content == whole
    assert novita(url, key).complete("Say hello.").text == whole


def test_under_novitas_own_path(server, key):
    assert novita(f"{server.url}/v3/openai", key).chat(MESSAGES).message.content


def test_async(url, key):
    async def run():
        whole = await novita(url, key).achat(MESSAGES)
        return whole.message.content, "".join([part.delta or "" async for part in await novita(url, key).astream_chat(MESSAGES)])

    whole, streamed = asyncio.run(run())
    assert whole and streamed == whole


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    llm = novita(refused.url, refused.key, e.model, additional_kwargs={"presence_penalty": e.presence_penalty})
    messages = [ChatMessage(role="user", content=e.text)]
    with pytest.raises(EXCEPTIONS[e.status]) as raised:
        list(llm.stream_chat(messages)) if stream else llm.chat(messages)
    error = raised.value
    assert (error.status_code, error.code, error.param) == (e.status, e.code, e.param) and e.message in error.message
    assert error.request_id
    refused.check_body(error.response.json())
