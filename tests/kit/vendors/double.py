"""What all doubles of vendors share: a request, rules with their sources, a context limit, and seeded answers.

A double is called with a method, a path, headers and a JSON body, and returns what the vendor would answer. It refuses
what the vendor's published rules refuse, and says by which rule. It remembers the reasoning that it gave out, so it can
tell whose reasoning comes back with a request.

Where a rule's source says only what is accepted, the double refuses everything else: a vendor may be more lenient.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Final

import msgspec

Json = dict[str, Any]

ACCOUNT: Final = "account-1"
BYTES_PER_TOKEN: Final = 4
"""Close enough: the limit only has to be reached at some time."""


class Refused(Exception):
    """A request that a vendor refuses.

    Attributes:
        rule: the name of the rule that refused it.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status
        self.rule = ""


@dataclass(frozen=True)
class Ask:
    """One request to a vendor."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json


@dataclass(frozen=True)
class Rule:
    """One published rule of a vendor.

    Attributes:
        name: what it demands, in a few words.
        source: where it is written down, or where its violation was reported.
        check: raises `Refused` if a request violates it. It may assume that the rules before it hold.
    """

    name: str
    source: str
    check: Callable[[Any, Ask], None]  # Any: the double, of the class whose rule it is


@dataclass(frozen=True)
class Part:
    """A part of an answer: thinking, text or a call."""

    kind: str
    text: str
    call_id: str = ""
    name: str = ""
    is_custom: bool = False
    raw: str | None = None
    """What the client is to get, if the call is that of a custom tool in the form of a function."""


@dataclass(frozen=True)
class Tool:
    """A tool that a request offers."""

    name: str
    schema: Json
    is_custom: bool = False

    @property
    def is_wrapped(self) -> bool:
        """Whether it is a custom tool in the form of a function."""
        return not self.is_custom and set(self.schema.get("properties", ())) == {"input"}


@dataclass(frozen=True)
class Frame:
    """A piece of a stream, and the reasoning that is complete with it."""

    data: bytes
    token: str | None = None


@dataclass
class Answer:
    """What the vendor answers.

    Attributes:
        frames: the body, in the pieces in which it is sent.
    """

    status: int
    content_type: str
    frames: list[Frame]

    @property
    def body(self) -> bytes:
        return b"".join(frame.data for frame in self.frames)


@dataclass
class Issued:
    """Reasoning that was given out: to whom, in which turn, and what it is bound to."""

    turn: int
    account: str
    model: str
    bound_to: Any = None
    is_sent: bool = False


@dataclass
class Made:
    """One answer: its parts, and the tokens of its reasoning."""

    turn: int
    model: str
    parts: list[Part]
    tokens: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if part.kind == "text")

    @property
    def calls(self) -> list[Part]:
        return [part for part in self.parts if part.kind == "call"]

    @property
    def has_thought(self) -> bool:
        return any(part.kind == "thought" for part in self.parts)


PATCH: Final = (
    '*** Begin Patch\n*** Update File: /w/app/{n}.py\n@@\n-print("a\\n")\n+print("step {n} 😀")\n*** End Patch'
)
_WORDS: Final = "the parser reads each line once and keeps what it needs so nothing else has to change here".split()  # noqa: SIM905
_LONE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_CACHE: Final = re.compile(rb',?"cache_control":\{[^{}]*\}')


class Double:
    """The start of all doubles.

    Args:
        models: the models of this account.
        seed: of the answers.
        limit_tokens: the context limit of the models.
        account: whose key it is. Reasoning of another account is not readable.
        forgets: rules that are not enforced, by name: to see what comes after them.

    Attributes:
        made: the answers so far.
        refusals: the requests that were refused for another reason than their length.
        too_long: how many requests were too long.
        dropped: how often reasoning was dropped without a refusal, because what came before it had changed.
        units: the last accepted request as the model reads it: each item in its bytes, without cache marks.
        declared: its tools, in their bytes.
        seen: the turns whose reasoning was in it, complete and readable.
    """

    RULES: ClassVar[tuple[Rule, ...]] = ()
    PATH: ClassVar[str]
    restores: ClassVar[str] = "all"
    """The turns whose reasoning should come back: ``all``, those with ``calls``, those whose prefix is ``unchanged``,
    ``none``."""
    binds_account: ClassVar[bool] = False
    """Whether only the account that made reasoning can read it."""

    def __init__(
        self,
        models: tuple[str, ...],
        *,
        seed: int = 0,
        limit_tokens: int = 4_000,
        account: str = ACCOUNT,
        forgets: Sequence[str] = (),
    ) -> None:
        self.models = models
        self.account = account
        self.limit_tokens = limit_tokens
        self.rng = random.Random(f"{type(self).__name__} {seed}")
        self.issued: dict[str, Issued] = {}
        self.made: list[Made] = []
        self.refusals: list[Refused] = []
        self.too_long = 0
        self.dropped = 0
        self.units: list[bytes] = []
        self.declared = b""
        self.seen: set[int] = set()
        self._rules = [rule for rule in self.RULES if rule.name not in forgets]

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        try:
            if _LONE.search(body.decode("utf-8", "surrogatepass")) and has_lone_surrogate(body):
                raise Refused("The body is not valid JSON: lone surrogate.", code="invalid_json")
            ask = Ask(method, path, headers, msgspec.json.decode(body))
            self.check(ask)
        except Refused as refused:
            self.refusals.append(refused)
            return self.refusal(refused)
        tokens = len(body) // BYTES_PER_TOKEN
        if tokens > self.limit_tokens:
            self.too_long += 1
            return self.refusal(self.length_refusal(tokens))
        self.units, self.declared = self.read(ask.body)
        self.seen = set()
        self.note_reasoning(ask)
        made = self.write(ask.body)
        self.made.append(made)
        return Answer(200, "text/event-stream", list(self.frames(made, ask.body)))

    def check(self, ask: Ask) -> None:
        """Check a request.

        Raises:
            Refused: if the vendor would refuse it.
        """
        for rule in self._rules:
            try:
                rule.check(self, ask)
            except Refused as refused:
                refused.rule = rule.name
                raise

    # What each vendor does in its own way.

    def read(self, body: Json) -> tuple[list[bytes], bytes]:
        """Return the conversation as the model reads it, item by item, and the tools."""
        raise NotImplementedError

    def tools(self, body: Json) -> list[Tool]:
        """Return the tools that a request offers."""
        raise NotImplementedError

    def note_reasoning(self, ask: Ask) -> None:
        """Find the reasoning in a request, and put its turns into ``seen``."""

    def is_after_outputs(self, body: Json) -> bool:
        """Return whether a request ends with the outputs of tools."""
        raise NotImplementedError

    def frames(self, made: Made, body: Json) -> Iterator[Frame]:
        """Return the stream of an answer."""
        raise NotImplementedError

    def thinks(self, body: Json) -> bool:
        """Return whether the model thinks before it answers."""
        return True

    def call_id(self) -> str:
        """Return the id of a new call."""
        return "call_" + self.letters(24)

    def refusal(self, refused: Refused) -> Answer:
        """Return a refusal in the vendor's form; this is OpenAI's."""
        details = {"message": refused.message, "type": "invalid_request_error"}
        return document(refused.status, {"error": details | {"param": refused.param, "code": refused.code}})

    def length_refusal(self, tokens: int) -> Refused:
        """Return how the vendor says that a request is too long."""
        raise NotImplementedError

    # The answers.

    def write(self, body: Json) -> Made:
        """Write the next answer."""
        rng, turn = self.rng, len(self.made)
        tools = self.tools(body)
        parts: list[Part] = []
        if self.thinks(body):
            parts.append(Part("thought", f"Step {turn} needs care: {self.words(8)}."))
        calls = (
            rng.choice((1, 1, 1, 2, 3)) if tools and rng.random() < (0.6 if self.is_after_outputs(body) else 0.8) else 0
        )
        if not calls or rng.random() < 0.4:
            parts.append(
                Part("text", f"Step {turn}: {self.words(12)}" + rng.choice(("", ".", " 😀", "\n\n```py\nx\n```")))
            )
        parts += (self._call(rng.choice(tools)) for _ in range(calls))
        return Made(turn, body.get("model", ""), parts)

    def _call(self, tool: Tool) -> Part:
        patch = PATCH.format(n=self.rng.randrange(1000))
        if tool.is_custom:
            text = patch
        elif tool.is_wrapped:
            return Part("call", msgspec.json.encode({"input": patch}).decode(), self.call_id(), tool.name, raw=patch)
        else:
            properties = tool.schema.get("properties", {})
            wanted = [name for name in properties if name in tool.schema.get("required", ()) or self.rng.random() < 0.3]
            text = msgspec.json.encode({name: self._value(properties[name]) for name in wanted}).decode()
        return Part("call", text, self.call_id(), tool.name, tool.is_custom)

    def _value(self, schema: Json) -> Any:
        match schema.get("type"):
            case "number" | "integer":
                return self.rng.randrange(100)
            case "boolean":
                return True
            case "object":
                return {"query": self.words(2)}
            case _:
                return self.words(3) + self.rng.choice(("", '"', "\n", " é", " 😀"))

    def issue(self, made: Made, bound_to: Any = None) -> str:
        """Make a token for reasoning of an answer."""
        token = f"{self.letters(8)}{made.turn}{self.letters(24)}="
        self.issued[token] = Issued(made.turn, self.account, made.model, bound_to)
        made.tokens.append(token)
        return token

    def sent(self, frame: Frame) -> None:
        """Note that a frame has been read."""
        if frame.token is not None:
            self.issued[frame.token].is_sent = True

    def saw(self, tokens: set[str]) -> None:
        """Note the valid reasoning of a request; a turn counts if all that it gave out is there."""
        for turn in {self.issued[token].turn for token in tokens}:
            if tokens.issuperset(token for token in self.made[turn].tokens if self.issued[token].is_sent):
                self.seen.add(turn)

    def words(self, count: int) -> str:
        return " ".join(self.rng.choices(_WORDS, k=count))

    def letters(self, count: int) -> str:
        return "".join(self.rng.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=count))


def document(status: int, body: Any) -> Answer:
    """Return an answer that is one JSON document."""
    return Answer(status, "application/json", [Frame(msgspec.json.encode(body))])


def encoded(item: Any) -> bytes:
    """Return an item in its bytes, without marks for the cache: they do not change what is cached."""
    data = msgspec.json.encode(item)
    return _CACHE.sub(b"", data) if b'"cache_control"' in data else data


def digests(units: Sequence[bytes], start: bytes = b"") -> list[str]:
    """Return, for each place in a conversation and for its end, the hash of what is before it."""
    running = sha256(start)
    found: list[str] = []
    for unit in units:
        found.append(running.hexdigest())
        running.update(b"%d:" % len(unit) + unit)
    return [*found, running.hexdigest()]


def cut(text: str, pieces: int = 3) -> list[str]:
    """Return a text in a few pieces."""
    size = max(1, -(-len(text) // pieces))
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def event(payload: Any, name: str | None = None, token: str | None = None) -> Frame:
    """Return an event of a stream."""
    head = b"" if name is None else b"event: %b\n" % name.encode()
    return Frame(head + b"data: " + msgspec.json.encode(payload) + b"\n\n", token)


DONE: Final = Frame(b"data: [DONE]\n\n")


def has_lone_surrogate(body: bytes) -> bool:
    """Return whether a body has one half of a pair of surrogates (RFC 8259 section 8.2)."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        return True
    return False
