"""Write the documents of the lm-eval group `fst_general`: python -m fst_bench.embedded.general.write

They are general abilities that the embedded model has from pretraining and no stream trains; no document was pretrained
on.
"""

import json
import random
from pathlib import Path
from typing import Any

from fst_bench.embedded.abilities import ABILITIES, item
from fst_bench.embedded.text import STYLES, Writer, render
from fst_bench.fast.instructions import format_sentence
from fst_bench.harness.config import SEED_PROMPT

HERE = Path(__file__).parent
N = 200
TEXT_SEED = 1_000_003
"""Seed of the pretraining text here: the pretraining itself used seed 0."""


def generated(name: str) -> list[dict[str, Any]]:
    """Return an ability's questions, each with an answer format; right is the answer in that format."""
    rng = random.Random(f"general/{name}")
    rows = []
    for i in range(N):
        asked, style = item(name, "test", 0, i), STYLES[i % len(STYLES)]
        rows.append(
            {
                "system": f"{SEED_PROMPT} {format_sentence(style, rng)}",
                "question": asked.question,
                "target": render(name, style, asked.answer),
            }
        )
    return rows


def chosen(name: str) -> list[dict[str, Any]]:
    """Return the same questions with four answers to choose from, in one format."""
    rng = random.Random(f"general/{name}/choice")
    rows = []
    for i, row in enumerate(generated(name)):
        asked, style = item(name, "test", 0, i), STYLES[i % len(STYLES)]
        answers = {asked.answer}
        while len(answers) < 4:
            answers.add(wrong(asked.answer, rng))
        shuffled = rng.sample(sorted(answers), 4)
        choices = [render(name, style, answer) for answer in shuffled]
        rows.append(
            {
                "system": row["system"],
                "question": row["question"],
                "choices": choices,
                "gold": shuffled.index(asked.answer),
            }
        )
    return rows


def wrong(answer: str, rng: random.Random) -> str:
    """Return a wrong answer: a number near the right one, or the right letters with another one in one place."""
    if answer.isdecimal():
        return str(max(0, int(answer) + rng.choice([-10, -2, -1, 1, 2, 10])))
    letters = answer.split(" ")
    letters[rng.randrange(len(letters))] = rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return " ".join(letters)


def text() -> list[dict[str, Any]]:
    """Return instructed documents of the pretraining text, without noise, on problems that it did not have."""
    writer = Writer(TEXT_SEED)
    documents = [writer.document(i, 0.0, 0.0) for i in range(N)]
    return [{"system": d.system, "question": d.user, "target": d.response} for d in documents]


def sets() -> dict[str, list[dict[str, Any]]]:
    """Return every set of documents by its name."""
    asked = {name: generated(name) for name in ABILITIES}
    return asked | {f"{name}_choice": chosen(name) for name in ABILITIES} | {"text": text()}


if __name__ == "__main__":
    lines = [json.dumps({"set": name} | row) for name, rows in sorted(sets().items()) for row in rows]
    (HERE / "documents.jsonl").write_text("\n".join(lines) + "\n")
