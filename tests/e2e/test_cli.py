"""The command line, beside a running server and without one."""

import json
import subprocess
from decimal import Decimal

import openai
import pytest

from weir import BINARY, DEMO, DEMO_FILE, PATIENCE, environment, model, wait_until


def answers(weir, key):
    try:
        weir.client(key).completions.create(model=DEMO, prompt="x", max_tokens=1)
        return True
    except openai.AuthenticationError:
        return False


def test_an_account_and_its_keys_while_the_server_runs(weir):
    made = weir.data("account", "add", "cli", "--credit", "2.50")
    assert made["name"] == "cli" and made["balance"] == "2.5"
    assert {"cli", "demo"} <= {row["name"] for row in weir.data("account", "list")}
    credited = weir.data("credit", "cli", "0.000000001")
    assert credited["balance"] == "2.500000001"
    assert weir.data("credit", made["id"], "1", "--reference", "invoice 7")["replayed"] is False
    assert weir.data("credit", "cli", "1", "--reference", "invoice 7")["replayed"] is True
    assert weir.balance("cli")["balance"] == "3.500000001"

    key = weir.data("key", "add", "cli", "--name", "laptop")
    assert set(key) == {"id", "key"} and key["key"].startswith("sk_")
    assert answers(weir, key["key"])
    [listed] = weir.data("key", "list", "cli")
    assert listed["id"] == key["id"] and listed["name"] == "laptop" and listed["revoked_at"] is None
    assert key["key"] not in weir.run("key", "list", "cli")

    other = weir.data("key", "add", "cli")["key"]
    weir.run("key", "revoke", key["id"])
    wait_until(lambda: not answers(weir, key["key"]), "the key is refused", seconds=1)
    assert answers(weir, other)
    assert weir.data("key", "list", "cli")[0]["revoked_at"]


def test_key_add_prints_the_key_and_nothing_else_to_stdout(weir):
    weir.run("account", "add", "plain")
    done = weir.run("key", "add", "plain", check=False)
    assert done.stdout.startswith("sk_") and len(done.stdout.split()) == 1
    assert done.stderr == "weir: this is the only time that the key is shown\n"


def test_usage_is_what_the_answers_said(weir, account):
    name, key = account
    client = weir.client(key)
    said = []
    for tokens in (1, 5, 9):
        said.append(client.completions.create(model=DEMO, prompt="A weir is", max_tokens=tokens).usage)
    stream = client.chat.completions.create(
        model=DEMO, messages=[{"role": "user", "content": "Hi"}], max_tokens=7, stream=True,
        stream_options={"include_usage": True},
    )
    said.append(list(stream)[-1].usage)
    rows = weir.usage(name)
    assert [row["outcome"] for row in rows] == ["success"] * 4
    counts = [(row["prompt_tokens"], row["completion_tokens"]) for row in reversed(rows)]
    assert counts == [(usage.prompt_tokens, usage.completion_tokens) for usage in said]
    for row in rows:
        tenths = row["prompt_tokens"] * 200 + row["completion_tokens"] * 400
        assert Decimal(row["cost"]) == Decimal(-(-tenths // 10)).scaleb(-9)
    balance = weir.balance(name)
    assert Decimal(balance["balance"]) == 1 - sum(Decimal(row["cost"]) for row in rows)
    assert Decimal(balance["held"]) == 0


def test_models(weir):
    rows = weir.data("model", "list")
    assert [row["file_present"] for row in rows] == [True, False, True, True, True]
    assert DEMO in weir.run("model", "list") and "missing" in weir.run("model", "list")


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["account", "add", "demo"], 1, "there is an account named"),
        (["account", "add", "x", "--credit", "1.5e3"], 2, "an amount is dollars"),
        (["credit", "demo", "0.0000000001"], 2, "at most 9 decimals"),
        (["credit", "nobody", "1"], 1, "nobody"),
        (["key", "revoke", "nokey"], 1, "nokey"),
        (["usage", "nobody"], 1, "nobody"),
        (["account", "list", "--data", "elsewhere"], 1, "there is no database in elsewhere"),
        (["account", "list", "--config", "missing.toml"], 2, "can't read"),
        (["frobnicate"], 2, "unrecognized subcommand"),
        ([], 2, "Usage"),
    ],
)
def test_failures(weir, arguments, status, words):
    done = weir.run(*arguments, check=False)
    assert done.returncode == status and words in done.stderr and done.stdout == ""


def test_help_is_complete(weir):
    for command in ([], ["serve"], ["account", "add"], ["credit"], ["key", "add"], ["usage"], ["chat"], ["doctor"]):
        text = weir.run(*command, "--help")
        assert "--data" in text and "--config" in text
    assert weir.run("--version").startswith("weir ")


def test_a_reader_that_leaves_is_no_failure(weir):
    command = f"set -o pipefail; for i in 1 2 3; do {BINARY} config; done | head -1"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "config, message",
    [
        ("lisen = 1\n", "weir: weir.toml:1: unknown key `lisen`; allowed here: listen, data, database"),
        ("\n[http]\nbody_bytes_max = \"8\"\n", "weir: weir.toml:3: http.body_bytes_max must be a whole number"),
    ],
)
def test_a_wrong_config_names_its_line(tmp_path, config, message):
    (tmp_path / "weir.toml").write_text(config)
    done = subprocess.run(
        [BINARY, "serve"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 2 and done.stderr.startswith(message)


def test_without_config_and_models_it_says_what_to_do(tmp_path):
    done = subprocess.run(
        [BINARY, "serve"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 2 and "make models" in done.stderr and not (tmp_path / "data").exists()


def test_status(weir):
    shown = json.loads(weir.run("status", "--json", env={"WEIR_LISTEN": weir.url.removeprefix("http://")}))
    assert shown["server"] == "ready" and shown["accounts"] >= 1
    assert {"id": DEMO, "available": True} in shown["models"]


def test_doctor(weir, make_weir, tmp_path):
    checks = {row["check"]: row for row in json.loads(weir.run("doctor", "--json", check=False).stdout)}
    assert checks["database"]["verdict"] == "ok" and checks["kernels"]["verdict"] == "ok"
    assert checks["model test/missing"]["verdict"] == "wrong"
    sick = weir.run("doctor", check=False)
    assert sick.returncode == 1 and "WRONG" in sick.stdout
    well = make_weir(models=model(DEMO, DEMO_FILE)).run("doctor", check=False)
    assert well.returncode == 0, well.stdout


def test_chat(weir):
    env = {"WEIR_API_KEY": weir.key, "WEIR_BASE_URL": weir.url}
    done = weir.run("chat", "--model", DEMO, "--max-tokens", "16", env=env, input="Say hello.\nAgain.\n", check=False)
    assert done.returncode == 0 and len(done.stdout.strip()) > 0, done.stderr
    no_model = weir.run("chat", "--max-tokens", "16", env=env, input="Hi\n", check=False)
    assert no_model.returncode == 0 and no_model.stdout.strip()
    wrong = weir.run("chat", env=env | {"WEIR_API_KEY": "sk_wrong"}, input="Hi\n", check=False)
    assert wrong.returncode == 1 and "401" in wrong.stderr and wrong.stdout == ""
    nobody = weir.run("chat", env=env | {"WEIR_BASE_URL": "http://127.0.0.1:1"}, input="Hi\n", check=False)
    assert nobody.returncode == 1 and "is `weir serve` running?" in nobody.stderr
    keyless = weir.run("chat", input="Hi\n", check=False)
    assert keyless.returncode == 1 and "WEIR_API_KEY" in keyless.stderr
