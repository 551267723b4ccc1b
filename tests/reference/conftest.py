import dataclasses
import json

import pytest

import copies
from served import CONTEXT, Served
from weir import BINARY, DEMO, DEMO_FILE, GEMMA, GEMMA_FILE, ROOT, Weir, model

MODELS = {"smollm2": (DEMO, DEMO_FILE), "gemma3": (GEMMA, GEMMA_FILE)}


def config(names=MODELS, more="", provide=copies.provide):
    text = ""
    for name in names:
        id, path = MODELS[name]
        text += model(id, provide(path)) + f"context_tokens = {CONTEXT}\n{more}\n"
    return text


@pytest.fixture(scope="session")
def weir(tmp_path_factory):
    assert BINARY.exists(), f"{BINARY} is missing: `make reference` builds what the tests need"
    server = Weir(tmp_path_factory.mktemp("weir"), config()).start()
    yield server
    server.stop()


@pytest.fixture(scope="session", params=MODELS)
def served(request, weir):
    id, path = MODELS[request.param]
    return Served(request.param, weir, copies.provide(path), id)


# Figures


@dataclasses.dataclass
class Figures:
    rows: list

    def add(self, **row):
        self.rows.append(row)


FIGURES = Figures([])


@pytest.fixture
def figures(request, served):
    """Records figures that a test has found."""

    def add(**row):
        FIGURES.add(model=served.name, test=request.node.originalname.removeprefix("test_"), **row)

    return add


def pytest_terminal_summary(terminalreporter):
    if FIGURES.rows:
        terminalreporter.section("figures")
        for row in FIGURES.rows:
            terminalreporter.write_line("  ".join(f"{name}={value}" for name, value in row.items()))
        target = ROOT / "target" / "reference.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(FIGURES.rows, indent=1, default=float))
