"""A small model at a high temperature writes only documents that the schema allows: 200 requests with 200 seeds."""

import json
from concurrent.futures import ThreadPoolExecutor

from jsonschema import Draft202012Validator

from weir import DEMO

SEEDS = 200
AT_ONCE = 32

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 4},
        "kind": {"enum": ["cat", "dog", None]},
        "kg": {"type": "number", "exclusiveMinimum": 0, "maximum": 9.5},
        "owner": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{3}$"}, "known": {"type": "boolean"}},
            "required": ["known"],
            "additionalProperties": False,
        },
        "visits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"day": {"$ref": "#/$defs/day"}},
                "required": ["day"],
                "additionalProperties": False,
            },
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["name", "kind", "owner", "visits"],
    "additionalProperties": False,
    "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 7}},
}
REQUEST = dict(
    model=DEMO,
    prompt="A pet of the clinic, as JSON:\n",
    max_tokens=600,
    temperature=1.5,
    extra_body={"response_format": {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}}},
)


def test_two_hundred_documents_at_a_high_temperature_are_valid(client):
    def document(seed):
        [choice] = client.completions.create(**REQUEST, seed=seed).choices
        assert choice.finish_reason == "stop", choice.text
        return choice.text

    with ThreadPoolExecutor(AT_ONCE) as pool:
        texts = list(pool.map(document, range(SEEDS)))
    validator = Draft202012Validator(SCHEMA)
    pets = [json.loads(text) for text in texts]
    wrong = {text: errors for text, pet in zip(texts, pets) if (errors := [error.message for error in validator.iter_errors(pet)])}
    assert len(texts) == SEEDS and not wrong
    assert not validator.is_valid(pets[0] | {"visits": []})
    # Documents differ, and some lack the optional fields.
    assert len(set(texts)) > SEEDS * 9 / 10
    assert {"kg" in pet for pet in pets} == {"zip" in pet["owner"] for pet in pets} == {True, False}
