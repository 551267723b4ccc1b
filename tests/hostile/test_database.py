"""A database in the wrong place, used by two servers, or gone."""

import os
import shutil
import signal
import subprocess

import openai
import pytest

from weir import BINARY, DEMO, environment, model, wait_until

# No model has to be loaded where only the database matters.
NO_MODEL = model("test/none", "none.gguf")


def completion(weir, **more):
    return weir.client().completions.create(model=DEMO, prompt="x", max_tokens=3, **more)


def refused(weir, *words, status=1):
    done = weir.run("serve", check=False)
    assert done.returncode == status, done
    for word in words:
        assert word in done.stderr, done.stderr
    return done


@pytest.fixture
def second(tmp_path):
    """Starts a second server whose database is where the test says."""

    def make(data):
        home = tmp_path / "second"
        home.mkdir(exist_ok=True)
        (home / "weir.toml").write_text(f'listen = "127.0.0.1:0"\ndata = "{data}"\n{NO_MODEL}')
        return subprocess.run([BINARY, "serve"], cwd=home, env=environment(), text=True, capture_output=True, timeout=60)

    return make


def test_a_second_server_is_refused_by_whatever_name(make_weir, tmp_path, second):
    weir = make_weir(settings="[shutdown]\ngrace_seconds = 60\n").start()
    stream = weir.client().completions.create(model=DEMO, prompt="A story:", max_tokens=60, temperature=1, stream=True,
                                              logit_bias={"2": -100, "0": -100})
    next(iter(stream))
    data = weir.directory / "data"
    links = tmp_path / "links"
    links.mkdir()
    os.symlink(data, links / "folder")
    for made in ("by a symlink", "by a hard link"):
        elsewhere = tmp_path / made
        elsewhere.mkdir()
        (os.symlink if "sym" in made else os.link)(data / "weir.db", elsewhere / "weir.db")
        done = second(elsewhere)
        assert done.returncode == 1, (made, done)
        assert "another weir server" in done.stderr or "second name" in done.stderr, done.stderr
        os.unlink(elsewhere / "weir.db")
    for left in data.glob("weir.db-*"):
        if left.suffix not in (".db-wal", ".db-shm"):
            left.unlink()
    for path in (data, links / "folder", tmp_path / "links/../links/folder"):
        done = second(path)
        assert done.returncode == 1 and "another weir server" in done.stderr, (path, done)
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    [row] = weir.usage("demo")
    assert (row["completion_tokens"], row["outcome"]) == (60, "success")
    assert weir.run("ledger", "verify") == "the books balance\n"


def lose(how):
    def act(data):
        database = data / "weir.db"
        if "emptied" in how:
            database.write_bytes(b"")
        else:
            database.unlink()
        for suffix in ("-wal", "-shm"):
            if "log" in how:
                (data / f"weir.db{suffix}").unlink(missing_ok=True)

    return act


@pytest.mark.parametrize("how", ["emptied", "removed", "emptied, and its log removed", "removed with its log"])
def test_a_lost_database_is_not_made_anew(make_weir, how):
    weir = make_weir(models=NO_MODEL).start()
    weir.run("account", "add", "alice", "--credit", "3")
    weir.signal(signal.SIGKILL if "log" not in how else signal.SIGTERM)
    weir.wait()
    data = weir.directory / "data"
    kept = data.with_name("kept")
    shutil.copytree(data, kept)
    lose(how)(data)
    refused(weir, "is missing or empty", "Restore it from a backup", "remove")
    for command in (["account", "list"], ["account", "add", "bob"], ["ledger", "verify"]):
        assert weir.run(*command, check=False).returncode != 0
    # The database is put back, and works.
    shutil.rmtree(data)
    kept.rename(data)
    weir.start()
    assert weir.first is None and weir.balance("alice")["balance"] == "3"


def test_what_is_taken_away_while_it_serves_is_noticed(make_weir):
    weir = make_weir().start()
    data, away = weir.directory / "data", weir.directory / "away"
    completion(weir)
    for times, (take, put_back) in enumerate((
        (lambda: data.rename(away), lambda: away.rename(data)),
        (
            lambda: (data.rename(away), shutil.copytree(away, data)),
            lambda: (shutil.rmtree(data), away.rename(data)),
        ),
        (lambda: (data / "weir.db-shm").rename(away), lambda: away.rename(data / "weir.db-shm")),
    )):
        said = weir.log.read_text().count("not where they were")
        take()
        wait_until(lambda: weir.log.read_text().count("not where they were") > said, "the log says it", 2)
        with pytest.raises(openai.InternalServerError) as error:
            completion(weir)
        assert error.value.status_code == 503
        ready = subprocess.run(["curl", "-sS", f"{weir.url}/ready"], capture_output=True, text=True)
        assert "the database's files are not where they were" in ready.stdout
        put_back()
        over = "the database can be used again"
        wait_until(lambda: weir.log.read_text().count(over) > times, "the log says that it is over", 2)
        completion(weir)
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 0
    assert len(weir.usage("demo")) == 4
    assert weir.run("ledger", "verify") == "the books balance\n"


def test_reading_works_on_a_backup_that_cannot_be_written(make_weir, tmp_path):
    weir = make_weir(models=NO_MODEL).start()
    weir.run("account", "add", "alice", "--credit", "3")
    backup = tmp_path / "backup"
    shutil.copytree(weir.directory / "data", backup)
    (backup / "weir.db-shm").unlink()
    script = (
        f"mount --bind '{backup}' '{backup}' && mount -o remount,bind,ro '{backup}' && "
        f"'{BINARY}' account list --json --data '{backup}' && '{BINARY}' ledger verify --data '{backup}'"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done
    assert '"alice"' in done.stdout and "the books balance" in done.stdout
