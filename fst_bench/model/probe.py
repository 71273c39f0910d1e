"""The model card's table: what a model does under prompts written by hand.

    python -m fst_bench.model.probe --model embedded:tiny --n 192

For each task at a preset's difficulty: the seed prompt, the right format sentence, and format with strategy, each
sampled at temperature 1 and (the last one) greedy. The sentences are of the pretraining language, so this is what
a prompt can do at best for the model, not what a method will find.
"""

import argparse

import torch

from fst_bench.config import load_preset
from fst_bench.policy import Ask, Policy, load_policy
from fst_bench.policy.torch_backend import PolicySettings
from fst_bench.seeds import seed_for
from fst_bench.tasks import TASKS, Task, load_task

from .text import SEED_PROMPT

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


def accuracy(policy: Policy, task: Task, context: str, n: int, temperature: float) -> float:
    """Share of `n` held-out problems answered rightly under a context."""
    problems = task.problems("test", 0, n)
    asks = [Ask(({"role": "system", "content": context}, {"role": "user", "content": p.prompt}), seed_for("probe", p.id)) for p in problems]
    return sum(task.verify(p, group[0].text).reward for p, group in zip(problems, policy.sample(asks, temperature=temperature), strict=True)) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--n", type=int, default=192)
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset = load_preset(args.preset)
    policy = load_policy(args.model, PolicySettings(max_tokens=preset["policy"]["max_tokens"]))
    print("| task | seed prompt | format | format + strategy | the same, greedy |\n| --- | --- | --- | --- | --- |")
    for name in TASKS:
        task = load_task(name, **preset["difficulty"][name])
        contexts = [SEED_PROMPT, f"{SEED_PROMPT} {FORMAT[name]}", f"{SEED_PROMPT} {FORMAT[name]} {STRATEGY[name]}"]
        shares = [accuracy(policy, task, context, args.n, 1.0) for context in contexts] + [accuracy(policy, task, contexts[-1], args.n, 0.0)]
        print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
