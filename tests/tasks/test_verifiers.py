"""Right and wrong by the verifiers: at every level of difficulty, and at the edges of each answer syntax."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.tasks import TASKS, Problem, Score, load_task
from fst_bench.tasks.base import CORRECT, WRONG
from fst_bench.tasks.physics import SYMBOLS, base_unit, read_quantity


def verdict(name: str, answer: str, text: str) -> Score:
    """Score `text` where `answer` is right; hover, math, codeio and physics need nothing else of a problem."""
    return load_task(name).verify(Problem(f"{name}-0", "", answer, {}), text)


@pytest.mark.parametrize(
    ("name", "step"), [(name, step) for name, task in TASKS.items() for step in range(len(task.levels))]
)
def test_gold_earns_one_and_every_wrong_text_zero(name: str, step: int) -> None:
    task = load_task(name, **TASKS[name].levels[step])
    for problem in task.problems("test", n=3 if task.difficulty == load_task(name).difficulty else 10):
        gold = task.verify(problem, f"Some words first.\n{task.write(problem.answer)}")
        assert (gold.reward, gold.status) == (1.0, "ok")
        wrong_texts = task.wrong_texts(problem)
        assert len(wrong_texts) >= 6
        for text in wrong_texts:
            wrong = task.verify(problem, text)
            assert wrong.reward == 0.0 and wrong.status in ("wrong", "unparseable"), text
            assert wrong.feedback != gold.feedback and "\n" not in wrong.feedback
            assert (task.hint in wrong.feedback) == ("\n" not in text), "an answer without working gets the hint"


@pytest.mark.parametrize("name", TASKS)
def test_feedback_of_every_level(name: str) -> None:
    """Rewards are the same, a verdict says nothing more, and a diagnosis is the hint's feedback without the hint."""
    levels = ("verdict", "diagnosis", "hint")
    verdict, diagnosis, hint = (load_task(name, **TASKS[name].levels[1] | {"feedback": level}) for level in levels)
    problem = hint.problem("test", 0, 0)
    assert problem == verdict.problem("test", 0, 0) == diagnosis.problem("test", 0, 0)
    assert verdict.verify(problem, hint.write(problem.answer)).feedback == CORRECT
    for text in [*hint.wrong_texts(problem), "<think>so", ""]:
        told = [task.verify(problem, text) for task in (verdict, diagnosis, hint)]
        assert len({(score.reward, score.status) for score in told}) == 1
        assert told[0].feedback == WRONG and hint.hint not in told[1].feedback
        assert told[2].feedback.replace(f" {hint.hint}", "") == told[1].feedback


