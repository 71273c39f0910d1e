"""The model card's tables: a model's accuracy under prompts written by hand, and its abilities that no stream trains.

    python -m fst_bench.embedded.card --model embedded:tiny --n 400

Tasks, at a preset's difficulty: the seed prompt, the right format sentence, and format with strategy, sampled at
temperature 1, and the last one greedy. Then the last one with its format sentence in front of the problem and behind
it, where a stream that gives formats states it. Where the difficulty is a mixture, the same by level. The sentences are
of the pretraining language, so they show the most that a prompt can do for the model, not what a method will find.
Abilities: greedy, each asked in all answer formats.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from fst_bench.core.seeds import seed_for
from fst_bench.core.types import SampleRequest
from fst_bench.embedded.abilities import ABILITIES, item
from fst_bench.embedded.text import STYLES, render
from fst_bench.fast.instructions import format_sentence
from fst_bench.harness.config import SEED_PROMPT, load_preset
from fst_bench.method.lab import conversation
from fst_bench.metrics.intervals import wilson
from fst_bench.policy import Policy, PolicySettings, load_policy
from fst_bench.tasks import Problem, Task, load_task
from fst_bench.tasks.base import over
from fst_bench.tasks.hover import read_labels

FORMAT = {
    "math": "Put the final answer inside \\boxed{}.",
    "codeio": "Give the answer as a JSON object with the key output.",
    "hover": "Write VERDICT: and then EVIDENCE: with the titles.",
    "star-graph": "Put the final answer inside \\boxed{}. Separate the nodes with arrows.",
    "physics": "Write ANSWER: before the final answer with its unit.",
}
STRATEGY = {
    "math": "Compute each operation one at a time.",
    "codeio": "Trace the code line by line.",
    "hover": "Follow the links from fact to fact.",
    "star-graph": "Trace the path backwards from the goal.",
    "physics": "Write the formula first.",
}


def prompts_by_hand(task: str) -> list[str]:
    """Return the seed prompt alone, with the right format sentence, and with the strategy sentence too."""
    return [SEED_PROMPT, f"{SEED_PROMPT} {FORMAT[task]}", f"{SEED_PROMPT} {FORMAT[task]} {STRATEGY[task]}"]


def answers(policy: Policy, context: str, prompts: Sequence[str], temperature: float) -> list[str]:
    """Return one sampled answer to each prompt under a context."""
    requests = [SampleRequest(conversation(context, p), seed_for("probe", i)) for i, p in enumerate(prompts)]
    return [group[0].text for group in policy.sample(requests, temperature=temperature)]


def rewards(policy: Policy, task: Task, context: str, problems: Sequence[Problem], temperature: float) -> list[float]:
    """Return the reward of one answer to each problem under a context."""
    texts = answers(policy, context, [p.prompt for p in problems], temperature)
    return [task.verify(p, text).reward for p, text in zip(problems, texts, strict=True)]


def columns(policy: Policy, task: Task, problems: Sequence[Problem]) -> dict[str, list[float]]:
    """Return column of the tables -> the reward of each problem."""
    seed, form, best = prompts_by_hand(task.name)
    told = f"{SEED_PROMPT} {STRATEGY[task.name]}"
    front = [replace(p, prompt=f"{FORMAT[task.name]}\n{p.prompt}") for p in problems]
    behind = [replace(p, prompt=f"{p.prompt}\n{FORMAT[task.name]}") for p in problems]
    return {
        "seed prompt": rewards(policy, task, seed, problems, 1.0),
        "format": rewards(policy, task, form, problems, 1.0),
        "format + strategy": rewards(policy, task, best, problems, 1.0),
        "the same, greedy": rewards(policy, task, best, problems, 0.0),
        "format in front": rewards(policy, task, told, front, 1.0),
        "format behind": rewards(policy, task, told, behind, 1.0),
    }


def verdict_given_evidence(
    policy: Policy, task: Task, context: str, problems: Sequence[Problem], temperature: float
) -> tuple[float, int]:
    """Return (share of right verdicts where hover's evidence is right, number of those): chance is one half."""
    verdicts = []
    for p, text in zip(problems, answers(policy, context, [p.prompt for p in problems], temperature), strict=True):
        verdict, titles = p.answer.split(": ", 1)
        given = read_labels(text)
        if given and set(given[1]) == set(titles.split("; ")):
            verdicts.append(given[0] == verdict)
    return sum(verdicts) / max(1, len(verdicts)), len(verdicts)


def ability(policy: Policy, name: str, n: int) -> tuple[float, float]:
    """Return the shares (right answers, right answers in exactly the asked format), greedy, on held-out items."""
    items, rng = [item(name, "test", 0, i) for i in range(n)], random.Random(name)
    styles = [STYLES[i % len(STYLES)] for i in range(n)]
    contexts = [f"{SEED_PROMPT} {format_sentence(style, rng)}" for style in styles]
    requests = [SampleRequest(conversation(c, it.question), 0) for c, it in zip(contexts, items, strict=True)]
    texts = [group[0].text for group in policy.sample(requests, temperature=0.0)]
    exact = sum(text == render(name, style, it.answer) for text, style, it in zip(texts, styles, items, strict=True))
    right = sum(
        any(text == render(name, style, it.answer) for style in STYLES) for text, it in zip(texts, items, strict=True)
    )
    return right / n, exact / n


def shown(share: float, n: int) -> str:
    """Return a share with its 95 % Wilson interval."""
    low, high = wilson(share, n)
    return f"{share:.2f} ({max(0.0, low):.2f}-{min(1.0, high):.2f})"


def main() -> None:
    """Print the tables of the command line's model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--difficulty", type=json.loads, default={}, help='JSON, e.g. {"math": {"operations": 7}}')
    parser.add_argument("--tasks", default=",".join(FORMAT))
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset = load_preset(args.preset)
    policy = load_policy(args.model, PolicySettings(max_tokens=preset["policy"]["max_tokens"]))
    head = ""
    for name in map(str.strip, args.tasks.split(",")):
        task = load_task(name, **over(preset["difficulty"][name], args.difficulty.get(name, {})))
        problems = task.problems("test", 0, args.n)
        found = columns(policy, task, problems)
        if not head:
            head = f"| task | n | {' | '.join(found)} |\n| --- | --- {'| --- ' * len(found)}|"
            print(head)
        for level in ["", *sorted({p.level for p in problems} - {""}, key=[*task.parts].index)]:
            mine = [i for i, p in enumerate(problems) if level in ("", p.level)]
            shares = [shown(sum(row[i] for i in mine) / len(mine), len(mine)) for row in found.values()]
            print(f"| {name}{level and ', '}{level} | {len(mine)} | {' | '.join(shares)} |", flush=True)
        contexts = prompts_by_hand(name)
        if name == "hover":
            share, right = verdict_given_evidence(policy, task, contexts[-1], problems, 1.0)
            of_them = shown(share, max(1, right))
            print(f"hover, T = 1: {of_them} of the verdicts are right where the evidence is (n = {right})")
    print("\n| ability | right answer | in the asked format |\n| --- | --- | --- |")
    for name in ABILITIES:
        right_exact = ability(policy, name, args.n)
        print(f"| {name} | " + " | ".join(shown(share, args.n) for share in right_exact) + " |", flush=True)


if __name__ == "__main__":
    main()
