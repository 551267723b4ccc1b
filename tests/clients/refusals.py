"""Weir's refusals, with the facts that each client must be able to tell its user: one table for all clients."""

from dataclasses import dataclass

from weir import DEMO, MISSING

GREETING = [{"role": "user", "content": "Say hello."}]


@dataclass(frozen=True)
class Refusal:
    name: str
    status: int
    reason: str
    type: str
    code: str | None
    message: str
    param: str | None = None
    # The key: "rich", "poor" and "hasty" stand for keys of the test server; any other text is sent as a key.
    caller: str = "rich"
    model: str = DEMO
    text: str = "Say hello."
    presence_penalty: float = 0


REFUSALS = [
    Refusal("400", 400, "INVALID_REQUEST_BODY", "invalid_request_error", None, "presence_penalty", "presence_penalty",
            presence_penalty=3),
    Refusal("400-context", 400, "INVALID_REQUEST_BODY", "invalid_request_error", "context_length_exceeded",
            "This model's maximum context length is 8192", "messages", text="river " * 9000),
    Refusal("401", 401, "INVALID_API_KEY", "authentication_error", "invalid_api_key", "key", caller="sk_wrong_key"),
    Refusal("403", 403, "NOT_ENOUGH_BALANCE", "insufficient_quota", "insufficient_balance", "balance", caller="poor"),
    Refusal("404", 404, "MODEL_NOT_FOUND", "invalid_request_error", "model_not_found", "model not found: no/such",
            "model", model="no/such"),
    Refusal("429", 429, "RATE_LIMIT_EXCEEDED", "requests", "rate_limit_exceeded", "rate limit", caller="hasty"),
    Refusal("500", 500, "MODEL_NOT_AVAILABLE", "server_error", "model_not_available", "not available", model=MISSING),
]


@dataclass(frozen=True)
class Refused:
    """A refusal, with the URL and the key that lead to it."""

    expected: Refusal
    url: str
    key: str

    @property
    def status(self):
        return self.expected.status

    @property
    def model(self):
        return self.expected.model

    @property
    def messages(self):
        return [{"role": "user", "content": self.expected.text}]

    @property
    def presence_penalty(self):
        return self.expected.presence_penalty

    def check_body(self, body):
        """Checks the whole body of the answer: Novita's fields, then OpenAI's object."""
        e = self.expected
        assert (body["code"], body["reason"]) == (e.status, e.reason)
        assert e.message in body["message"]
        self.check_error(body["error"])
        assert body["error"]["message"] == body["message"]

    def check_error(self, error):
        """Checks OpenAI's error object, the only part that most clients keep."""
        e = self.expected
        assert (error["type"], error["param"], error["code"]) == (e.type, e.param, e.code)
        assert e.message in error["message"]
