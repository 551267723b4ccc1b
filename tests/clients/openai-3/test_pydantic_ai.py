"""pydantic-ai with its OpenAI provider."""

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from weir import DEMO

SETTINGS = {"max_tokens": 8, "temperature": 0}


def agent(url, key, model=DEMO, **options):
    # By itself it would wait as long as `retry-after` says, and ask again.
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    return Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client)), **options)


def test_a_stream_adds_up_to_the_regular_answer(url, key):
    whole = agent(url, key).run_sync("Say hello.", model_settings=SETTINGS)
    assert whole.output and 0 < whole.usage.output_tokens <= 8
    streamed = agent(url, key).run_stream_sync("Say hello.", model_settings=SETTINGS)
    *_, last = streamed.stream_text()
    assert last == whole.output and streamed.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["regular", "stream"])
def test_refusal(refused, stream):
    e = refused.expected
    asked = agent(refused.url, refused.key, e.model)
    settings = {"max_tokens": 4, "presence_penalty": e.presence_penalty}
    with pytest.raises(ModelHTTPError) as raised:
        if stream:
            list(asked.run_stream_sync(e.text, model_settings=settings).stream_text())
        else:
            asked.run_sync(e.text, model_settings=settings)
    error = raised.value
    assert (error.status_code, error.model_name) == (e.status, e.model)
    assert error.headers["x-request-id"]
    refused.check_error(error.body)
