import pytest

from refusals import REFUSALS, Refused
from weir import BINARY, DEMO, DEMO_FILE, MISSING, Weir, model

# One thread each: two runs have a server each at the same time, and with more threads than cores the kernels' threads spin
# while they wait for each other. Tests compare answers, so the model is reproducible, and usage, so the prefix cache is off.
# With four sequences each gets the whole context.
SERVED = model(DEMO, DEMO_FILE) + "threads = 1\nreproducible = true\nsequences = 4\nprefix_cache = \"off\"\n"


@pytest.fixture(scope="session", autouse=True)
def what_the_tests_need():
    for path in (BINARY, DEMO_FILE):
        assert path.exists(), f"{path} is missing: `make test-clients` builds and fetches what the tests need"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("weir")
    made = Weir(home, SERVED + model(MISSING, home / "missing.gguf")).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def narrow_server(tmp_path_factory):
    """A server on which each key may send one request per minute."""
    home = tmp_path_factory.mktemp("narrow")
    made = Weir(home, SERVED, "[limits]\nrequests_per_minute = 1\n").start()
    yield made
    made.stop()


@pytest.fixture
def url(server):
    return f"{server.url}/v1"


@pytest.fixture
def key(server):
    return server.key


@pytest.fixture(scope="session")
def make_refused(server, narrow_server):
    poor = server.new_key("poor", 0)["key"]

    def make(refusal):
        if refusal.caller == "hasty":
            # A new key uses up its only request of this minute.
            key = narrow_server.data("key", "add", narrow_server.account)["key"]
            narrow_server.client(key).completions.create(model=DEMO, prompt="x", max_tokens=1)
            return Refused(refusal, f"{narrow_server.url}/v1", key)
        key = {"rich": server.key, "poor": poor}.get(refusal.caller, refusal.caller)
        return Refused(refusal, f"{server.url}/v1", key)

    return make


@pytest.fixture(params=REFUSALS, ids=lambda refusal: refusal.name)
def refused(request, make_refused):
    return make_refused(request.param)
