"""The language of instruction that the embedded model reads: sentences for a format, for working, or for nothing.

Its pretraining text (`fst_bench.embedded.text`) is written in it, and the reflector `bank` chooses from it.
"""

import random

VERBS = ["Put", "Write", "Give", "State", "Return", "Place", "Report", "Enter", "Show", "Express", "Print", "Supply"]
ANSWERS = [
    "the answer",
    "the result",
    "the final answer",
    "the final result",
    "your answer",
    "the final value",
    "your result",
    "the solution",
]
FORMATS: dict[str, list[str]] = {
    "boxed": ["{v} {o} {in} \\boxed{{}}", "Use \\boxed{{}} for {o}", "{O} must be in \\boxed{{}}",
              "Box {o} with \\boxed{{}}",
              "Only \\boxed{{}} counts for {o}", "{O} goes inside \\boxed{{}}", "Answer with \\boxed{{}}",
              "{v} \\boxed{{}}"],
    "json": ["{v} {o} {as} a JSON object", "{v} {o} {as} a JSON object with the key output", "Use JSON for {o}",
             "Answer with a JSON object",
             "{O} must be a JSON object with the key output", "{v} {o} as JSON",
             "{v} a JSON object with the key output", "{O} goes in a JSON object"],
    "answer": ["{v} ANSWER: before {o}", "Use the prefix ANSWER: for {o}", "{O} must follow ANSWER:",
               "{v} {o} after ANSWER:",
               "Start the final line with ANSWER:", "{O} goes after ANSWER:", "{v} ANSWER:",
               "{v} ANSWER: before {o} with its unit"],
    "tag": ["{v} {o} {in} <answer> tags", "Use <answer> tags for {o}", "{O} must be inside <answer> tags",
            "Wrap {o} in <answer> tags"],
    "hash": ["{v} #### before {o}", "{v} {o} after ####", "Use #### to mark {o}", "{O} must follow ####",
             "Mark {o} with ####"],
    "verdict": ["{v} VERDICT: and then EVIDENCE:", "{v} VERDICT: and then EVIDENCE: with the titles",
                "Use the labels VERDICT: and EVIDENCE:",
                "{O} must have VERDICT: and EVIDENCE:", "{v} a VERDICT: followed by EVIDENCE:",
                "Label {o} with VERDICT: and EVIDENCE:",
                "{v} {o} with VERDICT: and EVIDENCE:",
                "{v} VERDICT: SUPPORTED or REFUTED and then EVIDENCE: with the titles"],
    "plain": ["{v} {o} {as} a plain sentence", "{v} {o} in plain words", "Use a plain sentence for {o}"],
}  # fmt: skip
STRATEGIES: dict[str, list[list[str]]] = {
    "any": [["Work", "Think", "Reason", "Go"], ["step by step", "in small steps", "one step at a time"]],
    "any2": [["Show", "Write", "Give"], ["each step", "every step", "the working", "all steps"],
             ["first", "before answering", "before the answer"]],
    "math": [["Compute", "Do", "Apply", "Carry out", "Work out", "Take"],
             ["each operation", "every operation", "one operation", "the operations"],
             ["one at a time", "one by one", "in turn", "separately", "after the other", "before the answer"]],
    "math2": [["Keep", "Write", "Note"], ["a running value", "the running value", "the value"],
              ["after each operation", "after every operation"]],
    "codeio": [["Trace", "Run", "Follow", "Execute", "Go through", "Walk through"],
               ["the code", "the function", "the program", "the lines"],
               ["line by line", "one line at a time", "in order", "and keep the list",
               "and write the list after each line"]],
    "codeio2": [["Track", "Write", "Keep", "Note", "Update"], ["the list"],
                ["after each line", "after every line", "at each line", "line by line"]],
    "hover": [["Follow", "Trace", "Check", "Use"], ["the link", "the links", "the chain", "the linked facts"],
              ["from fact to fact", "between the facts", "through the facts", "and compare the claim"]],
    "hover2": [["Find", "Write", "Give", "Quote"], ["the fact", "the facts", "each fact", "both facts"],
               ["about the subject first", "you need first", "for the claim first", "and compare with the claim"]],
    "star-graph": [["Trace", "Follow", "Find", "Build"], ["the path", "the route", "the way"],
                   ["backwards from the goal", "back from the goal", "back from the end",
                   "from the goal back to the source"]],
    "star-graph2": [["Start", "Begin", "Work", "Go"], ["from the goal", "at the goal", "back from the goal"],
                    ["and go back to the source", "and move back", "to the source", "and work backwards"]],
    "physics": [["Write", "State", "Name", "Use", "Give"], ["the formula", "the law", "each formula", "the formulas"],
                ["first", "before the numbers", "and insert the numbers", "and then the numbers", "for each quantity"]],
    "physics2": [["Insert", "Fill in", "Use"], ["the numbers", "the values"],
                 ["in the formula", "in each formula", "in the law"]],
}  # fmt: skip
DIRECT = [
    "Answer directly.", "Answer at once without working.", "Do not show any steps.", "Give only the answer.",
    "Skip the working.",
    "Reply with the answer only.", "Answer without steps.", "No working is needed.",
]  # fmt: skip
SEPARATORS = {
    "->": ["arrows", "an arrow", "arrows"],
    ",": ["commas", "a comma", "commas"],
}
SEPARATE = ["Separate the nodes with {}.", "Use {} between the nodes.", "{v} {} between the nodes.",
"Join the nodes with {}.",
            "The nodes must be joined by {}.", "The nodes must be separated by {}.",
            "Connect the nodes by {}."]  # fmt: skip
