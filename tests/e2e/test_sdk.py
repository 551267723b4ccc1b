"""OpenAI's own client, against the real models."""

import openai
import pytest

from weir import CORRUPT, DEMO, GEMMA, MISSING, REPRODUCIBLE

GREETING = [{"role": "user", "content": "Say hello."}]


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_chat(client):
    answer = client.chat.completions.create(model=DEMO, messages=GREETING, max_tokens=16, temperature=0)
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == DEMO
    [choice] = answer.choices
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 16
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_adds_up_to_the_regular_answer(client):
    request = dict(model=REPRODUCIBLE, messages=GREETING, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1 and len({chunk.created for chunk in chunks}) == 1
    assert [chunk.choices[0].delta.role for chunk in chunks[:-1]].count("assistant") == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-2]] == [None] * (len(chunks) - 2)
    assert chunks[-1].choices == [] and chunks[-1].usage.to_dict() == whole.usage.to_dict()
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_without_include_usage_there_is_none(client):
    chunks = list(client.chat.completions.create(model=DEMO, messages=GREETING, max_tokens=4, stream=True))
    assert all(chunk.choices and "usage" not in chunk.to_dict() for chunk in chunks)


def test_the_stream_helper(client):
    # The client's stream helper treats `length` as a failure, so common letters end both texts.
    ends = ["e", "a", "o", " "]
    with client.chat.completions.stream(model=DEMO, messages=GREETING, max_tokens=64, n=2, stop=ends) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert len(final.choices) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_n_choices_share_their_prompt(client, stream):
    request = dict(model=DEMO, messages=GREETING, max_tokens=8, n=3, seed=1)
    one = client.chat.completions.create(**request | {"n": 1})
    if stream:
        chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
        indices, usage = {chunk.choices[0].index for chunk in chunks if chunk.choices}, chunks[-1].usage
    else:
        answer = client.chat.completions.create(**request)
        indices, usage = {choice.index for choice in answer.choices}, answer.usage
    assert indices == {0, 1, 2}
    assert usage.prompt_tokens == one.usage.prompt_tokens
    assert 3 <= usage.completion_tokens <= 24


def test_a_seed_repeats_the_text(client):
    request = dict(model=REPRODUCIBLE, prompt="Once upon a time", max_tokens=12, seed=7, temperature=1)
    first, second = (client.completions.create(**request).choices[0].text for _ in range(2))
    assert first == second


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_not_part_of_the_text(client, stream):
    request = dict(model=DEMO, prompt="1, 2, 3, 4, 5,", max_tokens=40, temperature=0, stop=[" 9", "9"])
    if stream:
        chunks = list(client.completions.create(**request, stream=True))
        text, reason = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        [choice] = client.completions.create(**request).choices
        text, reason = choice.text, choice.finish_reason
    assert "9" not in text and "8" in text and reason == "stop"


def test_all_roles_and_parts(client):
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": "Name a "}, {"type": "text", "text": "river."}], "name": "ann"},
        {"role": "assistant", "content": "The Rhine."},
        {"role": "user", "content": "Another one."},
    ]
    assert client.chat.completions.create(model=DEMO, messages=messages, max_tokens=8).choices[0].message.content


@pytest.mark.parametrize("model", [DEMO, GEMMA])
@pytest.mark.parametrize(
    "prompt, texts", [("A weir is", 1), (["A weir is", "Water flows"], 2), ([1, 2, 3], 1), ([[1, 2, 3], [4, 5]], 2)],
)
def test_all_forms_of_a_prompt(client, model, prompt, texts):
    answer = client.completions.create(model=model, prompt=prompt, max_tokens=4, n=2, temperature=1, seed=3)
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == list(range(texts * 2))
    assert answer.usage.completion_tokens <= texts * 8
    if prompt == [[1, 2, 3], [4, 5]]:
        assert answer.usage.prompt_tokens == 5


