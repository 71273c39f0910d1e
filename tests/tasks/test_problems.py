"""Problems that the generators draw: right answers (derived a second way), disjoint splits, determinism, errors."""

import hashlib
import json
import operator
import re
from typing import Any, get_args

import networkx as nx
import pint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.tasks import TASKS, Problem, load_task
from fst_bench.tasks.base import SPLIT_SHARE, Split
from fst_bench.tasks.hover import CITIES, COUNTRIES, FIRMS, KNOWN_FIRMS, PEOPLE, RULERS

SPLITS: tuple[Split, ...] = get_args(Split)
EMBEDDED = {name: task.levels[1] for name, task in TASKS.items()}
"""The difficulties of the embedded model's streams."""
UNITS: pint.UnitRegistry = pint.UnitRegistry()


# --- a second solver for each task, which knows only the prompt ----------------------------------------------


def solve_math(prompt: str) -> str:
    start, *operations = prompt.removeprefix("Start and apply in order: ").split()
    value = int(start)
    for operation in operations:
        value = {"+": operator.add, "-": operator.sub, "*": operator.mul}[operation[0]](value, int(operation[1:]))
    return str(value)


def solve_codeio(prompt: str) -> str:
    code, call = prompt.rsplit("\n", 1)
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # our generator's function, not a model's
    return json.dumps(eval(call, namespace), separators=(",", ":"))


BASED_IN = {firm: city for group in KNOWN_FIRMS for city, firms in group.items() for firm in firms}
"""What a reader of hover's obscure claims has to know."""


def solve_hover(prompt: str) -> str:
    passages, claim = prompt.split("\nClaim: ")
    subject, claimed = re.fullmatch(r"(\w+) works (?:at|in|under the) (\w+)\.", claim).groups()  # type: ignore[union-attr]
    if passages.startswith("Facts: "):
        facts = re.findall(r"(\w+) (\w+)\.", passages.removeprefix("Facts: "))
    else:
        facts = re.findall(
            r"^\[(\w+)\] \1 (?:works at|is based in|lies in|is ruled by the) (\w+)\.$", passages, re.MULTILINE
        )
    links = dict(facts)
    assert len(links) == len(facts) > 0
    titles, found = [], subject
    while found in links or found in BASED_IN:
        titles += [found] if found in links else []
        found = links[found] if found in links else BASED_IN[found]
    return f"{'SUPPORTED' if found == claimed else 'REFUTED'}: {'; '.join(titles)}"


def graph_of(prompt: str) -> tuple[list[tuple[str, str]], str, str]:
    """Edges in the order they are written, source and goal."""
    text, ends = prompt.split("\n")
    pairs = re.findall(r"(\w+),(\w+)", text) or [(u, v) for v, u in re.findall(r"(\w+)<-(\w+)", text)]
    source, goal = re.fullmatch(r"Source:(\w+) Goal:(\w+)", ends).groups()  # type: ignore[union-attr]
    return pairs, source, goal


def solve_star_graph(prompt: str) -> str:
    edges, source, goal = graph_of(prompt)
    (path,) = nx.all_simple_paths(nx.Graph(edges), source, goal)
    return "->".join(path)


def solve_physics(prompt: str) -> str:
    quantities = re.findall(r"(\d+) (kg|m/s\^2|m/s|m|s|ohm|V|A|N)\b", prompt)
    product = UNITS.Quantity(1)
    for number, unit in quantities:  # every formula here is a product
        product *= UNITS.Quantity(int(number), unit)
    asked = re.search(r"Find the (\w+)\.$", prompt)
    unit = {
        "force": "N",
        "momentum": "kg*m/s",
        "work": "J",
        "power": "W",
        "voltage": "V",
        "charge": "C",
        "energy": "J",
        "distance": "m",
    }[asked[1]]  # type: ignore[index]
    return f"{product.to(unit).magnitude:.0f} {unit}"


SOLVERS = {
    "math": solve_math,
    "codeio": solve_codeio,
    "hover": solve_hover,
    "star-graph": solve_star_graph,
    "physics": solve_physics,
}
"""Of the tasks that can be solved from the prompt alone; hover-search has its own test, with its tool."""


