"""Makes copies of the test models without quantization, so that kernels and numpy compute with the same numbers.

python copies.py [--into DIRECTORY] MODEL.gguf...

Matrices are converted to F32, everything else is copied. Beside each copy is an index (JSON) of its metadata, vocabulary and
tensors, since reading a vocabulary from a GGUF file takes Python seconds. A copy depends on its source alone, so an
existing one isn't written again.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir" / "reference"


def main():
    parser = argparse.ArgumentParser(description="write copies without quantization")
    parser.add_argument("--into", type=Path, default=CACHE, help=f"default: {CACHE}")
    parser.add_argument("model", nargs="+", type=Path)
    arguments = parser.parse_args()
    for model in arguments.model:
        print(provide(model, arguments.into))


def provide(source, into=CACHE):
    """The path of the source's copy. The copy is made if it is missing or older than the source."""
    target = into / f"{source.stem}.F32.gguf"
    index = target.with_suffix(".json")
    if all(path.exists() and path.stat().st_mtime >= source.stat().st_mtime for path in (target, index)):
        return target
    into.mkdir(parents=True, exist_ok=True)
    print(f"writing {target}", file=sys.stderr)
    # Another process may make the same copy: each writes its own file, and the last one replaces the others.
    partial, partial_index = (path.with_name(f"{path.name}.{os.getpid()}.partial") for path in (target, index))
    reader = gguf.GGUFReader(source)
    metadata = {field.name: field.contents() for field in reader.fields.values()}
    write(reader, partial)
    tensors = {tensor.name: (tensor.data_offset, tensor.shape[::-1].tolist()) for tensor in gguf.GGUFReader(partial).tensors}
    partial_index.write_text(json.dumps({"metadata": plain(metadata), "tensors": tensors}, default=int))
    partial.replace(target)
    partial_index.replace(index)
    return target


def plain(metadata):
    """Metadata without long values that no test reads."""
    long = ("tokenizer.ggml.merges", "tokenizer.ggml.scores")
    return {name: value for name, value in metadata.items() if name not in long}


def write(reader, path):
    architecture = reader.get_field(gguf.Keys.General.ARCHITECTURE).contents()
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        # The writer adds these keys itself.
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            copy_field(field, writer)
    for tensor in reader.tensors:
        shape = tensor.shape[::-1].tolist()
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        # One tensor at a time: the largest has 700 MB.
        writer.write_tensor_data(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.close()


def copy_field(field, writer):
    kind, value = field.types[0], field.contents()
    if field.name == gguf.Keys.General.FILE_TYPE:
        value = int(gguf.LlamaFileType.ALL_F32)
    item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(field.name, value, kind, sub_type=item)


if __name__ == "__main__":
    main()