@pytest.mark.parametrize("name", TASKS)
def test_the_last_of_two_answers_counts(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problem("test", 0, 0)
    right, wrong = task.write(problem.answer), task.wrong_texts(problem)[1]
    assert task.verify(problem, f"{wrong}\n{right}").reward == 1.0
    assert task.verify(problem, f"{right}\n{wrong}").reward == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_far_from_the_end_of_a_long_text_is_not_looked_for(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problem("test", 0, 0)
    assert task.verify(problem, "x\n" * 100_000 + task.write(problem.answer)).reward == 1.0
    assert task.verify(problem, task.write(problem.answer) + "\nx" * 100_000).reward == 0.0


@pytest.mark.parametrize("name", ["math", "codeio", "hover", "star-graph", "physics"])
def test_feedback_tells_the_right_answer_where_one_was_given(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problem("test", 0, 0)
    texts = {
        "math": "\\boxed{1}",
        "codeio": '{"output": []}',
        "hover": "VERDICT: SUPPORTED EVIDENCE: Zoe",
        "physics": "ANSWER: 1 N",
    }
    if name == "star-graph":  # says what was wrong: the path itself is the answer
        source, goal = problem.data["path"][0], problem.data["path"][-1]
        decoy = next(arm for arm in problem.data["arms"] if arm[-1] != goal)
        assert f"not at the source {source}" in task.verify(problem, f"\\boxed{{{goal}->{source}}}").feedback
        assert f"no edge from {source} to {goal}" in task.verify(problem, f"\\boxed{{{source}->{goal}}}").feedback
        assert f"not at the goal {goal}" in task.verify(problem, f"\\boxed{{{'->'.join(decoy)}}}").feedback
        assert "linked by arrows" in task.verify(problem, f"\\boxed{{{source},{goal}}}").feedback
    else:
        assert problem.answer.split(": ")[-1] in task.verify(problem, texts[name]).feedback


# --- math --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        r"7",
        r" 7 ",
        r"+7",
        r"007",
        r"7.0",
        r"7.000",
        r"14/2",
        r"\frac{14}{2}",
        r"\dfrac{21}{3}",
        r"3+4",
        r"2\cdot 3.5",
        r"x=7",
        r"\sqrt{49}",
        r"(7)",
        r"\boxed{7}",
        r"7\text{ km}",
        r"\mathbf{7}",
        r"10^0 + 6",
        r"|-7|",
        r"$7$",
    ],
)
def test_math_takes_every_way_to_write_the_value(content: str) -> None:
    assert verdict("math", "7", f"So it is \\boxed{{{content}}}.").status == "ok"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("7", "unparseable"),
        ("\\boxed{}", "unparseable"),
        ("\\boxed{7", "unparseable"),
        ("\\boxed{7} \\boxed{", "unparseable"),
        ("\\boxed{7 8}", "unparseable"),
        ("\\boxed{3 4}", "unparseable"),
        ("\\boxed{7!}", "wrong"),
        ("\\boxed 7", "unparseable"),
        ("\\fbox{7", "unparseable"),
        ("\\boxed{8}, no: \\fbox{7} or \\boxed {8}", "wrong"),
        ("\\boxed{7７}", "unparseable"),
        ("\\boxed{٧}", "unparseable"),
        ("\\boxed{７}", "unparseable"),
        ("\\boxed{\u202e7}", "unparseable"),
        ("\\boxed{7\ud800}", "unparseable"),
        ("\\boxed{7\0}", "unparseable"),
        ("\\boxed{" + "9" * 5_000 + "}", "unparseable"),
        ("\\boxed{0." + "0" * 50 + "7}", "unparseable"),
        ("\\boxed{7.0000000000000000000000000001}", "wrong"),
        ("\\boxed{-7}", "wrong"),
        ("\\boxed{7,8}", "wrong"),
        ("\\boxed{7 or 8}", "wrong"),
        ("\\boxed{\\pm 7}", "wrong"),
        ("\\boxed{not 7}", "wrong"),
        ("\\boxed{NaN}", "wrong"),
        ("\\boxed{\\text{NaN}}", "wrong"),
        ("\\boxed{\\infty}", "wrong"),
        ("\\boxed{\\sqrt{\\infty}}", "wrong"),
        ("\\boxed{0/0}", "wrong"),
        ("\\boxed{7x}", "wrong"),
        ("\\boxed{7}\\boxed{8}", "wrong"),
        ("\\boxed{\\boxed{7} \\boxed{8}}", "wrong"),
    ],
)
def test_math_refuses_everything_else(text: str, status: str) -> None:
    assert (verdict("math", "7", text).reward, verdict("math", "7", text).status) == (0.0, status)


@pytest.mark.parametrize(
    ("gold", "content"), [("0", "-0"), ("0", "0.000"), ("1000000", "1000000.0"), ("1000000", "1,000,000")]
)
def test_math_zero_and_large_values(gold: str, content: str) -> None:
    assert verdict("math", gold, f"\\boxed{{{content}}}").status == "ok"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(value=st.integers(0, 10**6), zeros=st.integers(0, 5), tail=st.integers(0, 5), other=st.integers(0, 10**6))
def test_math_decimals_are_compared_exactly(value: int, zeros: int, tail: int, other: int) -> None:
    written = "0" * zeros + str(other) + ("." + "0" * tail if tail else "")
    assert (verdict("math", str(value), f"\\boxed{{{written}}}").reward == 1.0) == (value == other)
    assert verdict("math", str(value), f"\\boxed{{{value}.{'0' * tail}1}}").reward == 0.0


# --- codeio ------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(value=json_values, other=json_values, before=st.text(max_size=40))
def test_codeio_takes_the_value_itself_and_no_other(value: object, other: object, before: str) -> None:
    gold = json.dumps(value)
    assert verdict("codeio", gold, f'{before} {{}} {{"output": {gold}}} done').reward == 1.0
    assert verdict("codeio", gold, f'{before} {{"output": {json.dumps([value])}}}').reward == 0.0
    assert verdict("codeio", gold, f'{before} {{"output": {json.dumps(other)}}}').reward in (
        {1.0} if value == other else {0.0, 1.0}
    )