@st.composite
def difficulties(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Any difficulty with enough problems for three splits."""
    match name:
        case "math":
            return {
                "operations": draw(st.integers(2, 64)),
                "max_value": draw(st.integers(20, 10**6)),
                "max_operand": draw(st.integers(3, 999)),
            }
        case "codeio":
            return {
                "lines": draw(st.integers(1, 40)),
                "max_length": draw(st.integers(3, 20)),
                "max_item": draw(st.integers(4, 999)),
            }
        case "hover":
            hops = draw(st.integers(1, 4))
            return {
                "chains": draw(st.integers(1, 15)),
                "hops": hops,
                "style": draw(st.sampled_from(["prose", "bare"])),
                "obscurity": draw(st.sampled_from([None, 0, 1, 2, 3])) if hops > 2 else None,
            }
        case "star-graph":
            degree, length = draw(st.integers(2, 8)), draw(st.integers(2, 8))
            shape = {
                "serialisation": draw(st.sampled_from(["pairs", "arrows"])),
                "orientation": draw(st.sampled_from(["outward", "undirected"])),
            }
            return {
                "degree": degree,
                "path_length": length,
                "pool": degree * (length - 1) + draw(st.integers(8, 40)),
                **shape,
            }
        case _:
            return {"steps": draw(st.integers(1, 3)), "max_value": draw(st.integers(9, 1000))}


@pytest.mark.parametrize("name", SOLVERS)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data(), split=st.sampled_from(SPLITS), seed=st.integers(0, 2**32), index=st.integers(0, 10_000))
def test_a_second_solver_finds_the_same_answer_at_every_difficulty(
    name: str, data: st.DataObject, split: Split, seed: int, index: int
) -> None:
    task = load_task(name, **data.draw(difficulties(name)))
    problem = task.problem(split, seed, index)
    assert SOLVERS[name](problem.prompt) == problem.answer
    assert task.problem(split, seed, index) == problem
    assert int(problem.id.removeprefix(f"{name}-")[:8], 16) % 20 in SPLIT_SHARE[split], (
        "the hash of the content decides the split"
    )


def test_answers_worked_out_by_hand() -> None:
    examples = {
        "math": ("Start and apply in order: 6 +2 +1 +6 -5 +4 +5", "19"),
        "codeio": (
            "def f(a):\n a=a[::-1]\n a=a[1:]+a[:1]\n a=[0]+a\n a=a[1:]+a[:1]\n return a\nf([0,8,3,2])",
            "[3,8,0,2,0]",
        ),
        "hover": (
            "Facts: Hana Nimbo. Astra Dakar. Tycho Cairo. Kim Astra. Nora Tycho. Nimbo Seoul.\n"
            "Claim: Hana works in Seoul.",
            "SUPPORTED: Hana; Nimbo",
        ),
        "star-graph": (
            "Edges:T<-D;G<-T;I<-E;L<-H;C<-E;M<-P;B<-I;H<-C;N<-M;J<-B;P<-E;D<-E\nSource:E Goal:J",
            "E->I->B->J",
        ),
        "physics": ("A current of 5 A flows through 5 ohm with 4 A drawn. Find the power.", "100 W"),
    }
    for name, (prompt, answer) in examples.items():
        problem = load_task(name, **EMBEDDED[name]).problem("test", 0, 0)
        assert (problem.prompt, problem.answer) == (prompt, answer)
        assert SOLVERS[name](prompt) == answer


def test_obscure_firms_are_based_in_one_city_and_no_passage_says_so() -> None:
    assert len(BASED_IN) == 256 == len({firm for group in KNOWN_FIRMS for firms in group.values() for firm in firms})
    assert not set(BASED_IN) & {*PEOPLE, *FIRMS, *CITIES, *COUNTRIES, *RULERS}
    for group in range(4):
        for problem in load_task("hover", chains=8, hops=3, style="bare", obscurity=group).problems("train", 0, 50):
            firms = {chain[1] for chain in problem.data["chains"]}
            assert firms <= {firm for based in KNOWN_FIRMS[group].values() for firm in based}
            assert not {title for title, _, _ in problem.data["passages"]} & firms
            person, firm, city, _ = problem.data["chain"]
            assert BASED_IN[firm] == city and problem.answer.endswith(f": {person}; {city}")
    prose = load_task("hover", chains=2, hops=4, obscurity=3).problem("train", 0, 0)
    assert "is based in" not in prose.prompt and prose.prompt.count("works at") == prose.prompt.count("lies in") == 2


# --- splits and determinism ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_problem_over_seeds(name: str) -> None:
    task = load_task(name, **EMBEDDED[name])
    seen = {split: {problem.id for seed in range(3) for problem in task.problems(split, seed, 150)} for split in SPLITS}
    assert all(len(ids) > (100 if name != "physics" else 50) for ids in seen.values()), (
        "physics has 625 problems in all here"
    )
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not seen[a] & seen[b]


@pytest.mark.parametrize("name", TASKS)
def test_seeds_indices_and_splits_give_other_problems(name: str) -> None:
    task = load_task(name)
    places: list[tuple[Split, int, int]] = [
        ("train", 0, 0),
        ("train", 0, 1),
        ("train", 1, 0),
        ("test", 0, 0),
        ("pretrain", 0, 0),
    ]
    assert len({task.problem(*place).prompt for place in places}) == len(places)


@pytest.mark.parametrize(
    ("name", "id", "prompt"),
    [
        ("math", "math-4c518f3d7d92", "52c189b1b1c2"),
        ("codeio", "codeio-9d8777552902", "2a0d0f5657f2"),
        ("hover", "hover-c8daa0ad0ce2", "4456f5cddfb5"),
        ("hover-search", "hover-search-c8daa0ad0ce2", "7bf25ec53d7f"),
        ("star-graph", "star-graph-d17cca51b2a4", "b2bf108eedbd"),
        ("physics", "physics-bd26984c2276", "0a8858342d5f"),
    ],
)
def test_the_first_test_problem_never_changes(name: str, id: str, prompt: str) -> None:
    problem = load_task(name).problem("test", 0, 0)
    assert (problem.id, hashlib.sha256(problem.prompt.encode()).hexdigest()[:12]) == (id, prompt), (
        "published results rest on these problems"
    )


def test_a_list_of_problems_is_its_problems_one_by_one() -> None:
    task = load_task("math")
    assert task.problems("train", 5, 3) == [task.problem("train", 5, i) for i in range(3)]


@pytest.mark.parametrize("name", TASKS)
def test_nominal_sizes(name: str) -> None:
    task = load_task(name, **EMBEDDED[name])
    assert task.sizes == {"train": 10_000, "test": 200}
    assert len(task.problems("test")) == 200


@pytest.mark.parametrize("name", TASKS)
def test_format_given_states_the_protocol_and_changes_nothing_else(name: str) -> None:
    plain, stated = (
        load_task(name, **EMBEDDED[name], format_given=given).problem("test", 0, 0) for given in (False, True)
    )
    protocol = TASKS[name].protocol
    assert protocol not in plain.prompt
    assert stated == Problem(plain.id, f"{plain.prompt}\n{protocol}", plain.answer, plain.data)


# --- mistakes of a user ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "difficulty", "parts"),
    [
        (
            "star-grahp",
            {},
            ["star-grahp", "did you mean star-graph?", "codeio, hover, hover-search, math, physics, star-graph"],
        ),
        (
            "math",
            {"operation": 3},
            ["'operation'", "did you mean operations?", "format_given, max_operand, max_value, mixture, operations"],
        ),
        (
            "codeio",
            {"max_len": 3},
            ["'max_len'", "did you mean max_length?", "format_given, lines, max_item, max_length"],
        ),
        ("math", {"operations": 65}, ["math: operations", "less than or equal to 64", "65"]),
        ("math", {"operations": "3"}, ["math: operations", "integer"]),
        ("physics", {"steps": 0}, ["physics: steps", "greater than or equal to 1", "0"]),
        ("hover", {"style": "proze"}, ["hover: style", "'prose' or 'bare'", "proze"]),
        ("hover", {"hops": 2, "obscurity": 1}, ["hover", "obscurity", "a claim of 2 hops", "it takes 3"]),
        ("hover", {"obscurity": 4}, ["hover: obscurity", "less than 4"]),
        ("star-graph", {"pool": 475}, ["degree 25 and path_length 20 need 476 nodes, pool has 475"]),
        (
            "star-graph",
            {"degree": 2, "path_length": 2, "pool": 27, "labels": "letters"},
            ["letters name at most 26 nodes, pool has 27"],
        ),
    ],
)
def test_a_wrong_name_or_parameter_gets_one_line_that_helps(
    name: str, difficulty: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError) as raised:
        load_task(name, **difficulty)
    message = str(raised.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="unknown split 'tset': did you mean test\\? There are pretrain, test, train"):
        load_task("math").problem("tset", 0, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'pretrain'.*There are test, train"):
        load_task("math").problems("pretrain")


def test_a_difficulty_without_problems_for_a_split_says_so() -> None:
    task = load_task("star-graph", degree=2, path_length=2, pool=3, labels="letters")  # six problems in all
    with pytest.raises(
        ValueError, match="star-graph: no test problem in 5000 draws, this difficulty has too few problems"
    ):
        task.problem("test", 0, 0)
