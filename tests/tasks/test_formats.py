"""One answer in many wrappers: the right one earns all, any other nothing, and feedback says which one is wanted."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.analysis.report import write_report
from fst_bench.cli.validate import run as validate_run
from fst_bench.embedded.text import render
from fst_bench.fast.instructions import FORMATS
from fst_bench.harness import loop
from fst_bench.harness.collection import Collection, collect
from fst_bench.harness.config import resolve
from fst_bench.tasks import TASKS, Problem, load_task
from fst_bench.tasks.base import answer_of, over
from fst_bench.tasks.formats import WRAPPERS, AnswerFormat, Wrapped
from fst_bench.tasks.hover_search import search
from fst_bench.tasks.stream import Stream, StreamSpec

WRAPPED = [name for name, task in TASKS.items() if issubclass(task, Wrapped)]
CASES = [(name, style) for name in WRAPPED for style in WRAPPERS]


def test_the_wrappers_are_those_the_embedded_model_was_taught() -> None:
    assert WRAPPED == ["math", "codeio", "star-graph", "physics"] and set(WRAPPERS) == set(FORMATS) - {
        "verdict",
        "plain",
    }


@pytest.mark.parametrize(("name", "style"), CASES)
def test_gold_in_the_wanted_wrapper_alone_is_right(name: str, style: AnswerFormat) -> None:
    task = load_task(name, **TASKS[name].levels[1], answer_format=style)
    for problem in task.problems("test", n=10):
        assert task.write(problem.answer) == render(name, style, problem.answer), "as the pretraining text writes it"
        assert task.verify(problem, f"Some words first.\n{task.write(problem.answer)}").reward == 1.0
        for other in WRAPPERS:
            if other != style:
                verdict = task.verify(problem, render(name, other, problem.answer))
                assert (verdict.reward, verdict.status) == (0.0, "unparseable")
                assert f"The answer was expected {WRAPPERS[style].wanted}, and n" in verdict.feedback
        wrong_texts = task.wrong_texts(problem)
        assert len(set(wrong_texts)) >= 6
        assert not [text for text in wrong_texts if task.verify(problem, text).reward]
        right, wrong = task.write(problem.answer), wrong_texts[1]
        assert (
            task.verify(problem, f"{wrong}\n{right}").reward == 1.0
            and task.verify(problem, f"{right}\n{wrong}").reward == 0.0
        )


@pytest.mark.parametrize(("name", "style"), CASES)
def test_the_format_changes_the_protocol_and_no_problem(name: str, style: AnswerFormat) -> None:
    usual, asked = (load_task(name, **TASKS[name].levels[1], **more) for more in ({}, {"answer_format": style}))
    assert usual.problems("train", 1, 5) == asked.problems("train", 1, 5)
    given = load_task(name, **TASKS[name].levels[1], answer_format=style, format_given=True)
    assert given.problem("train", 1, 0).prompt == f"{usual.problem('train', 1, 0).prompt}\n{asked.protocol}"
    assert (asked.protocol == TASKS[name].protocol) == (style == usual.difficulty.answer_format)


@pytest.mark.parametrize(
    ("style", "text", "found"),
    [
        ("boxed", "\\boxed{ 7 }", "7"),
        ("boxed", "\\boxed{7", None),
        ("boxed", "\\boxed {7}", "7"),
        ("boxed", "\\fbox{7}", "7"),
        ("boxed", "\\fbox{7} \\boxed{8}", "8"),
        ("boxed", "\\boxed 7", None),
        ("boxed", "\\mbox{7}", None),
        ("json", '{"output": 7}', "7"),
        ("json", '{"output": " 7 "}', "7"),
        ("json", '{"output": [1, 2]}', "[1,2]"),
        ("json", '{"output": 7} {"result": 8}', None),
        ("json", '{"output": 7', None),
        ("answer", "so ANSWER:\n 7 \nand more", "7"),
        ("answer", "ANSWER: 7 ANSWER: 8", "8"),
        ("answer", "Answer: 7", None),
        ("answer", "**ANSWER:** 7", "7"),
        ("answer", "**ANSWER**: 7", "7"),
        ("answer", "**ANSWER: 7**", "7"),
        ("answer", "**ANSWER:**\n**7**", "7"),
        ("answer", "**ANSWER:** 7\n**ANSWER:** 8", "8"),
        ("answer", "ANSWER 7", None),
        ("answer", "_ANSWER_: 7", None),
        ("answer", "ANSWER:", ""),
        ("tag", "<answer> 7 </answer>", "7"),
        ("tag", "<answer>7</answer><answer>8</answer>", "8"),
        ("tag", "<answer>7</answer><answer>8", None),
        ("tag", "7</answer>", None),
        ("hash", "6\n#### 7\n", "7"),
        ("hash", "### 7", None),
        ("hash", "#### **7**", "7"),
    ],
)
def test_what_stands_in_a_wrapper(style: AnswerFormat, text: str, found: str | None) -> None:
    assert WRAPPERS[style].read(text) == found


@pytest.mark.parametrize("style", WRAPPERS)
@given(
    answer=st.text(st.characters(categories=("L", "N", "P"), exclude_characters="{}<>#*\\"), min_size=1, max_size=20)
)
def test_what_is_written_is_read(style: AnswerFormat, answer: str) -> None:
    assert WRAPPERS[style].read(WRAPPERS[style].write(answer)) == answer


BOLD = ["{}", "**{}**", "**{}", "{}**"]
STYLE = {  # task -> (gold, its value and spellings, other values)
    "math": (
        "1200",
        ["1200", "1200.", "1,200", "1 200", "1\u202f200", "$1200$"],
        ["1200 or 7", "1,20", "12 00", "1201."],
    ),
    "physics": (
        "1200 J",
        ["1200 J", "1,200 J.", "1 200 J", "1.2*10^3 J", "1.2×10³ N·m", "1200 N m", "1.2 kJ"],
        ["1200", "1,20 J", "1200 J or 7 J", "1200 N/m", "1.2×10² J"],
    ),
}


@given(data=st.data(), name=st.sampled_from(sorted(STYLE)), space=st.sampled_from(["", " ", "\n", "\u00a0"]))
def test_style_changes_no_verdict_and_another_value_changes_it(data: st.DataObject, name: str, space: str) -> None:
    gold, same, others = STYLE[name]
    style = data.draw(st.sampled_from(["boxed", "answer", "tag", "hash"]))
    task, bold = load_task(name, answer_format=style), data.draw(st.sampled_from(BOLD[:2]))
    for contents, reward in ((same, 1.0), (others, 0.0)):
        text = WRAPPERS[style].write(space + bold.format(data.draw(st.sampled_from(contents))) + space)
        if style == "boxed":
            text = text.replace("\\boxed{", data.draw(st.sampled_from(["\\boxed{", "\\boxed {", "\\fbox{"])))
        if style == "answer":
            text = text.replace("ANSWER:", data.draw(st.sampled_from(["ANSWER:", "**ANSWER:**", "**ANSWER**:"])))
        assert task.verify(Problem("p-0", "", gold, {}), f"So:\n{text}").reward == reward, text


@given(data=st.data(), semicolon=st.sampled_from(["", ";", " ; ", ".", ";\nThat is all."]))
def test_style_changes_no_verdict_of_hover(data: st.DataObject, semicolon: str) -> None:
    def bold(text: str) -> str:
        return data.draw(st.sampled_from(["{}", "**{}**"])).format(text)

    def quoted(title: str) -> str:
        return data.draw(st.sampled_from(["{}", "**{}**", "“{}”", '"{}"', "{}."])).format(title)

    label = data.draw(st.sampled_from(["{}:", "**{}:**", "**{}**:"]))
    said = bold("SUPPORTED") + data.draw(st.sampled_from(["", ".", ",", "\n", "\n- "]))
    titles = "; ".join(map(quoted, data.draw(st.permutations(["Ana", "Ocean’s Eleven", "R&amp;B"]))))
    task, gold = load_task("hover"), "SUPPORTED: Ana; Ocean's Eleven; R&B"
    text = f"{label.format('VERDICT')} {said} {label.format('EVIDENCE')} {titles}{semicolon}"
    assert task.verify(Problem("p-0", "", gold, {}), text).reward == 1.0, text
    for wrong in (
        text.replace("SUPPORTED", "REFUTED"),
        text.replace("SUPPORTED", "SUPPORTED or REFUTED"),
        text.replace("SUPPORTED", "NOT SUPPORTED"),
        text.replace("SUPPORTED", "Supported"),
        text.replace("Ana", "Ana; Bob"),
        text.replace("Ana", "Eve"),
        text.replace("EVIDENCE", "Evidence"),
    ):
        assert task.verify(Problem("p-0", "", gold, {}), wrong).reward == 0.0, wrong


def test_math_says_where_it_looked() -> None:
    texts = {"boxed": "The box", "json": "The object", "answer": "ANSWER:", "tag": "The tag", "hash": "####"}
    for style, subject in texts.items():
        task = load_task("math", answer_format=style)
        problem = task.problem("test", 0, 0)
        assert (
            task.verify(problem, f"x\n{task.write('99999')}").feedback
            == f"{subject} says 99999, but the right value is {problem.answer}."
        )


def test_json_in_json() -> None:
    task = load_task("codeio", answer_format="json")
    problem = task.problem("test", 0, 0)
    assert task.write(problem.answer) == json.dumps(
        {"output": json.loads(problem.answer)}, separators=(",", ":")
    ).replace(":", ": ")


# --- what a model thought is not its answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        ("<think>3</think>7", "7"),
        ("3</think>7", "7"),  # the opening tag may stand in the prompt
        ("<think>a</think>b<think>c</think>7", "7"),
        ("<think></think>", ""),
        ("</think>", ""),
        ("<think>7", None),
        ("7<think>", None),
        ("<think>3</think>7<think>8", None),
        ("< think>7", "< think>7"),
        ("<thinking>7", "<thinking>7"),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


@given(st.text())
def test_a_text_without_the_tags_is_all_answer(text: str) -> None:
    assert "think>" in text or answer_of(text) == text


@pytest.mark.parametrize("name", TASKS)
def test_every_task_judges_the_answer_alone(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problem("test", 0, 0)
    right, wrong = task.write(problem.answer), task.wrong_texts(problem)[1]
    assert task.verify(problem, f"<think>\n{wrong}\n</think>\n\n{right}").reward == 1.0
    assert task.verify(problem, f"<think>\n{right}\n</think>\n\n{wrong}").reward == 0.0
    assert task.verify(problem, f"<think>\n{right}\n</think>\n\n").status == "unparseable"
    assert task.verify(problem, "<think>" * 300_000 + "</think>" + right).reward == 1.0
    left_open = task.verify(problem, f"{right}\n<think>\n{right}")
    assert (left_open.reward, left_open.status) == (0.0, "unparseable") and "never closed" in left_open.feedback


# --- the headline star-graph, (25, 20, 500), against the paper's words and with nothing of the generator but its text

DEGREE, LENGTH, POOL, N = 25, 20, 500, 200
EDGES = DEGREE * (LENGTH - 1)


@pytest.fixture(scope="module")
def instances() -> list[Problem]:
    return load_task("star-graph").problems("test")


def parse(problem: Problem) -> tuple[list[tuple[str, str]], str, str]:
    edges, ends = problem.prompt.split("\n")
    source, goal = ends.split(" ")
    pairs = [pair.split(",") for pair in edges.removeprefix("Edges: ").split(" ")]
    return [(u, v) for u, v in pairs], source.removeprefix("Source:"), goal.removeprefix("Goal:")


def test_every_instance_is_a_star_with_one_path(instances: list[Problem]) -> None:
    for problem in instances:
        edges, source, goal = parse(problem)
        graph = nx.DiGraph(edges)
        assert len(edges) == graph.number_of_edges() == EDGES == 475
        assert graph.number_of_nodes() == 476
        assert {str(i) for i in range(POOL)} >= set(graph)
        (path,) = nx.all_simple_paths(graph, source, goal)
        assert "->".join(path) == problem.answer and len(path) == LENGTH
        assert graph.out_degree(source) == DEGREE and graph.in_degree(source) == 0
        arms = list(nx.weakly_connected_components(graph.subgraph(set(graph) - {source})))
        assert len(arms) == DEGREE and {len(arm) for arm in arms} == {LENGTH - 1}
        assert all(graph.in_degree(node) == 1 and graph.out_degree(node) <= 1 for node in graph if node != source)


def test_all_prompts_are_distinct(instances: list[Problem]) -> None:
    assert len({problem.prompt for problem in instances}) == len({problem.id for problem in instances}) == N


def layers(problem: Problem) -> Iterator[tuple[int, int, bool]]:
    """Of each edge: its place in the text, its distance from the source, whether it is on the path."""
    edges, source, _ = parse(problem)
    depth = nx.single_source_shortest_path_length(nx.DiGraph(edges), source)
    gold = set(pairwise(problem.answer.split("->")))
    return ((place, depth[u], (u, v) in gold) for place, (u, v) in enumerate(edges))


def within(observed: float, expected: float, standard_error: float) -> bool:
    return abs(observed - expected) <= 4 * standard_error


def test_edges_are_shuffled_uniformly(instances: list[Problem]) -> None:
    gold_places, first_layers, first_gold, followers = [], [], 0, 0
    for problem in instances:
        rows = list(layers(problem))
        gold_places += [place for place, _, gold in rows if gold]
        first_layers.append(rows[0][1])
        first_gold += rows[0][2]
        edges = parse(problem)[0]
        followers += sum(a[1] == b[0] for a, b in pairwise(edges))
    steps = LENGTH - 1
    place_variance = (
        (EDGES**2 - 1) / 12 / steps * (EDGES - steps) / (EDGES - 1)
    )  # of a mean of 19 places without replacement
    assert within(sum(gold_places) / len(gold_places), (EDGES - 1) / 2, math.sqrt(place_variance / N))
    assert within(sum(first_layers) / N, (steps - 1) / 2, math.sqrt((steps**2 - 1) / 12 / N))
    share = steps / EDGES
    assert within(first_gold / N, share, math.sqrt(share * (1 - share) / N))
    pairs = DEGREE * (steps - 1) / EDGES  # edges that are followed at once by the next edge of their arm: about Poisson
    assert within(followers / N, pairs, math.sqrt(pairs / N))


def test_nodes_come_from_the_whole_pool_evenly(instances: list[Problem]) -> None:
    sources = [int(parse(problem)[1]) for problem in instances]
    assert within(sum(sources) / N, (POOL - 1) / 2, math.sqrt((POOL**2 - 1) / 12 / N))
    absent = [
        sum(str(i) not in nodes for nodes in ({n for e in parse(p)[0] for n in e} for p in instances))
        for i in (0, 250, 499)
    ]
    assert all(within(count / N, 24 / 500, math.sqrt(24 / 500 * 476 / 500 / N)) for count in absent)


def test_undirected_edges_are_turned_about_half_of_the_time() -> None:
    task = load_task("star-graph", orientation="undirected")
    turned = 0
    for problem in task.problems("test", n=10):
        edges, source, _ = parse(problem)
        depth = nx.single_source_shortest_path_length(nx.Graph(edges), source)
        turned += sum(depth[u] > depth[v] for u, v in edges)
    assert within(turned / (10 * EDGES), 0.5, math.sqrt(0.25 / (10 * EDGES)))


# --- a difficulty that is a mixture of levels: its problems, its held-out strata, its verdicts and its rows


MATH = {"max_value": 60, "max_operand": 9}
SHARES = {"operations 1": 1, "operations 2": 2, "operations 5": 5}
MIXTURE = [{"operations": int(level.split()[1]), "share": share} for level, share in SHARES.items()]


@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=8), st.integers(1, 2000))
def test_every_stretch_of_held_out_problems_has_nearly_the_shares(shares: list[float], n: int) -> None:
    mixture = [{"operations": i + 1, "share": share} for i, share in enumerate(shares)]
    task = load_task("math", mixture=mixture)
    counts = Counter(task.part("test", 0, i) for i in range(n))
    assert all(abs(counts[f"operations {i + 1}"] - n * s / sum(shares)) < 3 for i, s in enumerate(shares))


def test_problems_to_train_on_have_the_shares_at_random() -> None:
    task = load_task("math", mixture=MIXTURE)
    counts = Counter(task.part("train", seed, i) for seed in range(10) for i in range(400))
    assert all(abs(counts[level] / 4000 - share / 8) < 0.03 for level, share in SHARES.items())
    assert [task.part("train", 0, i) for i in range(40)] != [task.part("train", 1, i) for i in range(40)]


def test_a_problem_is_that_of_its_level() -> None:
    task = load_task("math", **MATH, mixture=MIXTURE)
    for split in ("train", "test"):
        for i in range(30):
            problem = task.problem(split, 0, i)
            alone = load_task("math", **MATH, operations=int(problem.level.split()[1])).problem(split, 0, i)
            assert (problem.id, problem.prompt, problem.answer) == (alone.id, alone.prompt, alone.answer)
    assert load_task("math").problem("train", 0, 0).level == ""


def test_an_answer_is_judged_at_its_problems_level() -> None:
    task = load_task("math", **MATH, mixture=[{"answer_format": "tag"}, {"answer_format": "json"}])
    for problem in task.problems("test", 0, 6):
        answers = {"answer_format tag": f"<answer>{problem.answer}</answer>"}
        answers["answer_format json"] = f'{{"output": {problem.answer}}}'
        earned = {level: task.verify(problem, text).reward for level, text in answers.items()}
        assert earned == {level: float(level == problem.level) for level in answers}


def test_a_tool_replies_at_its_problems_level() -> None:
    levels = [{"results": 1}, {"results": 3}]
    task = load_task("hover-search", chains=4, hops=2, style="bare", mixture=levels)
    for problem in task.problems("test", 0, 4):
        turn = search(" ".join(title for title, _, _ in problem.data["passages"]))
        reply = task.at(problem).respond(problem, [turn])
        assert reply is not None and reply.count(".") == int(problem.level.split()[1])
        alone = load_task("hover-search", chains=4, hops=2, style="bare", results=int(problem.level.split()[1]))
        assert task.verify(problem, "x", [turn]) == alone.verify(alone.problem("test", 0, 0), "x", [turn])


@pytest.mark.parametrize(
    ("mixture", "more", "complaint"),
    [
        ([{"operations": 99}], {}, "level operations 99 of the mixture: operations: Input should be less than"),
        ([{"lines": 3}], {}, "unknown key 'lines'"),
        ([{"share": 2}], {}, "a level has difficulty parameters"),
        ([{"operations": 3, "share": 0}], {}, "a share is a number above 0, not 0"),
        ([{"operations": 3, "share": "half"}], {}, "a share is a number above 0, not 'half'"),
        ([{"operations": 3, "mixture": []}], {}, "no mixture of its own"),
        ([{"operations": 3}], {"operations": 4}, "operations: set beside a mixture whose levels have it"),
    ],
)
def test_a_wrong_mixture_is_one_line(mixture: list[dict[str, Any]], more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        load_task("math", mixture=mixture, **more)
    assert "\n" not in str(error.value)


def test_only_the_levels_have_to_be_possible() -> None:
    small = {"pool": 20, "labels": "letters"}
    task = load_task("star-graph", **small, mixture=[{"degree": 2, "path_length": 3}, {"degree": 4, "path_length": 4}])
    assert {len(p.data["path"]) for p in task.problems("test", 0, 8)} == {3, 4}
    with pytest.raises(
        ValueError, match="level degree 9, path_length 9 of the mixture: degree 9 and path_length 9 need 73"
    ):
        load_task("star-graph", **small, mixture=[{"degree": 9, "path_length": 9}])


def test_equal_levels_are_one_with_the_share_of_both() -> None:
    task = load_task("math", mixture=[{"operations": 3}, {"operations": 4, "share": 2}, {"operations": 3}])
    assert {level: share for level, (share, _) in task.parts.items()} == {"operations 3": 0.5, "operations 4": 0.5}


def test_what_is_set_later_wins() -> None:
    mixed = {"max_value": 60, "mixture": MIXTURE}
    assert over({"operations": 3, "max_value": 60}, {"mixture": MIXTURE}) == mixed
    assert over(mixed, {"max_value": 90}) == {"max_value": 90, "mixture": MIXTURE}
    assert over(mixed, {"operations": 4}) == {"max_value": 60, "operations": 4}
    assert over(mixed, {"operations": 4, "mixture": []}) == {"max_value": 60, "operations": 4, "mixture": []}
    settings = {"difficulty.math.mixture": MIXTURE}
    difficulty = resolve("continual-4", "rl", "tiny", 0, settings)[0].difficulty["math"]
    assert difficulty == {"max_value": 60, "max_operand": 9, "mixture": MIXTURE}
    with pytest.raises(ValueError, match="mixture: Input should be a valid list"):
        resolve("continual-4", "rl", "tiny", 0, {"difficulty.math.mixture": "x"})
    stages = [{"task": "math", "problems": 48, "difficulty": {"operations": 3}}]
    spec = StreamSpec.model_validate({"name": "one", "version": 1, "description": "", "stages": stages})
    assert Stream(spec, 0, {"math": mixed}).held_out()["math"].parts == {}


def test_a_drift_leads_each_level_to_its_own_value() -> None:
    spec = StreamSpec.model_validate(
        {
            "name": "drifting",
            "version": 1,
            "description": "",
            "stages": [{"task": "math", "problems": 65, "drift": {"operations": [2, None], "max_operand": [3, 9]}}],
        }
    )
    mixture = [{"operations": 4}, {"operations": 8, "share": 3}]
    stream = Stream(spec, 0, {"math": {"max_value": 60, "mixture": mixture}})
    levels = [stream.verifier_of(i).parts for i in (0, 32, 64)]
    assert [*levels[0]] == ["operations 2"] and [*levels[1]] == ["operations 3", "operations 5"]
    assert [*levels[2]] == ["operations 4", "operations 8"]
    assert [share for share, _ in levels[2].values()] == [0.25, 0.75]
    assert [next(iter(parts.values()))[1].difficulty.max_operand for parts in levels] == [3, 6, 9]


@pytest.mark.parametrize("mixture", ["x", 3, [3], [{"operations": 3}, 4], [{"operations": 3, "lines": 1}]])
def test_a_mixture_of_any_kind_in_a_drift_is_one_line(mixture: Any) -> None:
    stages = [{"task": "math", "problems": 48, "difficulty": {"mixture": mixture}, "drift": {"operations": [1, 2]}}]
    spec = StreamSpec.model_validate({"name": "odd", "version": 1, "description": "", "stages": stages})
    with pytest.raises(ValueError, match="mixture") as error:
        Stream(spec, 0, {})
    assert "\n" not in str(error.value)


def test_evaluation_rows_have_the_accuracy_of_each_level_and_kl_where_it_is_asked_for(tmp_path: Path) -> None:
    levels = [{"operations": 1, "share": 3}, {"operations": 6}]
    settings = {"boundary": 16, "small": 8, "interval": 4, "kl": "boundary"}
    mixed = {"stage_problems": 8, "batch": 4, "evaluation": settings, "difficulty": {"math": {"mixture": levels}}}
    run = loop.run("single-math", "base", tmp_path, preset="smoke", **mixed)
    rows = run.typed("evals")
    assert {row.problems for row in rows} == {0, 4, 8}
    for row in rows:
        n = 16 if row.boundary else 8
        assert [(level.level, level.n) for level in row.levels] == [
            ("operations 1", 3 * n / 4),
            ("operations 6", n / 4),
        ]
        assert row.accuracy == pytest.approx(sum(level.accuracy * level.n for level in row.levels) / n)
        assert (row.kl is not None) == (row.kl_per_answer is not None) == (row.boundary and row.prompt_mode == "system")
    assert [stage["kl"] for stage in run.metrics["stages"]] == [{"system": 0.0}]
    collect([("base/one", run)], tmp_path / "kept")
    collection = Collection.at(tmp_path / "kept")
    assert collection is not None
    assert collection.runs()[0].typed("evals") == rows
    assert all(wrong is None for _, wrong in validate_run(str(run.path)))
    assert write_report(run.path).exists()
    (small,) = (row for row in rows if not row.boundary and row.prompt_mode == "system")
    (run.path / "evals.jsonl").write_text(
        "".join((row.model_copy(update={"kl": 0.0}) if row is small else row).model_dump_json() + "\n" for row in rows)
    )
    assert "its KL is 0.0, with evaluation.kl=boundary" in str(list(validate_run(str(run.path))))
