"""Memory that the log-probabilities of tokens over Qwen3's vocabulary, and their gradient, take beyond their inputs.

    python tests/policy/logprob_memory.py 8192 chunked    # or whole: from the logits of all tokens

Prints GB. A peak is a process's, so each measurement is a process of its own.
"""

import re
import sys
from pathlib import Path

import torch

from fst_bench.policy.scoring import ChosenLogprobs, Head

VOCABULARY, HIDDEN = 151_936, 32


def peak() -> float:
    """Return this process's peak in GB since it began. (A child's getrusage begins at its parent's peak.)"""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 2**20


def main(tokens: int, how: str) -> float:
    torch.set_num_threads(2)
    states = torch.randn(tokens, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    targets = torch.randint(VOCABULARY, (tokens,))
    before = peak()
    if how == "chunked":
        found = ChosenLogprobs.apply(states, weight, None, targets, None, Head(weight, None, None, False))
    else:
        found = (states @ weight.t()).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    found.sum().backward()
    return peak() - before


if __name__ == "__main__":
    print(main(int(sys.argv[1]), sys.argv[2]))
