import pytest

from weir import BINARY, DEMO, DEMO_FILE, Weir, model


@pytest.fixture(scope="session", autouse=True)
def what_the_tests_need():
    for path in (BINARY, DEMO_FILE):
        assert path.exists(), f"{path} is missing: `make hostile` builds and fetches what the tests need"


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
