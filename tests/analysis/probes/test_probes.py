"""Probes of real finished runs, with two stages each and nothing in them but seconds of learning."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import fst_bench
from fst_bench.analysis import load, tables
from fst_bench.analysis.probes import probe
from fst_bench.analysis.probes.diagnostics import effective_rank, of_the_answers
from fst_bench.analysis.probes.forgetting import HUB, task_manager
from fst_bench.analysis.probes.opened import Opened
from fst_bench.embedded.general.data import documents
from fst_bench.embedded.general.write import sets
from fst_bench.embedded.text import Writer
from fst_bench.harness.loop import Bench, recorded
from fst_bench.harness.store import Store
from fst_bench.metrics import least_kl

N = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    stream = out / "two.yaml"
    stream.write_text(
        "name: two\nversion: 1\ndescription: d\nstages: [{task: hover, problems: 8}, {task: physics, problems: 8}]\n"
    )
    same = {"preset": "smoke", "out": out, "stage_problems": 8, "checkpoint": {"every": 1, "keep": 1}}
    return {method: fst_bench.run(stream=str(stream), method=method, **same).path for method in ("rl", "fst")}


def test_the_stages_ends_are_still_there(runs: dict[str, Path]) -> None:
    assert [p.name for p in Store(runs["rl"]).checkpoints()] == ["step-000002", "step-000004"]


def test_drift(runs: dict[str, Path]) -> None:
    rows = probe("drift", runs["fst"], n=N)
    assert len(rows) == 2 * 2 * 3 * 2  # stages, tasks, prompt modes, directions
    assert all(0 < row["kl_per_token"] < 5 for row in rows)
    assert all(row["kl_per_answer"] == pytest.approx(row["kl_per_token"] * row["tokens_per_answer"]) for row in rows)
    forth, back = (
        [r["kl_per_token"] for r in rows if r["key"]["direction"] == d] for d in ("policy||base", "base||policy")
    )
    assert forth != back
    assert Store(runs["fst"]).broken() == []  # nothing of the run itself was touched
    last = [r for r in rows if r["key"]["step"] == 4]
    both = {(r["key"]["task"], r["key"]["prompt_mode"], r["key"]["direction"]): r for r in last}
    floors = [
        least_kl(both[t, "system", "policy||base"]["accuracy"], both[t, "system", "base||policy"]["accuracy"], N)
        for t in ("hover", "physics")
    ]
    (drifts,) = [table for table in tables(load([runs["fst"]]), "fst") if table.title == "Drift"]
    kl, least, excess, neutral = (cell.estimate.value for cell in drifts.rows[0].cells)
    of_mode = {
        mode: sum(both[t, mode, "policy||base"]["kl_per_answer"] for t in ("hover", "physics")) / 2
        for mode in ("system", "neutral")
    }
    assert (kl, neutral) == pytest.approx((of_mode["system"], of_mode["neutral"]))
    assert (least, excess) == pytest.approx((sum(floors) / 2, kl - sum(floors) / 2))


def test_channels(runs: dict[str, Path]) -> None:
    cells = {
        tuple(r["key"][k] for k in ("stage", "weights", "prompt")): r["accuracy"]
        for r in probe("channels", runs["rl"], n=N)
    }
    assert len(cells) == 2 * 2 * 2
    for stage in (1, 2):  # rl has no prompt of its own: its columns agree, draw by draw
        for weights in ("base", "trained"):
            assert cells[stage, weights, "seed"] == cells[stage, weights, "evolved"]
    assert len(probe("channels", runs["fst"], n=N)) == 8


def test_ood_is_of_other_tasks_and_other_difficulties(runs: dict[str, Path]) -> None:
    rows = probe("ood", runs["rl"], n=N)
    cases = {(row["key"]["task"], json.dumps(row["key"]["difficulty"])) for row in rows}
    assert {"math", "codeio", "star-graph"} <= {task for task, _ in cases}
    config = json.loads((runs["rl"] / "config.json").read_text())["config"]["difficulty"]
    assert ("hover", json.dumps(config["hover"])) not in cases and ("math", json.dumps(config["math"])) in cases
    assert len(rows) == 2 * len(cases)

    def of_the_base(rows: list[dict]) -> dict[str, float]:
        return {json.dumps(r["key"]): r["accuracy"] for r in rows if r["key"]["weights"] == "base"}

    assert of_the_base(probe("ood", runs["fst"], n=N)) == of_the_base(rows)  # the base is the same one


def test_plasticity_from_the_base_is_a_plain_rl_run(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = probe("plasticity", runs["fst"], task="math", problems=8)
    assert [row["key"]["stage"] for row in rows] == [0, 1, 2]
    plain = fst_bench.run(
        "single-math", "rl", preset="smoke", out=tmp_path, stage_problems=8, checkpoint={"every": 1, "keep": 1}
    )
    fresh, mine = (Store(p).rows("rollouts") for p in (plain.path, runs["fst"] / rows[0]["run"]))
    assert fresh == mine
    starts = [Store(runs["fst"] / row["run"]).rows("evals")[0]["kl"] for row in rows]
    assert starts[0] == 0.0 and 0 < starts[1] != starts[2] > 0  # the others start from where the run's stages ended


def test_a_stopped_probe_continues(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["fst"], run, ignore=shutil.ignore_patterns("probes"))
    whole = probe("channels", run, n=N)
    path = run / "probes" / "channels.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    marked = [{**json.loads(line), "marked": True} for line in lines[:5]]  # a row that is measured again loses its mark
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in marked) + lines[5][:20])
    assert probe("channels", run, n=N) == marked + whole[5:]
    assert path.read_bytes().splitlines(keepends=True)[5:] == lines[5:]


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("drfit", {}, "unknown probe 'drfit': did you mean drift"),
        (
            "plasticity",
            {"task": "hover"},
            "the stream holds hover: plasticity requires one of math, codeio, star-graph",
        ),
        ("plasticity", {"task": "maths"}, "unknown task 'maths'"),
    ],
)
def test_what_cannot_be_probed_is_refused(runs: dict[str, Path], name: str, options: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        probe(name, runs["rl"], **options)


def test_an_unfinished_run_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["rl"], tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is not finished: fst-bench resume"):
        probe("drift", tmp_path / "run")


def test_a_probe_of_a_run_with_a_served_reflector_needs_no_key(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_NOBODY", raising=False)
    run = tmp_path / "run"
    shutil.copytree(runs["fst"], run, ignore=shutil.ignore_patterns("probes"))
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["fast"]["reflector"] = "served"
    saved["config"]["fast"]["reflection"] |= {"base_url": "http://localhost:9/v1", "api_key_env": "KEY_OF_NOBODY"}
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"run was changed since the run: config\.json$"):
        probe("channels", run, n=N)
    Store(run).seal()
    with pytest.raises(ValueError, match=r"api_key_env names no variable"):  # as a run it needs the key
        Bench(*recorded(Store(run)))
    assert probe("channels", run, n=N) == probe("channels", runs["fst"], n=N)
    (row, *_) = probe("plasticity", run, task="math", problems=8)
    (same, *_) = probe("plasticity", runs["fst"], task="math", problems=8)
    assert (row["start"], row["final"]) == (same["start"], same["final"])


def test_diagnostics_are_of_the_weights_and_of_the_answers(runs: dict[str, Path]) -> None:
    rows = probe("diagnostics", runs["rl"], n=N)
    assert [row["key"]["step"] for row in rows] == [0, 2, 4]
    assert rows[0]["distance"] == 0 < rows[1]["distance"] and rows[0]["dormant"] < 0.5
    opened = Opened(runs["rl"])
    model = opened.policy.reference.scorer.model
    weights = torch.cat([p.detach().flatten().double() for p in model.parameters()])
    assert rows[0]["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-5)
    # the base's entropy and rank, by transformers' forward pass over one answer at a time
    states, entropies = [], []
    for task in opened.stream.held_out().values():
        for s in opened.sample(task, lambda prompt: opened.config.seed_prompt, N, opened.policy.reference)[0]:
            with torch.no_grad():
                out = model(torch.tensor([s.tokens]), output_hidden_states=True)
            sampled = torch.tensor(s.mask[1:])
            states.append(out.hidden_states[-1][0, :-1][sampled])
            entropies.append(torch.distributions.Categorical(logits=out.logits[0, :-1][sampled]).entropy())
    assert rows[0]["entropy"] == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-4)
    shares = torch.linalg.svdvals(torch.cat(states).double())
    rank = torch.distributions.Categorical(probs=shares).entropy().exp()
    assert rows[0]["effective_rank"] == pytest.approx(float(rank), rel=1e-3)


def test_effective_rank_counts_directions_of_equal_weight() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(6, 3)) == pytest.approx(1)


def test_a_unit_that_never_fires_is_dormant(runs: dict[str, Path]) -> None:
    opened = Opened(runs["rl"])
    scorer, task = opened.policy.scorer, opened.stream.held_out()["hover"]
    samples = opened.sample(task, lambda prompt: opened.config.seed_prompt, N, opened.policy)[0]
    before = of_the_answers(scorer, samples)["dormant"]
    layers = [module for name, module in scorer.model.named_modules() if name.endswith("mlp.gate_proj")]
    units = layers[0].weight.shape[0]
    with torch.no_grad():
        layers[0].weight[: units // 2] = 0  # silu(0) is 0
    after = of_the_answers(scorer, samples)["dormant"]
    assert after >= before + 0.9 * 0.5 / len(layers) and after <= before + 0.6 / len(layers)


def test_forgetting_is_lm_evals_own_score(runs: dict[str, Path]) -> None:
    rows = {
        (r["key"]["task"], r["key"]["weights"]): r
        for r in probe("forgetting", runs["rl"], tasks=["fst_copy", "fst_copy_choice", "fst_text"], n=6)
    }
    assert len(rows) == 6
    for weights in ("base", "trained"):  # four steps of RL do not unlearn copying
        assert rows["fst_copy", weights]["scores"] == [1.0] * 6 and rows["fst_copy", weights]["metric"] == "exact_match"
        assert rows["fst_copy_choice", weights]["scores"] == [1.0] * 6
    before, after = rows["fst_text", "base"]["scores"], rows["fst_text", "trained"]["scores"]
    assert before != after and all(-60 < score < 0 for score in before)

    # the log-likelihoods, by a plain forward pass of transformers
    opened = Opened(runs["rl"])
    for doc, score in zip(documents("text")[:6], before, strict=True):
        chat = [{"role": "system", "content": doc["system"]}, {"role": "user", "content": doc["question"]}]
        head = opened.policy.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompt, target = (
            opened.policy.tokenizer.encode(text, add_special_tokens=False) for text in (head, doc["target"])
        )
        with torch.no_grad():
            logits = opened.policy.reference.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(target)[:, None]).sum()
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_a_task_of_lm_evals_own_reads_a_folder_of_data(runs: dict[str, Path], tmp_path: Path) -> None:
    """Four documents in ARC's columns; scored as by the shipped tasks, from log-likelihoods of the choices."""
    rows = [
        {
            "id": str(i),
            "question": f"Copy {i}",
            "choices": {"text": ["7", str(i)], "label": ["A", "B"]},
            "answerKey": "B",
        }
        for i in range(4)
    ]
    (tmp_path / "arc_easy").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "arc_easy" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = probe("forgetting", runs["rl"], data=tmp_path, n=3)
    assert [(row["key"]["task"], row["key"]["weights"]) for row in found] == [
        ("arc_easy", "base"),
        ("arc_easy", "trained"),
    ]
    assert all(row["documents"] == 3 and row["metric"] == "acc" and set(row["scores"]) <= {0.0, 1.0} for row in found)

    (tmp_path / "arc_easy" / "test.jsonl").write_text("\n".join(map(json.dumps, rows[2:])))
    other = probe("forgetting", runs["rl"], data=tmp_path, n=3)  # other data are not the same rows
    assert [row["documents"] for row in other] == [2, 2] and other[0]["key"]["data"] != found[0]["key"]["data"]

    (tmp_path / "hellaswag").mkdir()
    with pytest.raises(ValueError, match=r"hellaswag holds no SPLIT\.jsonl, .* requires the data of hellaswag"):
        probe("forgetting", runs["rl"], data=tmp_path)
    (tmp_path / "hellaswag").rename(tmp_path / "hellaswug")
    with pytest.raises(ValueError, match="lm-eval has no task 'hellaswug'"):
        probe("forgetting", runs["rl"], data=tmp_path)
    with pytest.raises(ValueError, match="holds no folder with the data of an lm-eval task"):
        probe("forgetting", runs["rl"], data=tmp_path / "nowhere")


def test_an_unknown_lm_eval_task_is_named(runs: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="lm-eval has no task 'fst_cop': is it one of fst_copy"):
        probe("forgetting", runs["rl"], tasks=["fst_cop"])
    assert set(HUB) <= set(task_manager(False).all_tasks)


def test_the_shipped_documents_are_the_writers() -> None:
    for name, rows in sets().items():
        assert documents(name) == rows
        assert all("choices" not in row or len(set(row["choices"])) == 4 for row in rows)
    pretrained = {Writer(0).document(i, 0.0, 0.0).user for i in range(5000)}
    assert not pretrained & {row["question"] for name, rows in sets().items() if name != "text" for row in rows}
