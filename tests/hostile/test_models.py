"""Model files that are damaged, or change while they are served: an error names the file, and everything else works on."""

import json
import os
import shutil
import struct
from pathlib import Path

import openai
import pytest

from weir import DEMO, DEMO_FILE, model, wait_until

OTHER = "test/other"
# An encoder that loads within milliseconds.
TINY = Path(__file__).resolve().parents[2] / "crates/llama/tests/fixtures/tiny-bert.gguf"


def change_u32(path, key, value):
    """Replaces the value of a key in place."""
    with path.open("r+b") as file:
        head = file.read(1 << 16)
        place = head.index(key.encode()) + len(key)
        assert head[place:place + 4] == struct.pack("<I", 4), "it is no u32"
        file.seek(place + 4)
        file.write(struct.pack("<I", value))


@pytest.fixture
def copy(tmp_path):
    """Copies of the demo model, which a test may damage."""
    def copy(name="copy.gguf", source=DEMO_FILE):
        return Path(shutil.copyfile(source, tmp_path / name))
    return copy


def works(weir, name, **options):
    return weir.client().completions.create(model=name, prompt="A weir is", max_tokens=4, **options).usage.completion_tokens == 4


def log_says(weir, *texts):
    wait_until(lambda: all(text in weir.log.read_text() for text in texts), f"{texts} in the log")


DAMAGED_HEADS = [
    ("llama.block_count", 0),
    ("llama.block_count", 1 << 30),
    ("llama.embedding_length", 1 << 31),
    ("llama.attention.head_count", 7),
    ("llama.attention.head_count_kv", 0),
    ("llama.rope.dimension_count", 1 << 30),
    ("llama.context_length", 0),
]


def test_damaged_heads(make_weir, copy, tmp_path):
    """Files with damaged headers, and a pipe without a writer, beside a good model."""
    damaged = [copy(f"damaged-{number}.gguf") for number in range(len(DAMAGED_HEADS))]
    for path, (key, value) in zip(damaged, DAMAGED_HEADS):
        change_u32(path, key, value)
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    names = {f"test/damaged-{number}": path for number, path in enumerate([*damaged, pipe])}
    weir = make_weir("".join(model(name, path) for name, path in names.items()) + model(DEMO, DEMO_FILE)).start()
    assert works(weir, DEMO)
    doctor = {check["check"]: check for check in json.loads(weir.run("doctor", "--json", check=False).stdout)}
    for name, path in names.items():
        with pytest.raises(openai.InternalServerError) as refused:
            works(weir, name)
        assert refused.value.body["code"] == "model_not_available"
        assert str(path) not in str(refused.value.body)
        assert doctor[f"model {name}"]["verdict"] == "wrong" and str(path) in doctor[f"model {name}"]["detail"]
        log_says(weir, str(path))
    assert weir.process.poll() is None


def test_what_llama_cpp_dies_of_in_another_process(make_weir, copy):
    """A bad value that only loading finds: it ends the trial process."""
    damaged = copy("tiny.gguf", TINY)
    with damaged.open("r+b") as file:
        head = file.read()
        key = b"bert.attention.layer_norm_epsilon"
        file.seek(head.index(key) + len(key) + 4)
        file.write(struct.pack("<f", -1.0))
    weir = make_weir(model(OTHER, damaged) + model(DEMO, DEMO_FILE)).start()
    assert works(weir, DEMO)
    log_says(weir, str(damaged), "SIGABRT", "GGML_ASSERT")
    done = weir.run("doctor", check=False)
    assert done.returncode == 1 and "SIGABRT" in done.stdout
    done = weir.run("model", "inspect", OTHER, "--check", check=False)
    assert done.returncode == 1 and "SIGABRT" in done.stdout


def test_zeros_in_the_weights(make_weir, copy):
    served = copy()
    weir = make_weir(model(DEMO, served)).start()
    log_says(weir, "checksum is remembered")
    assert weir.run("model", "inspect", DEMO, "--check")
    weir.stop()
    # A failing disk changes bytes, but neither size nor time.
    facts = served.stat()
    with served.open("r+b") as file:
        file.seek(facts.st_size // 2)
        file.write(bytes(1 << 20))
    os.utime(served, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    weir.start()
    log_says(weir, "the model file is damaged", str(served))
    done = weir.run("model", "inspect", DEMO, "--check", check=False)
    assert done.returncode == 1 and "zeros in a row" in done.stdout and "when it was first served" in done.stdout
    weir.stop()
    # Replacing a file changes its time.
    os.utime(served)
    weir.start()
    log_says(weir, "isn't the one that was served before")


@pytest.mark.parametrize("how", ["truncated", "grown", "written over", "written over with the time put back"])
def test_a_file_that_is_changed_while_it_is_served(make_weir, copy, how):
    served = copy()
    weir = make_weir(model(OTHER, served) + model(DEMO, DEMO_FILE)).start()
    log_says(weir, "checksum is remembered")
    stream = weir.client().completions.create(model=OTHER, prompt="x", max_tokens=2_000, stream=True)
    next(stream)
    if how == "truncated":
        os.truncate(served, 0)
    elif how == "grown":
        with served.open("ab") as file:
            file.write(b"more")
    else:
        facts = served.stat()
        with served.open("r+b") as file:
            file.seek(facts.st_size // 2)
            file.write(b"\0" * (1 << 20))
        if how.endswith("put back"):
            os.utime(served, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    # A stream ends with an error, not in silence: this one, or if it was finished before, one of the next.
    with pytest.raises(openai.APIError):
        while True:
            for _ in stream:
                pass
            stream = weir.client().completions.create(model=OTHER, prompt="x", max_tokens=2_000, stream=True)
    log_says(weir, str(served), "not available until")
    with pytest.raises(openai.InternalServerError) as refused:
        works(weir, OTHER)
    assert refused.value.body["code"] == "model_not_available"
    assert works(weir, DEMO)
    assert weir.process.poll() is None


def test_a_file_that_is_replaced_or_touched_while_it_is_served(make_weir, copy):
    served, new = copy(), copy("new.gguf", TINY)
    weir = make_weir(model(DEMO, served)).start()
    log_says(weir, "checksum is remembered")
    os.utime(served)
    log_says(weir, "was touched, and is what it was")
    # Another mode or another name isn't a write, and tells no time of one.
    served.chmod(0o600)
    wait_until(lambda: weir.log.read_text().count("was touched, and is what it was") == 2, "the mode is looked at")
    os.link(served, served.with_suffix(".link"))
    wait_until(lambda: weir.log.read_text().count("was touched, and is what it was") == 3, "the name is looked at")
    new.rename(served)
    assert works(weir, DEMO)
    served.unlink()
    assert works(weir, DEMO)
    assert "not available" not in weir.log.read_text()


def test_without_a_checksum_another_mode_says_nothing_and_a_write_is_noticed(make_weir, copy):
    served = copy()
    weir = make_weir(model(DEMO, served) + "checksum = false\n").start()
    served.chmod(0o600)
    log_says(weir, "its bytes with their time put back", str(served))
    assert works(weir, DEMO)
    os.utime(served)
    log_says(weir, "what it was isn't known", "not available until")
