"""A system clock that is far off, by Debian's faketime."""

import subprocess
from pathlib import Path

import pytest

from weir import BINARY, DEMO, environment, model, wait_until

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def faked(offset_file):
    """The environment of a process whose clock follows an offset in a file, such as `+400d`. The monotonic clock stays real."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@pytest.fixture(autouse=True)
def faketime():
    assert LIBRARY, "faketime is missing: `make hostile` installs it"


def run_at(weir, offset, *arguments, check=True):
    file = weir.directory / "tool-offset"
    file.write_text(offset)
    done = subprocess.run([BINARY, *arguments], cwd=weir.directory, env=environment(faked(file)), text=True,
                          capture_output=True, timeout=60)
    assert not check or done.returncode == 0, done
    return done


def test_years_ahead_for_a_moment_destroy_nothing(make_weir):
    weir = make_weir(settings="[usage]\nkeep_days = 90\n")
    offset = weir.directory / "offset"
    offset.write_text("+0d")
    weir.start(env=faked(offset))
    key = weir.data("key", "add", "demo", "--cap-day", "1")["key"]
    weir.run("promo", "demo", "1", "--expires", "30d", "--reason", "a test")
    complete = lambda **more: weir.client(**more).completions.create(model=DEMO, prompt="x", max_tokens=3)
    complete(key=key)
    weir.stop()

    # The server starts with a clock ten years ahead: if it trusted that clock, it would prune and expire at its start.
    offset.write_text("+3650d")
    weir.start(env=faked(offset))
    wait_until(lambda: "away from the newest time" in weir.log.read_text(), "the log says it", 10)
    complete(key=key)
    offset.write_text("+0d")
    wait_until(lambda: "can be trusted again" in weir.log.read_text(), "the log says that it is over", 10)
    complete(key=key)
    assert len(weir.usage("demo")) == 3
    assert weir.data("account", "show", "demo")["promo"] != "0"

    # The clock jumps while the server runs.
    offset.write_text("+3650d")
    wait_until(lambda: weir.log.read_text().count("away from the newest time") == 2, "the log says it", 10)
    complete(key=key)
    assert len(weir.usage("demo")) == 4
    assert weir.usage("demo")[0]["ended_at"][:4] == weir.usage("demo")[1]["ended_at"][:4], "time goes on as it was"
    assert weir.data("account", "show", "demo")["promo"] != "0"

    # Once the clock is accepted, promo credit that is due expires within seconds.
    run_at(weir, "+3650d", "clock", "accept")
    wait_until(lambda: weir.data("account", "show", "demo")["promo"] == "0", "the promo expires", 20)
    assert weir.run("ledger", "verify") == "the books balance\n"


def test_an_expired_key_stays_expired_400_days_back(make_weir):
    weir = make_weir()
    offset = weir.directory / "offset"
    offset.write_text("+0d")
    weir.start(env=faked(offset))
    key = weir.data("key", "add", "demo", "--expires", "1s")["key"]
    status = lambda: subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"{weir.url}/v1/key", "-H", f"Authorization: Bearer {key}"],
        capture_output=True, text=True).stdout
    wait_until(lambda: status() == "401", "the key expires", 10)
    offset.write_text("-400d")
    wait_until(lambda: "away from the newest time" in weir.log.read_text(), "the log says it", 10)
    assert status() == "401"
    weir.stop()
    weir.start(env=faked(offset))
    assert status() == "401"


def test_the_command_line_says_it(make_weir):
    weir = make_weir(models=model("test/none", "none.gguf")).start()
    weir.run("account", "add", "alice", "--credit", "1")
    assert run_at(weir, "+0d", "clock", "show").stdout.startswith("it is ")
    for offset in ("+400d", "-400d"):
        shown = run_at(weir, offset, "clock", "show", "--json").stdout
        assert '"trusted":false' in shown
        doctor = run_at(weir, offset, "doctor", check=False)
        assert doctor.returncode == 1 and "weir clock accept" in doctor.stdout
    promo = ["promo", "alice", "1", "--expires", "30d", "--reason", "x"]
    ahead = run_at(weir, "+400d", *promo, check=False)
    assert ahead.returncode == 1 and "weir clock accept" in ahead.stderr
    # A clock that is behind the books is certainly wrong: the time of the books counts.
    assert run_at(weir, "-400d", *promo).returncode == 0
