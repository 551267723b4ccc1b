import pytest

from refusals import REFUSALS, Refused
from weir import BINARY, DEMO, DEMO_FILE, MISSING, Weir, model

# One thread each: the servers of two runs stand beside each other, and with more threads than cores the kernels' threads
# wait for each other, spinning.
# Answers are compared with each other, and so is their usage. Four sequences, so that each has its whole context.
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
    """Each key may make one request a minute."""
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
            # A new key, and its only request of this minute.
            key = narrow_server.data("key", "add", narrow_server.account)["key"]
            narrow_server.client(key).completions.create(model=DEMO, prompt="x", max_tokens=1)
            return Refused(refusal, f"{narrow_server.url}/v1", key)
        key = {"rich": server.key, "poor": poor}.get(refusal.caller, refusal.caller)
        return Refused(refusal, f"{server.url}/v1", key)

    return make


@pytest.fixture(params=REFUSALS, ids=lambda refusal: refusal.name)
def refused(request, make_refused):
    return make_refused(request.param)
