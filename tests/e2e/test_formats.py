"""Tools, documents and reproducible models, with OpenAI's own client."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from jsonschema import Draft202012Validator

from weir import DEMO, DEMO_FILE, GEMMA, REPRODUCIBLE, model

QUESTION = [{"role": "user", "content": "Is it raining in Bonn?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bonn"]}, "rain": {"type": "boolean"}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name, parameters=PARAMETERS):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def check(schema, text):
    Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "there"}}], ids=["required", "named"])
def test_a_call(client, choice):
    request = dict(model=REPRODUCIBLE, messages=QUESTION, max_tokens=48, temperature=0, tools=[tool("here"), tool("there")], tool_choice=choice)
    [answer] = client.chat.completions.create(**request).choices
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    [call] = answer.message.tool_calls
    assert call.function.name == "there" or choice == "required" and call.function.name == "here"
    check(PARAMETERS, call.function.arguments)
    chunks = list(client.chat.completions.create(**request, stream=True))
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert fragments[0].function.name == call.function.name
    assert "".join(part.function.arguments or "" for part in fragments) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_document(client):
    request = dict(messages=QUESTION, max_tokens=48, temperature=0, response_format=schema_format(PARAMETERS))
    [chat] = client.chat.completions.create(model=DEMO, **request).choices
    assert chat.finish_reason == "stop"
    check(PARAMETERS, chat.message.content)
    # A model without a chat template supports documents in completions.
    request = dict(prompt="The weather in Bonn, as JSON:\n", max_tokens=64, temperature=0, extra_body={"response_format": schema_format(PARAMETERS)})
    [plain] = client.completions.create(model=GEMMA, **request).choices
    assert plain.finish_reason == "stop"
    check(PARAMETERS, plain.text)


def test_what_cannot_be_enforced_is_named(client):
    broken = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
    strict = tool("there", broken)
    strict["function"]["strict"] = True
    for fields, param in [
        ({"tools": [tool("here"), strict], "tool_choice": "required"}, "tools.1.function.parameters"),
        ({"response_format": schema_format(broken)}, "response_format.json_schema.schema"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=DEMO, messages=QUESTION, max_tokens=4, **fields)
        assert refused.value.param == param
    # Without `strict`, the broken pattern is left out, and a header says so.
    request = dict(model=DEMO, messages=QUESTION, max_tokens=4, tools=[tool("there", broken)], tool_choice="required")
    answer = client.chat.completions.with_raw_response.create(**request)
    assert answer.headers["x-weir-schema-relaxed"] == "/tools/0/function/parameters/properties/a/pattern"


def test_a_reproducible_model_repeats_itself(make_weir):
    """The same request and seed get the same answer, alone and beside other requests."""
    client = make_weir(model(DEMO, DEMO_FILE) + "reproducible = true\nthreads = 1\n").start().client()

    def ask(seed):
        request = dict(model=DEMO, messages=QUESTION, max_tokens=12, temperature=1.5, logprobs=True, seed=seed)
        [choice] = client.chat.completions.create(**request).choices
        return choice.message.content, [(entry.token, entry.logprob) for entry in choice.logprobs.content]

    alone = ask(1)
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(ask, [2, 1, 3, 1]))
    assert beside[1] == beside[3] == alone
    assert len({text for text, _ in beside}) == 3, "another seed is another answer"
