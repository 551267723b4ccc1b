"""A tool and a document schema for the tests of all clients. Both are short with few values, so that a small model reads
and writes them quickly."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Weather(BaseModel):
    """The weather."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Oslo", "Bonn"]
    rain: bool


ASKED = "Is it raining in Bonn?"
QUESTION = [{"role": "user", "content": ASKED}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": Weather.__doc__, "parameters": Weather.model_json_schema(), "strict": True},
}
NAMED = {"type": "function", "function": {"name": "weather"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": Weather.model_json_schema(), "strict": True}}
