"""The pretraining text obeys its own instructions, and shares nothing with the benchmark."""

import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from fst_bench.embedded import text_v2
from fst_bench.embedded.abilities import ABILITIES, item
from fst_bench.embedded.pretrain import Recipe, pretrain
from fst_bench.embedded.text import (
    LEVELS,
    LOOKUPS,
    OWN_FORMATS,
    WEIGHTS,
    WORK,
    Document,
    Writer,
    list_everything,
    render,
    wander_star_graph,
)
from fst_bench.fast.bank import sentences
from fst_bench.fast.instructions import DIRECT, format_sentence, strategy_sentence
from fst_bench.fast.reflectors import RULES, instructions
from fst_bench.harness.config import load_preset
from fst_bench.harness.store import sha256
from fst_bench.policy.models import model_folder
from fst_bench.tasks import TASKS, load_task
from fst_bench.tasks.formats import WRAPPERS, Wrapped
from fst_bench.tasks.hover import CITIES, FIRMS, PEOPLE

DIFFICULTY = load_preset("tiny")["difficulty"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WORK)), st.integers(0, 10**6))
def test_clean_working_ends_in_the_right_answer(name: str, index: int) -> None:
    for _, difficulty in LEVELS[name]:
        task = load_task(name, **difficulty)
        problem = task.problem("pretrain", 0, index)
        steps, answer = WORK[name](problem.data, lambda: False, random.Random(0))
        assert answer == problem.answer and steps
        assert task.verify(problem, f"{steps}\n{task.write(answer)}").reward == 1.0


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WORK)), st.integers(0, 10**6))
def test_slips_never_break_the_text(name: str, index: int) -> None:
    task = load_task(name, **LEVELS[name][-1][1])
    problem = task.problem("pretrain", 0, index)
    rng = random.Random(index)
    _, answer = WORK[name](problem.data, lambda: rng.random() < 0.5, rng)
    assert task.verify(problem, task.write(answer)).status in ("ok", "wrong")


def test_documents_are_a_pure_function_of_their_index() -> None:
    one, two = Writer(3), Writer(3)
    two.document(7, 1.0, 0.5)
    assert [one.document(i, 0.5, 0.3) for i in range(50)] == [two.document(i, 0.5, 0.3) for i in range(50)]


def test_pretraining_and_benchmark_problems_do_not_overlap() -> None:
    writer = Writer(0)
    seen = {writer.document(i, 0.0, 0.3).problem_id for i in range(20_000)}
    benchmark = {
        p.id
        for name, difficulty in DIFFICULTY.items()
        for seed in range(3)
        for split, n in (("train", 400), ("test", 200))
        for p in load_task(name, **difficulty).problems(split, seed, n)
    }
    assert len(seen) > 15_000 and len(benchmark) > 3_000
    assert not seen & benchmark


def test_the_last_format_sentence_wins() -> None:
    """Where exactly the markers of two formats are asked for, the response has the marker of the later one."""
    markers = {
        "\\boxed{": "\\boxed{",
        "JSON": '{"output"',
        "<answer>": "<answer>",
        "####": "####",
        "VERDICT:": "VERDICT:",
    }
    checked = 0
    for i in range(4000):
        d = Writer(0).document(i, 0.0, 0.0) if i == 0 else WRITER.document(i, 0.0, 0.0)
        text = re.sub(r"For [a-z ]+, [^.]*\.", "", d.system.replace("\\boxed{}.", "\\boxed{} ."))
        asked = sorted((text.rfind(word), word) for word in markers if word in text)
        if (
            len(asked) == 2
            and "\n" not in d.user.split("\n")[-1]
            and not re.search("boxed|JSON|answer>|####|VERDICT", d.user)
        ):
            assert markers[asked[-1][1]] in d.response, d
            checked += 1
    assert checked > 50


WRITER = Writer(0)


