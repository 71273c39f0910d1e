"""How a conversation becomes the tokens of one model: by its chat template, or as plain text for a base model.

A template is looked at once, by what it really writes, when the model is loaded. So what it cannot do is known before
a run is made.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from fst_bench.core.types import THOUGHTS, Completion, Message
from fst_bench.policy.settings import PolicySettings

TURN = "\ud800"
"""Placeholder for a turn of the model's, behind which a template writes a reply."""
BREAK = "\ud801"
"""Placeholder where a text is cut for the tokenizer. Both are lone surrogates, which cleaned texts do not have."""
DAY = datetime(2024, 7, 26)
"""What templates that write the day get, so that a resumed run has the same prompts; Llama's own fallback."""
SYSTEM: Message = {"role": "system", "content": "context7"}
USER: Message = {"role": "user", "content": "problem7"}
REPLY: Message = {"role": "tool", "content": "reply7"}


class Rendered(NamedTuple):
    """What a template writes in front of a turn of the model's."""

    tokens: list[int]
    opened: str
    """The opening of a thought where the text ends with one: the model's turn begins inside it. Else empty."""


class Template:
    """The way from conversations to a model's tokens, and from sampled tokens to an answer's text.

    Texts that enter a conversation are cleaned: lone surrogates become U+FFFD, and what spells a control token stays
    text. Raises ValueError in one line where the model's chat template cannot be used.
    """

    def __init__(self, tokenizer: Any, settings: PolicySettings, name: str = "the model"):
        self.tokenizer, self.settings, self.name = tokenizer, settings, name
        self.plain = settings.template == "plain"
        self.notes: list[str] = []
        """What a person should know of the template, a line each."""
        self._folds = False
        """Whether the system message is written into the user's turn."""
        self._controls: re.Pattern[str] | None = None
        self._probe()
        self._controls = self._control_tokens()
        bos, begins = tokenizer.bos_token_id, self.encode([self.text([USER])])[0]
        doubled = next((i for i, token in enumerate(begins) if token != bos), 0) - 1
        self._doubled = doubled if bos is not None and doubled > 0 else 0
        """BOS tokens at the start beside the first."""
        if self._doubled:
            self.notes.append(f"the chat template of {name} writes BOS {doubled + 1} times: it is kept once")
        # a chat template writes its own BOS, or none on purpose
        self._begin = [bos] if self.plain and bos is not None and tokenizer("7")["input_ids"][:1] == [bos] else []

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        """Return what comes before the model's first turn in each conversation."""
        texts = [self.text(messages) for messages in conversations]
        return [
            Rendered(self._begin + tokens[self._doubled :], opened(text))
            for text, tokens in zip(texts, self.encode(texts), strict=True)
        ]

    def reply(self, messages: Sequence[Message]) -> Rendered:
        """Return what comes after the model's last turn: the last of `messages`, and the opening of the next turn.

        Some templates write a turn in another way once it is not the last one (Qwen3 drops its empty thought), so a
        conversation is not the beginning of a longer one. The reply is rendered alone, behind a turn that is a
        placeholder. Raises ValueError where the template cannot write a message of that role.
        """
        reply = self._reply_text(messages)
        return Rendered(self.encode([reply])[0], opened(reply))

    def check_replies(self) -> None:
        """Raise ValueError where a tool's reply cannot be written behind a turn of the model's."""
        for start in ([USER], [SYSTEM, USER]):
            if REPLY["content"] not in self._reply_text([*start, {"role": "assistant", "content": ""}, REPLY]):
                raise ValueError(f"the chat template of {self.name} leaves out a reply of the role {REPLY['role']}")

    def _reply_text(self, messages: Sequence[Message]) -> str:
        role = messages[-1]["role"]
        if self.plain:
            raise ValueError("policy.template=plain has one turn: a task with a tool needs a chat template")
        cleaned = self._cleaned(messages)
        try:
            text = self._render([*cleaned[:-2], {"role": "assistant", "content": TURN}, cleaned[-1]])
        except Exception as error:
            why = f"cannot write a reply of the role {role}: {first_line(error)}"
            raise ValueError(f"the chat template of {self.name} {why}") from None
        _, placeholder, reply = text.rpartition(TURN)
        if not placeholder:
            raise ValueError(f"the chat template of {self.name} leaves out the model's own turn before a {role}'s")
        return reply

    def text(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text, up to the opening of the model's turn."""
        return self._render(self._cleaned(messages))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts that were rendered."""
        cut = [text.split(BREAK) for text in texts]
        parts = iter(self.tokenizer([part for parts in cut for part in parts], add_special_tokens=False)["input_ids"])
        return [[token for _ in parts_of for token in next(parts)] for parts_of in cut]

    def stopped(self, tokens: Sequence[int], stops: Sequence[str]) -> bool:
        """Return whether an answer meets a stop string with its last token."""
        if not stops:
            return False
        # each token has a byte of a stop string at least; the rest is room for tokens that share a character
        window = max(len(stop.encode()) for stop in stops) + 8
        return first_stop(self._decode(tokens[-window:]), stops) is not None

    def answer(self, completion: Completion, stops: Sequence[str]) -> tuple[Completion, str]:
        """Return a completion as it ends, at its first stop string if it has one, and its text without that end."""
        tokens = completion.tokens
        if stops and first_stop(self._decode(tokens), stops) is not None:
            # a text has no position for each token (characters of several, cleaned-up spaces), so it is searched
            low, high = 1, len(tokens)
            while low < high:
                middle = (low + high) // 2
                if first_stop(self._decode(tokens[:middle]), stops) is None:
                    low = middle + 1
                else:
                    high = middle
            text = self._decode(tokens[:low])
            return Completion(tokens[:low], completion.logprobs[:low], True), text[: first_stop(text, stops)]
        return completion, self._decode(tokens[:-1] if completion.finished else tokens)

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    def _cleaned(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with clean texts, and with the system message where the template writes it."""
        cleaned = [message | {"content": self._clean(message["content"])} for message in messages]
        if not (self._folds and cleaned[0]["role"] == "system"):
            return cleaned
        system, user, *rest = cleaned
        return [user | {"content": f"{system['content']}\n\n{user['content']}"}, *rest]

    def _clean(self, text: str) -> str:
        text = encodable(text)
        return self._controls.sub(rf"\g<0>{BREAK}", text) if self._controls else text

    def _render(self, messages: Sequence[Message]) -> str:
        if self.plain:
            return worded(self.settings.wording, {m["role"]: m["content"] for m in messages})
        return self.tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.settings.thinking,
            strftime_now=DAY.strftime,
        )

    def _probe(self) -> None:
        """Find out what the template does with a system message; refuse one that does not write a problem."""
        if not self.plain and not self.tokenizer.chat_template:
            raise ValueError(f"the model {self.name} has no chat template: a base model needs policy.template=plain")
        subject = "policy.wording" if self.plain else f"the chat template of {self.name}"
        try:
            text = self._render([USER])
        except Exception as error:  # a template's code can raise anything
            raise ValueError(f"{subject} cannot be used: {first_line(error)}") from None
        if USER["content"] not in text:
            raise ValueError(f"{subject} cannot be used: it leaves out the text of the user's turn")
        try:
            text = self._render([SYSTEM, USER])
        except Exception as error:
            why = f"accepts no system role ({first_line(error)})"
        else:
            if SYSTEM["content"] in text and USER["content"] in text:
                return
            why = "leaves the system role out"
        self._folds = True
        self.notes.append(f"{subject} {why}: contexts are written in front of the problem, in the user's turn")

    def _control_tokens(self) -> re.Pattern[str] | None:
        """Return what matches the first character of a control token's text.

        Control tokens are those that the tokenizer calls special, and other added ones that the template writes: some
        models' marks of a turn are not called special (DeepSeek-R1's). A token of one character has no other spelling.
        """
        turns = [USER] if self.plain else [USER, {"role": "assistant", "content": "7"}, USER]
        written: set[int] = set()
        for messages in (turns, turns[:1], [SYSTEM, USER]):
            try:
                written.update(self.encode([self.text(messages)])[0])
            except Exception:  # a template need not know more than one turn
                continue
        added = self.tokenizer.added_tokens_decoder.items()
        texts = {str(token) for i, token in added if token.special or (i in written and not str(token).isspace())}
        long = sorted(text for text in texts if len(text) > 1)
        if not long:
            return None
        first, whole = ("|".join(map(re.escape, part)) for part in ({text[0] for text in long}, long))
        return re.compile(f"(?={whole})(?:{first})")


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first stop string of a text begins, None without one."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


def encodable(text: str) -> str:
    """Return a text that can be encoded: lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def opened(text: str) -> str:
    """Return the end of a text from the opening of a thought on, where it ends with one."""
    end = text.rstrip()
    return next((text[len(end) - len(tag) :] for tag in THOUGHTS if end.endswith(tag)), "")


def worded(wording: str, texts: dict[str, str]) -> str:
    """Fill `{system}` and `{user}` in; without a system text, what separates it from the rest goes too."""
    if not texts.get("system"):
        wording = re.sub(r"\{system\}\s*", "", wording)
    return re.sub(r"\{(system|user)\}", lambda field: texts[field[1]], wording)


def first_line(error: Exception) -> str:
    """Return an error's first line that says something."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)
