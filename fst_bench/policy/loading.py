"""Loading a model with transformers, for every backend: its config, its tokenizer, and its weights ready to learn.

`saving` is for what a backend writes.
"""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fst_bench.policy.models import model_folder
from fst_bench.policy.settings import NO_GPU, PolicySettings

transformers_logging.disable_progress_bar()
# its retries would drown the one line that names the mistake
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def load_config(name: str, local: bool = False) -> Any:
    """Load a model's transformers config; `local` asks no hub. Raises OSError or ValueError where none exists."""
    return AutoConfig.from_pretrained(model_folder(name), local_files_only=local)


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer. Raises ValueError where none exists."""
    folder = model_folder(name)
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        raise ValueError(f"cannot load the model {name!r}: the folder has no config.json")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None


def unloadable(name: str, error: Exception) -> ValueError:
    """Return the error that says in one line why a model does not load."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"cannot load the model {name!r}: {reason[:200]}")


def check_device(settings: PolicySettings) -> None:
    """Raise ValueError where `device: cuda` is asked for and torch sees no GPU."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(NO_GPU)


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """Return the ids of the tokens that end an answer."""
    stops = model.generation_config.eos_token_id if model.generation_config else None
    return {*(stops if isinstance(stops, list) else [stops]), tokenizer.eos_token_id} - {None}


def pad_token(tokenizer: Any) -> int:
    """Return the id that fills rows up: the tokenizer's own, its end token, or any."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def ready_to_learn(model: PreTrainedModel, settings: PolicySettings) -> PreTrainedModel:
    """Return the model as its learner runs it: without dropout, with gradient checkpointing where it is asked for.

    Raises ValueError where the model can't have both.
    """
    if not settings.gradient_checkpointing:
        return model.eval()
    dropout = [name for name, value in model.config.to_dict().items() if name.endswith(("dropout", "_pdrop")) and value]
    if dropout:
        # transformers keeps checkpoints in training mode only, where these would sample other weights than are trained
        raise ValueError(
            "policy.gradient_checkpointing does not go with a model that has dropout: "
            f"its config sets {', '.join(dropout)}"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Raise OSError where tensors can't be written into a folder, whatever safetensors or torch.save raises then."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        number = re.search(r"os error (\d+)", str(error))
        if not number and "inline_container.cc" not in str(error):
            raise
        code = int(number[1]) if number else errno.ENOSPC  # torch.save knows only that less was written than it gave
        raise OSError(code, os.strerror(code), str(folder)) from None
