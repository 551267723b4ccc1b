"""The exceptions of clients that are built on OpenAI's Python package, and of that package itself."""

import openai

EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}


def check(refused, error):
    """Checks the class of the exception, and that it has everything that the server said."""
    e = refused.expected
    assert isinstance(error, EXCEPTIONS[e.status])
    assert (error.status_code, error.type, error.code, error.param) == (e.status, e.type, e.code, e.param)
    assert e.message in error.message
    assert error.request_id and error.request_id == error.response.headers["x-request-id"]
    refused.check_error(error.body)
    refused.check_body(error.response.json())
    retry_after = error.response.headers.get("retry-after")
    assert (retry_after is not None and 1 <= int(retry_after) <= 60) == (e.status == 429)
