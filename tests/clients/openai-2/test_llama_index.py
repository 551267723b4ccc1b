"""llama-index's Novita class. Its address is a constant, so it is replaced after construction."""

import asyncio

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.novita import NovitaAI

from raised import check
from weather import ASKED, Weather
from weir import DEMO

MESSAGES = [ChatMessage(role="user", content="Say hello.")]


def novita(url, key, model=DEMO, max_tokens=8, **options):
    llm = NovitaAI(model=model, api_key=key, temperature=0, max_tokens=max_tokens, max_retries=0, **options)
    llm.api_base = url
    # The class believes only some of Novita's models capable of calling functions.
    llm.is_function_calling_model = True
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
    with pytest.raises(openai.APIStatusError) as raised:
        list(llm.stream_chat(messages)) if stream else llm.chat(messages)
    check(refused, raised.value)


def test_a_stream_adds_up_to_the_regular_call(url, key):
    llm = novita(url, key, max_tokens=48)
    tool = FunctionTool.from_defaults(lambda **_: None, name="weather", description="The weather", fn_schema=Weather)
    asked = dict(user_msg=ASKED, tool_required=True)
    answer = llm.chat_with_tools([tool], **asked)
    [call] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather" and call.tool_id
    Weather.model_validate(call.tool_kwargs)
    *_, last = llm.stream_chat_with_tools([tool], **asked)
    [streamed] = llm.get_tool_calls_from_response(last)
    assert (streamed.tool_name, streamed.tool_kwargs) == (call.tool_name, call.tool_kwargs)


def test_structured_output(url, key):
    """Structured output by a tool call."""
    assert isinstance(novita(url, key, max_tokens=48).structured_predict(Weather, PromptTemplate(ASKED)), Weather)
