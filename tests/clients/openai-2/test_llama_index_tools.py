"""llama-index's Novita class: tools and structured outputs, which it does by a tool."""

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.novita import NovitaAI

from weather import Weather
from weir import DEMO

QUESTION = "What is the weather in Bonn?"


@pytest.fixture
def llm(url, key):
    llm = NovitaAI(model=DEMO, api_key=key, temperature=0, max_tokens=64, max_retries=0)
    llm.api_base = url
    # It knows only some of Novita's models to be able to.
    llm.is_function_calling_model = True
    return llm


def test_a_stream_adds_up_to_the_regular_call(llm):
    tool = FunctionTool.from_defaults(lambda **_: None, name="weather", description="The weather", fn_schema=Weather)
    asked = dict(user_msg=QUESTION, tool_required=True, allow_parallel_tool_calls=False)
    answer = llm.chat_with_tools([tool], **asked)
    [call] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather" and call.tool_id
    Weather.model_validate(call.tool_kwargs)
    *_, last = llm.stream_chat_with_tools([tool], **asked)
    [streamed] = llm.get_tool_calls_from_response(last)
    assert (streamed.tool_name, streamed.tool_kwargs) == (call.tool_name, call.tool_kwargs)


def test_structured_output(llm):
    assert isinstance(llm.structured_predict(Weather, PromptTemplate(QUESTION)), Weather)