IRRELEVANT = [
    "You are a helpful assistant.", "Solve the problem.", "Be polite.", "You are an expert.",
    "Read the question with care.",
    "Think about the problem.", "Do your best.", "You are a careful tutor.", "The user needs help.",
    "Accuracy matters.",
    "Complete the task.", "Stay calm.", "You are a friendly bot.", "Please help the user.", "Be correct.",
    "Do not guess.", "This is a test.",
]  # fmt: skip
SCOPES = {
    "math": ["math problems", "number problems", "operations"],
    "codeio": ["code problems", "functions", "code"],
    "hover": ["claims", "fact problems", "facts"],
    "star-graph": ["graphs", "path problems", "graph problems"],
    "physics": ["physics problems", "physics", "units"],
}


def format_sentence(style: str, rng: random.Random) -> str:
    """Return a sentence that asks for one answer format."""
    answer = rng.choice(ANSWERS)
    words = {
        "v": rng.choice(VERBS),
        "o": answer,
        "O": capital(answer),
        "in": rng.choice(["inside", "within", "in", "between"]),
        "as": rng.choice(["as", "in", "with"]),
    }
    return rng.choice(FORMATS[style]).format(**words) + "."


def strategy_sentence(kind: str, rng: random.Random) -> str:
    """Return a sentence that asks for working: `kind` is a task, or "any"."""
    parts = STRATEGIES[rng.choice([kind, f"{kind}2"])]
    return " ".join(rng.choice(part) for part in parts) + "."


def separator_sentence(separator: str, rng: random.Random) -> str:
    """Return a sentence that asks for a separator between the nodes of a path."""
    return rng.choice(SEPARATE).replace("{v}", rng.choice(VERBS)).format(rng.choice(SEPARATORS[separator]))


def scoped(task: str, sentence: str, rng: random.Random) -> str:
    """Return a sentence limited to a task, such as 'For code problems, trace the code line by line.'"""
    head = sentence.split(" ", 1)[0]
    return f"For {rng.choice(SCOPES[task])}, {sentence if head.isupper() else sentence[0].lower() + sentence[1:]}"


def capital(sentence: str) -> str:
    """Return a sentence with a capital first letter."""
    return sentence[0].upper() + sentence[1:]