@pytest.mark.parametrize(
    ("gold", "output", "right"),
    [
        ("[1,2]", "[1,2]", True),
        ("[1,2]", "[1, 2 ]", True),
        ("[1,2]", "[1.0,2e0]", True),  # JSON has one kind of number
        ("[1,2]", "[2,1]", False),
        ("[1,2]", '"[1,2]"', False),
        ("[1,2]", "[1,2,3]", False),
        ("[1,2]", "[true,2]", False),
        ("true", "1", False),
        ("1", "true", False),
        ("0", "false", False),
        ("0", "-0", True),
        ("null", "null", True),
        ("null", "false", False),
        ("1000", "1000.5", False),  # integers are exact
        ("1000", "999.5", False),
        ("7", "1e999", False),
        ("7", "NaN", False),
        ("7", "-Infinity", False),
        ("7", "007", False),
        ("7", "+7", False),
        ("7", "７", False),
        ("7", "9" * 5_000, False),
        ("2.5", "2.5024", True),  # floats are right to a thousandth
        ("2.5", "2.4976", True),
        ("2.5", "2.503", False),
        ("2.5", "-2.5", False),
        ("2.5", "9" * 400, False),
        ("2.5", "[2.5]", False),
        ("2.0", "2", True),
        ("0.0", "0.001", False),
        ("1e-9", "2e-9", False),
        ('{"a":1,"b":2.0}', '{"b":2.001,"a":1}', True),
        ('{"a":1}', '{"a":1,"b":2}', False),
        ('{"a":1}', '{"A":1}', False),
        ('"é"', '"\\u00e9"', True),
        ('"e"', '"E"', False),
        ('"a"', '"a "', False),
    ],
)
def test_codeio_rules(gold: str, output: str, right: bool) -> None:
    assert (verdict("codeio", gold, f'{{"output": {output}}}').status == "ok") == right


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"output": [8], "output": [7]}', "ok"),  # of two keys the last counts, as for everything else
        ('{"output": [7], "output": [8]}', "wrong"),
        ('{"a": {"output": [7]}}', "unparseable"),  # the outermost object has no such key
        ('{"output": [7]} {"x": 1}', "unparseable"),
        ("{'output': [7]}", "unparseable"),
        ('{"Output": [7]}', "unparseable"),
        ('[{"output": [7]}]', "ok"),
        ('"output": [7]', "unparseable"),
        ('{"output": NaN}', "unparseable"),
        ('{"output": [7], "x": Infinity}', "unparseable"),
        ('{"output": [7]', "unparseable"),
        ('f = {x {"output": [7]} }}', "ok"),
        ('{"output": [7]} ' + "{" * 5_000, "unparseable"),
        ("{" * 5_000 + ' {"output": [7]}', "ok"),
        ('{"output": ' + "[" * 40 + "]" * 40 + "}", "unparseable"),
        ('{"output": [7]}\n```', "ok"),
    ],
)
def test_codeio_reads_the_last_outermost_object(text: str, status: str) -> None:
    assert verdict("codeio", "[7]", text).status == status


# --- hover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Corvex", "ok"),
        ("VERDICT: SUPPORTED\nEVIDENCE: Corvex;Ana\nThat is all.", "ok"),
        ("VERDICT: REFUTED EVIDENCE: Bob\nNo: VERDICT: SUPPORTED EVIDENCE: Ana; Corvex", "ok"),
        ("**VERDICT:** SUPPORTED\n**EVIDENCE:** Ana; Corvex", "ok"),
        ("- **VERDICT**: **SUPPORTED**.\n- **EVIDENCE**: **Ana**; “Corvex”.", "ok"),
        ("**VERDICT: SUPPORTED**\n**EVIDENCE: Ana; Corvex;**", "ok"),
        ("VERDICT: SUPPORTED, EVIDENCE: Corvex; Ana;", "ok"),
        ("VERDICT: SUPPORTED or NOT SUPPORTED EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT: NOT SUPPORTED EVIDENCE: Ana; Corvex", "unparseable"),
        ("**VERDICT:** REFUTED. SUPPORTED. EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT - SUPPORTED EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana, Corvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Corvex", "ok"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Corvex VERDICT: REFUTED EVIDENCE: Ana; Corvex", "wrong"),
        ("EVIDENCE: Ana; Corvex VERDICT: SUPPORTED", "unparseable"),
        ("VERDICT: SUPPORTED", "unparseable"),
        ("VERDICT: SUPPORTED EVIDENCE:", "unparseable"),
        ("VERDICT: SUPPORTED EVIDENCE: ; ;", "unparseable"),
        ("VERDICT: SUPPORTED or REFUTED EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT: supported EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT: ＳＵＰＰＯＲＴＥＤ EVIDENCE: Ana; Corvex", "unparseable"),
        ("VERDICT: REFUTED EVIDENCE: Ana; Corvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana;\nCorvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Ana; Corvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Corvex; Bob", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana; Corvex" + " " * 500 + "; Bob", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Ana Corvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: ana; corvex", "wrong"),
        ("VERDICT: SUPPORTED EVIDENCE: Bob EVIDENCE: Ana; Corvex", "wrong"),
    ],
)
def test_hover_requires_the_verdict_and_exactly_the_titles(text: str, status: str) -> None:
    assert verdict("hover", "SUPPORTED: Ana; Corvex", text).status == status


