r"""star-graph: find the one path from the source to the goal among decoy arms. Protocol: the path in the last \boxed{}.

The paper's planning task (Prakash & Buvanesh, arXiv 2510.03971): `degree` arms leave the source, each with
`path_length` nodes counting the source, nodes sampled from a pool of `pool`; edges are shuffled uniformly.
The headline is (25, 20, 500): 25 * 19 + 1 = 476 nodes, 475 edges, exact string match. The wording is ours.
"""

import random
import string
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, clip
from fst_bench.tasks.formats import AnswerFormat, Wrapped


class StarGraphDifficulty(Difficulty):
    degree: Annotated[int, Field(ge=2, le=200)] = 25
    path_length: Annotated[int, Field(ge=2, le=200)] = 20
    pool: Annotated[int, Field(ge=3, le=100_000)] = 500
    labels: Literal["numbers", "letters"] = "numbers"
    serialisation: Literal["pairs", "arrows"] = "pairs"
    """`pairs` is the paper's: one line of space-separated "u,v"; `arrows` writes "v<-u" joined by ";"."""
    orientation: Literal["outward", "undirected"] = "outward"
    answer_format: AnswerFormat = "boxed"

    @model_validator(mode="after")
    def enough_nodes(self) -> Self:
        nodes = self.degree * (self.path_length - 1) + 1
        if nodes > self.pool and not self.mixture:  # its levels are checked by themselves
            raise ValueError(
                f"degree {self.degree} and path_length {self.path_length} need {nodes} nodes, pool has {self.pool}"
            )
        if self.labels == "letters" and self.pool > 26:
            raise ValueError(f"letters name at most 26 nodes, pool has {self.pool}")
        return self


class StarGraph(Wrapped):
    name = "star-graph"
    Difficulty = StarGraphDifficulty
    own = "boxed"
    more = " Separate the nodes with arrows."
    protocol = "Put the final answer inside \\boxed{}. Separate the nodes with arrows."
    hint = "It helps to retrace the route from the goal back to the source."
    levels = [
        {"degree": 2, "path_length": 2, "pool": 8},
        {"degree": 4, "path_length": 4, "pool": 20, "labels": "letters", "serialisation": "arrows"},
        {"degree": 5, "path_length": 5, "pool": 50, "orientation": "undirected"},
        {},
    ]

    def draw(self, rng: random.Random) -> Draft:
        d = self.difficulty
        pool = string.ascii_uppercase[: d.pool] if d.labels == "letters" else [str(i) for i in range(d.pool)]
        source, *rest = rng.sample(pool, 1 + d.degree * (d.path_length - 1))
        step = d.path_length - 1
        arms = [[source, *rest[i : i + step]] for i in range(0, len(rest), step)]
        edges = [edge for arm in arms for edge in pairwise(arm)]
        rng.shuffle(edges)
        path = rng.choice(arms)
        key = f"{source}>{path[-1]} {sorted(edges)}"
        if d.orientation == "undirected":
            edges = [edge if rng.random() < 0.5 else edge[::-1] for edge in edges]
        if d.serialisation == "pairs":
            text = "Edges: " + " ".join(f"{u},{v}" for u, v in edges)
        else:
            text = "Edges:" + ";".join(f"{v}<-{u}" for u, v in edges)
        return Draft(
            key,
            f"{text}\nSource:{source} Goal:{path[-1]}",
            "->".join(path),
            {"arms": arms, "path": path, "edges": edges},
        )

    def check(self, problem: Problem, text: str) -> Score:
        content = self.wrapper.read(text)
        if not content:
            return Score(
                0.0,
                self.teach(f"The answer was expected {self.wrapper.wanted}, and no path was found there.", text),
                "unparseable",
            )
        if content == problem.answer:
            return Score(1.0, CORRECT, "ok", clip(content))
        if "->" not in content:
            return Score(
                0.0, self.teach("The nodes were expected to be linked by arrows.", text), "wrong", clip(content)
            )
        given, path = content[: 16 * len(problem.answer)].split("->"), problem.data["path"]
        allowed = {frozenset(edge) for edge in problem.data["edges"]}
        if given[0] != path[0]:
            diagnosis = f"The path begins at {clip(given[0], 12)}, not at the source {path[0]}."
        elif missing := next((e for e in pairwise(given) if frozenset(e) not in allowed), None):
            diagnosis = f"The graph has no edge from {clip(missing[0], 12)} to {clip(missing[1], 12)}."
        elif given[-1] != path[-1]:
            diagnosis = f"The path ends at {clip(given[-1], 12)}, not at the goal {path[-1]}."
        else:
            diagnosis = "The path is not written exactly once, without spaces."
        return Score(0.0, self.teach(diagnosis, text), "wrong", clip(content))

    def wrong_texts(self, problem: Problem) -> list[str]:
        path = problem.data["path"]
        decoy = next(arm for arm in problem.data["arms"] if arm != path)
        return [
            problem.answer,
            self.write("->".join(decoy)),
            self.write("->".join(path[::-1])),
            self.write("->".join(path[:-1])),
            self.write(",".join(path)),
            self.write(" -> ".join(path)),
            self.write("->".join([*path[:-1], path[-1], path[-1]])),
            self.write(problem.answer) + self.write("->".join(decoy)),
        ]