def test_feedback_paraphrases_and_never_copies_the_pretraining_instructions() -> None:
    """What the reflector makes of every task's feedback is no sentence of the pretraining text."""
    written = {
        s.strip().lower() for i in range(20_000) for s in re.split(r"(?<=\.)\s+", WRITER.document(i, 0.0, 0.0).system)
    }
    rng = random.Random(0)
    written |= {format_sentence(f, rng).lower() for styles in OWN_FORMATS.values() for f in styles for _ in range(300)}
    written |= {strategy_sentence(t, rng).lower() for t in WORK for _ in range(300)} | {s.lower() for s in DIRECT}
    written |= {sentence.text.lower() for sentence in sentences()}
    wrapped = [
        (name, {"answer_format": style})
        for name, kind in TASKS.items()
        if issubclass(kind, Wrapped)
        for style in WRAPPERS
    ]
    for name, style in [*((name, {}) for name in TASKS), *wrapped]:
        task = load_task(name, **DIFFICULTY[name], **style)
        problem = task.problems("train", 0, 1)[0]
        texts = ["", "nothing", *task.wrong_texts(problem)]
        feedback = [task.verify(problem, text).feedback for text in texts]
        for text in feedback:
            assert not {s.strip().lower() for s in re.split(r"(?<=\.)\s+", text)} & written
            for wordings in instructions(text):
                assert not {w.lower() for w in wordings} & written
    assert RULES


@pytest.mark.parametrize(("name", "difficulty"), LOOKUPS)
def test_lookup_documents_list_everything(name: str, difficulty: dict) -> None:
    values = set()
    for seed in range(20):
        problem = load_task(name, **difficulty).problem("pretrain", 0, seed)
        user, response = list_everything(problem, name, random.Random(seed))
        assert user.endswith(("List all facts.", "List all paths."))
        if name == "hover":
            facts = {f.strip() for f in user.split("\n")[0].removeprefix("Facts: ").rstrip(".").split(".")}
            assert {f.strip() for f in response.split(";")} == facts
            values |= {fact.split(" ")[1] for fact in facts}
        else:
            edges = set(user.split("\n")[0].removeprefix("Edges:").split(";"))
            nodes = [path.split("<-") for path in response.split(";")]
            assert {f"{a}<-{b}" for path in nodes for a, b in itertools.pairwise(path)} == edges
    assert name != "hover" or all(values & set(kind) for kind in (PEOPLE, FIRMS, CITIES))  # any name can be a value


def test_render_knows_every_format() -> None:
    for name, styles in OWN_FORMATS.items():
        task = load_task(name, **DIFFICULTY[name])
        problem = task.problem("pretrain", 0, 1)
        texts = [render(name, style, problem.answer) for style in styles]
        assert len(set(texts)) == len(styles)
        assert sum(task.verify(problem, text).reward for text in texts) == 1.0  # one of them is the protocol


def right(document: Document, name: str, answer: str) -> bool:
    """Whether a document ends in the gold answer, in any of the formats."""
    separators = ("->", ",") if name == "star-graph" else ("->",)
    return any(
        document.response.endswith(render(name, style, answer, sep))
        for style in OWN_FORMATS[name]
        for sep in separators
    )


def test_clean_documents_are_right_and_noise_comes_late() -> None:
    """Clean, only star-graph errs: it wanders where nobody says to start at the goal. Noise makes every task err."""
    by_id: dict[str, tuple[str, str]] = {}
    for name, levels in LEVELS.items():
        for _, difficulty in levels:
            by_id |= {
                p.id: (name, p.answer)
                for p in (load_task(name, **difficulty).problem("pretrain", 0, i) for i in range(6000))
            }
    shares: dict[tuple[str, float], list[bool]] = {}
    for i in range(6000):
        for noise in (0.0, 1.0):
            d = WRITER.document(i, noise, 0.0)
            if d.problem_id in by_id:
                shares.setdefault((d.task, noise), []).append(right(d, *by_id[d.problem_id]))
    assert {name for name, _ in shares} == set(LEVELS)
    for name in LEVELS:
        clean, noisy = shares[name, 0.0], shares[name, 1.0]
        assert len(clean) > 300
        assert all(clean) == (name != "star-graph")
        assert sum(noisy) / len(noisy) < sum(clean) / len(clean) - 0.03


def test_whoever_wanders_walks_an_arm_from_the_source() -> None:
    problem = load_task("star-graph", **LEVELS["star-graph"][-1][1]).problem("pretrain", 0, 0)
    rng = random.Random(0)
    walks = [wander_star_graph(problem.data, lambda: False, rng) for _ in range(500)]
    arms = {"->".join(arm) for arm in problem.data["arms"]}
    assert {path for path, _ in walks} == arms and all(path == answer for path, answer in walks)


