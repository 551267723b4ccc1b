"""A tool and a document that all clients ask for. Their values are few, so that a small model is soon done."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Weather(BaseModel):
    """The weather in a city."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Oslo", "Bonn"]
    unit: Literal["celsius", "kelvin"]
    rain: bool


QUESTION = [{"role": "user", "content": "What is the weather in Bonn?"}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": Weather.__doc__, "parameters": Weather.model_json_schema(), "strict": True},
}
NAMED = {"type": "function", "function": {"name": "weather"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": Weather.model_json_schema(), "strict": True}}
# The named choice, and that of any tool.
CHOICES = [NAMED, "required"]


def choice_name(choice):
    return choice if isinstance(choice, str) else "named"