@pytest.mark.parametrize(
    ("titles", "status"),
    [
        ("Ocean’s Eleven; R&amp;B; S.O.S.", "ok"),
        ("“R&B”; S.O.S; Ocean's Eleven.", "ok"),
        ("**R&#38;B**; 'S.O.S.'; \"Ocean’s Eleven\"", "ok"),
        ("Oceans Eleven; R&B; S.O.S.", "wrong"),
        ("Ocean's Eleven; R&B; R&amp;B; S.O.S.", "wrong"),
        ("Ocean's Eleven; R&B; SOS", "wrong"),
    ],
)
def test_hover_titles_are_compared_without_their_typography(titles: str, status: str) -> None:
    gold = "SUPPORTED: Ocean's Eleven; R&B; S.O.S."
    assert verdict("hover", gold, f"VERDICT: SUPPORTED EVIDENCE: {titles}").status == status


# --- star-graph --------------------------------------------------------------------------------------------------


def test_star_graph_is_an_exact_match_of_the_last_box() -> None:
    task = load_task("star-graph", degree=2, path_length=3, pool=5)
    problem = Problem(
        "star-graph-0",
        "",
        "1->2->3",
        {"path": ["1", "2", "3"], "edges": [("1", "2"), ("2", "3"), ("1", "4"), ("4", "0")]},
    )
    for box in ("1->2->3", " 1->2->3\n"):
        assert task.verify(problem, f"\\boxed{{{box}}}").reward == 1.0
    for box in (
        "1->2",
        "1->2->3->",
        "->1->2->3",
        "1 ->2->3",
        "1→2→3",
        "１->2->3",
        "01->2->3",
        "1->2->3->2->3",
        "3->2->1",
        "1->4->0",
        "1-\\>2->3",
    ):
        assert task.verify(problem, f"\\boxed{{{box}}}").reward == 0.0, box