# --- the text of the second version


V2 = text_v2.Writer(0)


def asked_in(document: Document) -> dict[str, list[str]]:
    """Place -> the formats whose marker is asked for there, without what is asked of other tasks."""
    markers = {"boxed": "\\boxed{", "json": "JSON", "tag": "<answer>", "hash": "####", "verdict": "VERDICT:"}
    markers |= {"answer": "ANSWER:", "plain": "plain"}
    lines = document.user.split("\n")
    system = re.sub(r"For [a-z ]+, (?:[^.]|\.(?! |$))*\.", "", document.system)
    places = {"system": system, "front": lines[0], "behind": lines[-1]}
    return {place: [f for f, marker in markers.items() if marker in found] for place, found in places.items()}


def test_its_documents_have_no_error_and_obey_formats_wherever_they_are_stated() -> None:
    styles = {"boxed": "\\boxed{", "json": '{"output"', "tag": "<answer>", "hash": "####", "verdict": "VERDICT:"}
    styles |= {"answer": "ANSWER:", "plain": "So the result is"}
    stated = dict.fromkeys(("system", "front", "behind"), 0)
    for i in range(6000):
        document = V2.document(i, 0.0, 0.0)
        if document.task not in WEIGHTS:
            continue
        places = asked_in(document)
        for place in ("behind", "front"):
            if len(places[place]) == 1:
                assert styles[places[place][0]] in document.response, document
                stated[place] += 1
        if sum(map(len, places.values())) == len(places["system"]) == 1 and "For " not in document.system:
            assert styles[places["system"][0]] in document.response, document
            stated["system"] += 1
    assert all(n > 200 for n in stated.values()), stated


def test_its_levels_reach_past_every_benchmark_and_its_answers_are_right() -> None:
    tasks = {
        (name, i): load_task(name, **level) for name in WEIGHTS for i, (_, level) in enumerate(text_v2.LEVELS[name])
    }
    for (name, _), task in tasks.items():
        problem = task.problem("pretrain", 0, 5)
        steps, answer = WORK[name](problem.data, lambda: False, random.Random(0))
        assert answer == problem.answer and steps
    for name, levels in text_v2.LEVELS.items():
        weights = [weight for weight, _ in levels]
        assert min(weights) > 0 and min(weights) < max(weights) / 9, name  # the longest are rare, and there


def test_its_unasked_formats_are_the_stated_shares() -> None:
    """Where nothing is asked for, the task's own format has its share, and working its share."""
    own, worked = {name: list[bool]() for name in WEIGHTS}, {name: list[bool]() for name in WEIGHTS}
    for i in range(60_000):
        document = V2.document(i, 0.0, 0.0)
        if document.task in WEIGHTS and document.system == "" and not any(asked_in(document).values()):
            markers = {"math": "\\boxed{", "codeio": '{"output"', "hover": "VERDICT:", "star-graph": "\\boxed{"}
            last = document.response.split("\n")[-1]
            own[document.task].append(last.startswith(markers.get(document.task, "ANSWER:")))
            worked[document.task].append("\n" in document.response)
    for name in WEIGHTS:
        n = len(own[name])
        assert n > 100
        for found, share in ((own[name], text_v2.OWN[name]), (worked[name], text_v2.WORKING[name])):
            assert abs(sum(found) / n - share) < 4 * (0.25 / n) ** 0.5, (name, sum(found) / n, share)


# --- the general abilities: right answers by hand, splits that do not overlap, no streams' task among them


def solve(question: str) -> str:
    """Each question answered once more, from its words alone."""
    kind, _, rest = question.partition(": ")
    match kind.split()[0]:
        case "Copy":
            return rest
        case "Reverse":
            return rest[::-1]
        case "Count":
            return str(rest.count(kind.split()[1]))
        case "Sum":
            return str(sum(int(part) for part in rest.split(" and ")))
        case "Larger":
            return max(rest.split(" or "), key=int)
        case _:
            numbers = [int(part) for part in rest.split(", ")]
            return str(2 * numbers[-1] - numbers[-2])