def test_sampling_parameters(client):
    answer = client.chat.completions.create(
        model=DEMO, messages=GREETING, max_tokens=8, temperature=0.8, top_p=0.9, presence_penalty=0.5,
        frequency_penalty=0.5, logit_bias={"42": -100}, seed=1,
        extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    assert answer.usage.completion_tokens > 0


def test_models(weir):
    anybody = weir.client(key="nobody")
    models = {model.id: model for model in anybody.models.list()}
    assert set(models) == {DEMO, REPRODUCIBLE, GEMMA, MISSING, CORRUPT}
    assert [models[name].status for name in (DEMO, REPRODUCIBLE, GEMMA, MISSING, CORRUPT)] == [1, 1, 1, 0, 0]
    assert models[DEMO].context_size == 8192 and models[DEMO].input_token_price_per_m == 200
    assert anybody.models.retrieve(DEMO).id == DEMO  # the client sends %2F


def refused(error, status, kind, code, param=None):
    body = error.value.response.json()
    assert (error.value.status_code, error.value.type, error.value.code) == (status, kind, code)
    assert error.value.param == param
    assert body["code"] == status and body["message"] == body["error"]["message"] and body["reason"].isupper()
    assert error.value.response.headers["x-request-id"]
    return body["reason"]


def test_401(weir):
    for key in ("wrong", "sk_AAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "sk_", "-"):
        with pytest.raises(openai.AuthenticationError) as error:
            weir.client(key).chat.completions.create(model=DEMO, messages=GREETING)
        assert refused(error, 401, "authentication_error", "invalid_api_key") == "INVALID_API_KEY"


def test_403(weir):
    poor = weir.new_key("poor", 0)["key"]
    with pytest.raises(openai.PermissionDeniedError) as error:
        weir.client(poor).chat.completions.create(model=DEMO, messages=GREETING)
    assert refused(error, 403, "insufficient_quota", "insufficient_balance") == "NOT_ENOUGH_BALANCE"
    assert error.value.response.json()["metadata"]["reason"] == "balance_too_low"
    assert weir.usage("poor") == []


def test_404(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no/such", messages=GREETING)
    assert refused(error, 404, "invalid_request_error", "model_not_found", "model") == "MODEL_NOT_FOUND"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")


@pytest.mark.parametrize("name", [MISSING, CORRUPT])
def test_a_model_that_is_not_available(weir, client, name):
    with pytest.raises(openai.InternalServerError) as error:
        client.completions.create(model=name, prompt="x")
    assert refused(error, 500, "server_error", "model_not_available") == "MODEL_NOT_AVAILABLE"
    assert ".gguf" not in error.value.response.text
    assert name in weir.log.read_text()


def test_chat_with_a_model_that_has_no_template(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=GEMMA, messages=GREETING)
    assert "does not support feature: chat" in error.value.message


@pytest.mark.parametrize(
    "change, param",
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
        ({"extra_body": {"min_p": 1.5}}, "min_p"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
    ],
)
def test_400_names_the_field(client, change, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": DEMO, "messages": GREETING} | change)
    assert error.value.response.json()["reason"] == "INVALID_REQUEST_BODY"
    assert error.value.param == param, error.value.response.text


def test_400_for_a_token_that_does_not_exist(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=DEMO, prompt=[1, 49_152])
    assert error.value.param.startswith("prompt")


def test_400_for_a_prompt_longer_than_the_context(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=DEMO, prompt="river " * 9000)
    assert error.value.response.json()["message"].startswith("This model's maximum context length is 8192")
    assert error.value.code == "context_length_exceeded"


def test_429_requests_per_minute(make_weir):
    weir = make_weir(settings="[limits]\nrequests_per_minute = 2\n").start()
    client = weir.client()
    for _ in range(2):
        raw = client.with_raw_response.completions.create(model=DEMO, prompt="x", max_tokens=1)
    assert raw.headers["x-ratelimit-limit-requests"] == "2" and raw.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as error:
        client.completions.create(model=DEMO, prompt="x", max_tokens=1)
    assert refused(error, 429, "requests", "rate_limit_exceeded") == "RATE_LIMIT_EXCEEDED"
    assert 1 <= int(error.value.response.headers["retry-after"]) <= 30


def test_429_concurrent_requests(make_weir):
    weir = make_weir(settings="[limits]\nconcurrent_requests = 1\n").start()
    client = weir.client()
    with client.completions.create(model=DEMO, prompt="x", max_tokens=2000, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as error:
            client.completions.create(model=DEMO, prompt="x", max_tokens=1)
        assert refused(error, 429, "requests", "rate_limit_exceeded") == "RATE_LIMIT_EXCEEDED"