# --- physics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "12 N",
        "12N",
        "12.0 N",
        "+12 N",
        "012 N",
        "12 N.",
        "0.012 kN",
        "12000 mN",
        "1.2e1 N",
        "1.2E+1 N",
        "12 kg*m/s^2",
        "12 kg * m / s^2",
        "12 J/m",
        "12 kg*m*s^-2",
        "12 W*s/m",
        "12.011 N",
        "11.989 N",
        "12 Pa*m^2",
        "\n12 N",
        "12000 g*m/s/s",
        "12 V*C/m",
        "0.0002 kN*min/s",
        "12 N*s^0",
        ".012 kN",
        "12 kg m/s^2",
        "12 kg·m/s²",
        "12 kg⋅m·s⁻²",
        "0.000012e3 kN",
        "0.012×10^3 N",
        "1.2 * 10^1 N",
        "1.2 x 10^{1} N",
        "1.2\u00a0×\u00a010¹ N",
        "$12\\,\\text{N}$",
        "$12~\\mathrm{kg}\\cdot\\mathrm{m}/\\mathrm{s}^{2}$.",
        "**12 N**",
        "**12 N**.",
        "12,000 mN",
        "12 000 mN",
        "12\u202f000.0 mN",
    ],
)
def test_physics_takes_any_unit_of_the_dimension(line: str) -> None:
    assert verdict("physics", "12 N", f"F = m a\nANSWER: {line}").status == "ok"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", "unparseable"),
        ("12", "unparseable"),
        ("N", "unparseable"),
        ("N 12", "unparseable"),
        ("12 12 N", "unparseable"),
        ("12 N or 13 N", "unparseable"),
        ("12 N" + " " * 200 + "or 13 N", "unparseable"),
        ("12 N" + "*s/s" * 40, "unparseable"),
        ("1,2 N", "unparseable"),
        ("1,2000 mN", "unparseable"),
        ("12,00 mN", "unparseable"),
        ("12 00 mN", "unparseable"),
        ("12-13 N", "unparseable"),
        ("12 N, 13 N", "unparseable"),
        ("12 N 13 N", "unparseable"),
        ("12 N, not 13 N", "unparseable"),
        ("about 12 N", "unparseable"),
        ("\\text{12 N or 13 N}", "unparseable"),
        ("12 kg m /s^2 or so", "unparseable"),
        ("12×10^3 N", "wrong"),
        ("12 kg m s^2", "wrong"),
        ("１２ N", "unparseable"),
        ("١٢ N", "unparseable"),
        ("12 Ｎ", "unparseable"),
        ("12 n", "unparseable"),
        ("12 kkg", "unparseable"),
        ("12 lbf", "unparseable"),
        ("12 newton", "unparseable"),
        ("12 N**2", "unparseable"),
        ("12 N^99", "unparseable"),
        ("12 N^", "unparseable"),
        ("12 N*", "unparseable"),
        ("12 *N", "unparseable"),
        ("12 (N)", "unparseable"),
        ("1e999 N", "unparseable"),
        ("9" * 5_000 + " N", "unparseable"),
        ("nan N", "unparseable"),
        ("inf N", "unparseable"),
        ("1e30 N", "wrong"),
        ("1e-30 N", "wrong"),
        ("-12 N", "wrong"),
        ("12 kN", "wrong"),
        ("12 MN", "wrong"),
        ("12 N^9", "wrong"),
        ("12 J", "wrong"),
        ("12 s", "wrong"),
        ("12.013 N", "wrong"),
        ("13 N ANSWER: 12 J", "wrong"),
    ],
)
def test_physics_refuses_everything_else(line: str, status: str) -> None:
    assert verdict("physics", "12 N", f"ANSWER: {line}").status == status


def test_physics_units_are_the_textbook_ones() -> None:
    """Each listed symbol against a table written here: factor to SI base units, and powers of kg, m, s, A."""
    prefixes = {
        "": Fraction(1),
        "k": Fraction(1000),
        "M": Fraction(10**6),
        "m": Fraction(1, 1000),
        "c": Fraction(1, 100),
    }
    units = {
        "m": (0, 1, 0, 0),
        "s": (0, 0, 1, 0),
        "A": (0, 0, 0, 1),
        "N": (1, 1, -2, 0),
        "J": (1, 2, -2, 0),
        "W": (1, 2, -3, 0),
    }
    units |= {"V": (1, 2, -3, -1), "C": (0, 0, 1, 1), "Pa": (1, -1, -2, 0), "Hz": (0, 0, -1, 0), "g": (1, 0, 0, 0)}
    table = {p + u: (f / 1000 if u == "g" else f, powers) for p, f in prefixes.items() for u, powers in units.items()}
    ohm = (1, 2, -3, -2)
    table |= {
        "ohm": (Fraction(1), ohm),
        "kohm": (Fraction(1000), ohm),
        "h": (Fraction(3600), (0, 0, 1, 0)),
        "min": (Fraction(60), (0, 0, 1, 0)),
    }
    table["L"] = (Fraction(1, 1000), (0, 3, 0, 0))
    assert set(table) == SYMBOLS
    for symbol, (factor, powers) in table.items():
        named = {name: p for name, p in zip(("kilogram", "meter", "second", "ampere"), powers, strict=True) if p}
        assert (base_unit(symbol)[0], dict(base_unit(symbol)[1])) == (factor, named), symbol


@settings(deadline=None, derandomize=True, max_examples=100)
@given(value=st.integers(1, 10**6), unit=st.sampled_from(sorted(SYMBOLS)), per=st.sampled_from(sorted(SYMBOLS)))
def test_physics_reads_the_value_exactly(value: int, unit: str, per: str) -> None:
    quantity = read_quantity(f"{value} {unit}*{per}/{per}")
    assert quantity == (value * base_unit(unit)[0], base_unit(unit)[1])
    assert verdict("physics", f"{value} {unit}", f"ANSWER: {value * 1.0005:.6f} {unit}").reward == 1.0
    assert verdict("physics", f"{value} {unit}", f"ANSWER: {value * 1.0015:.6f} {unit}").reward == 0.0