@pytest.mark.parametrize("name", ABILITIES)
def test_answers_are_right_and_splits_disjoint(name: str) -> None:
    splits = {split: [item(name, split, 0, i) for i in range(300)] for split in ("pretrain", "train", "test")}
    for items in splits.values():
        assert all(solve(it.question) == it.answer for it in items)
    seen = [{it.question for it in items} for items in splits.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert item(name, "test", 0, 7) == item(name, "test", 0, 7)


def test_no_stream_trains_one_and_unknown_names_are_named() -> None:
    assert not set(ABILITIES) & set(TASKS)
    with pytest.raises(ValueError, match="unknown ability"):
        item("juggle", "test", 0, 0)


# --- the shipped models are what their cards say they are

FOLDER = Path(model_folder("embedded:tiny"))
EARLY = Path(model_folder("embedded:tiny-early"))


@pytest.mark.parametrize("folder", [FOLDER, EARLY])
def test_plain_transformers_loads_it(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3" and model.config.max_position_embeddings == 2048
    assert len(tokenizer) == model.config.vocab_size
    with torch.no_grad():
        assert model(torch.arange(2048)[None] % 900).logits.isfinite().all()


def test_the_card_has_both_checksums() -> None:
    card = (FOLDER / "README.md").read_text()
    for folder in (FOLDER, EARLY):
        assert sha256(folder / "model.safetensors") in card
        assert (folder / "model.safetensors").stat().st_size < 10_000_000
    for word in ("Recipe", "seed", "tokens", "cannot", "our own work"):
        assert word in card


def test_both_speak_the_same_language() -> None:
    assert (FOLDER / "tokenizer.json").read_text() == (EARLY / "tokenizer.json").read_text()


def test_the_chat_template() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|system|>S<|user|>U<|assistant|>A<|end|>"
    assert (
        tokenizer.apply_chat_template(chat[1:2], tokenize=False, add_generation_prompt=True) == "<|user|>U<|assistant|>"
    )


def test_tokens_a_lookup_needs_are_single_and_text_survives() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert [n for n in PEOPLE + FIRMS + CITIES if len(tokenizer.encode(f" {n}", add_special_tokens=False)) > 1] == []
    for text in ("\\boxed{A->B}", '{"output": [1,2]}', "def f(a):\n a=a[1:]\n return a", "naïve ✓ 漢字"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
        assert re.sub(r"\s", "", text)


# --- a miniature of the pretraining command: it learns, resumes bit for bit, and exports a plain transformers folder

SMALL = Recipe(
    steps=24,
    vocabulary=400,
    tokenizer_documents=300,
    hidden=32,
    layers=2,
    heads=2,
    kv_heads=2,
    head=16,
    feed_forward=64,
    batch_documents=8,
    warmup=4,
    checkpoint_every=8,
    keep_every=16,
)


def quiet(*_: object, **__: object) -> None:
    pass


def test_a_miniature_learns_and_a_resumed_one_is_the_same(tmp_path: Path) -> None:
    whole = torch.load(pretrain(SMALL, tmp_path / "whole", 1, quiet), weights_only=True)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and all(losses[-1][task] < losses[0][task] - 0.3 for task in WEIGHTS)

    class Stop(Exception):
        pass

    def stop_at_16(text: str, **_: object) -> None:
        if json.loads(text)["step"] == 16:
            raise Stop

    with contextlib.suppress(Stop):
        pretrain(SMALL, tmp_path / "half", 1, stop_at_16)
    assert torch.load(tmp_path / "half" / "checkpoint.pt", weights_only=True)["step"] == 8
    assert (tmp_path / "whole" / "checkpoint-16.pt").exists() and not (tmp_path / "whole" / "checkpoint-8.pt").exists()
    half = torch.load(pretrain(SMALL, tmp_path / "half", 1, quiet), weights_only=True)
    assert all(torch.equal(half["model"][name], weight) for name, weight in whole["model"].items())


def test_the_command_exports_a_plain_transformers_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(SMALL.model_copy(update={"steps": 2}).model_dump_json())
    command = [sys.executable, "-m", "fst_bench.embedded.pretrain", "--out", str(tmp_path / "work")]
    subprocess.run([*command, "--recipe", str(tmp_path / "recipe.json")], check=True, capture_output=True)
    subprocess.run([*command, "--export", str(tmp_path / "model")], check=True, capture_output=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1 +1"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**chat, max_new_tokens=4, do_sample=False).shape[1] > chat["input_ids"].shape[1]
