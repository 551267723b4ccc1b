import pytest

from weir import BINARY, CORRUPT, DEMO, DEMO_FILE, GEMMA, GEMMA_FILE, MISSING, REPRODUCIBLE, Weir, model


@pytest.fixture(scope="session", autouse=True)
def what_the_tests_need():
    for path in (BINARY, DEMO_FILE, GEMMA_FILE):
        assert path.exists(), f"{path} is missing: `make e2e` builds and fetches what the tests need"


@pytest.fixture
def make_weir(tmp_path):
    """Makes servers in this test's directory, and stops them at its end."""
    made = []

    def make(models=model(DEMO, DEMO_FILE), settings="", directory="weir"):
        home = tmp_path / directory
        home.mkdir(exist_ok=True)
        made.append(Weir(home, models, settings))
        return made[-1]

    yield make
    for weir in made:
        weir.stop()


@pytest.fixture(scope="session")
def weir(tmp_path_factory):
    """One server for all tests that don't need their own, with two models and two that can't be loaded."""
    home = tmp_path_factory.mktemp("weir")
    corrupt = home / "corrupt.gguf"
    corrupt.write_bytes(DEMO_FILE.read_bytes()[:1_000_000])
    models = model(DEMO, DEMO_FILE) + model(MISSING, home / "missing.gguf")
    models += model(GEMMA, GEMMA_FILE, 300, 600) + model(CORRUPT, corrupt)
    models += model(REPRODUCIBLE, DEMO_FILE) + "reproducible = true\nprefix_cache = \"off\"\n"
    server = Weir(home, models, "[cors]\norigins = [\"https://chat.example.com\"]").start()
    yield server
    server.stop()


@pytest.fixture
def client(weir):
    return weir.client()


@pytest.fixture
def account(weir, request):
    """An account with 1 USD for this test alone: its name and a key."""
    name = request.node.name.replace("[", "-").replace("]", "")[:60]
    return name, weir.new_key(name, 1)["key"]
