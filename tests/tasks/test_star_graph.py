"""The headline star-graph, (25, 20, 500), against the paper's words and with nothing of the generator but its text."""

import math
from collections.abc import Iterator
from itertools import pairwise

import networkx as nx
import pytest

from fst_bench.tasks import Problem, load_task

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
