"""Rows with exactly the columns of the real data sets."""

from typing import Any


def polaris(n: int) -> list[dict[str, Any]]:
    return [{"problem": f"What is ${i}+1$?", "answer": str(i + 1), "difficulty": f"{i % 8}/8"} for i in range(n)]


def hover(n: int) -> list[dict[str, Any]]:
    return [
        {
            "claim": f"The actor of film {i} was born in town {i}.",
            "supporting_facts": [
                {"key": f"Film {i}", "value": 0},
                {"key": f"Town {i}", "value": 2},
                {"key": f"Film {i}", "value": 1},
            ],
            "label": i % 2,
            "num_hops": 2 + i % 3,
        }
        for i in range(n)
    ]


def codeio(n: int) -> list[dict[str, Any]]:
    return [
        {
            "refcode": (
                f"def helper(x):\n    return x + {i}\n\n"
                "def main(a, b):\n    return {'s': helper(a) * b, 't': [a, b / 4]}"
            ),
            "funcname": "main",
            "io_requirements": "Input: a (int) and b (int). Output: a dictionary with s (int) and t (list).",
            "ios": [{"input": {"a": j, "b": 2}, "output": {"s": (j + i) * 2, "t": [j, 0.5]}} for j in range(3)],
        }
        for i in range(n)
    ]


def physics(n: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"How far in {i} s at 2 m/s?",
            "choices": [f"{i + 1} m", f"{2 * i} m", f"{3 * i + 1} m"],
            "answer": "B",
        }
        for i in range(n)
    ]
