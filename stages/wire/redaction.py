r"""Removes credentials from text that others will read: log lines, and errors that are shown to clients.

Every place that shows foreign text calls this module, so that all of them agree on what a key looks like. Two kinds of
credentials are removed: those that we know (`secrets_in`: what a deployment sends), wherever they occur, and whatever
looks like one. The second kind is a matter of patterns: prefixes that issuers put before their keys, values next to a
name such as ``api_key``, and the places where URLs and headers carry credentials. A random word without any of these
cannot be told from a request id, and stays.

Each pattern takes linear time for any text: every repetition that something must follow is bounded, or cannot match
what follows it. The rules are applied in their order, each only
if one of its hints occurs in the text in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import quote

REDACTED: Final = "[redacted]"

MAX_MESSAGE_CHARACTERS: Final = 2000
"""How much of an upstream's message is shown: vendors' longest fit, but not the HTML pages that some gateways send."""

_EXAMINED: Final = 8
"""So many times the length that is shown is searched: redaction shortens a text, but not often by more than that."""
_MIN_SECRET_CHARACTERS: Final = 8
"""A header's value of fewer characters ("true", "v1") is not a secret."""
_MIN_HEAD_CHARACTERS: Final = 4
"""So much of a known secret before the place where a text was clipped is removed too."""

_PUBLIC_HEADERS: Final = frozenset(
    {"accept", "anthropic-beta", "anthropic-version", "content-type", "http-referer", "openai-beta", "user-agent"}
)
"""Headers whose value an upstream's error message may well name, and which hold no credential."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` with ``secrets`` and everything that looks like a credential replaced by ``[redacted]``."""
    if secrets:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
    lowered = text.lower()
    if _ANY_HINT.search(lowered) is None:  # an ordinary id or name, after 1 us
        return text
    for hints, pattern, replacement in _RULES:
        for hint in hints:
            if hint in lowered:
                text = pattern.sub(replacement, text)
                break
    return text


def message_to_show(text: str, secrets: Iterable[str] = (), *, max_characters: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Return an upstream's ``text`` as a client may see it: redacted, on one line, and clipped.

    No part of a credential is left where the text is clipped. The result can be passed in again, with secrets that the
    first caller did not know.
    """
    secrets = tuple(secrets)
    shown = " ".join(text[: _EXAMINED * max_characters].split())
    is_cut = len(text) > _EXAMINED * max_characters
    if is_cut and len(shown) - (end := shown.rfind(" ")) < max_characters:
        shown = shown[:end]  # the last word may be half a key
    shown = redact(shown, secrets)
    if len(shown) > max_characters or is_cut:
        shown = shown[: max_characters - 1] + "…"
    return _without_head(shown, secrets) if shown.endswith("…") else shown


def secrets_in(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return what in a deployment's ``headers`` must not be shown, in every form that an upstream might echo.

    These are the values and what follows their scheme (``Bearer``), both also as a URL has them, and as `redact` leaves
    them where it was not given them.
    """
    values = [value.strip() for name, value in headers if name.lower() not in _PUBLIC_HEADERS]
    found = {*values, *(value.rpartition(" ")[2] for value in values)}
    found = {secret for secret in found if len(secret) >= _MIN_SECRET_CHARACTERS}
    found |= {quote(secret, safe="") for secret in found} | {redact(secret) for secret in found}
    return frozenset(found - {REDACTED})


def _without_head(clipped: str, secrets: Iterable[str]) -> str:
    """Remove the head of a secret that is left before the ``…`` of a clipped text."""
    text = clipped[:-1]
    for secret in secrets:
        for start in range(max(0, len(text) - len(secret)), len(text) - _MIN_HEAD_CHARACTERS + 1):
            if secret.startswith(text[start:]):
                return f"{text[:start]}{REDACTED}…"
    return clipped


# --- The parts of the patterns ----------------------------------------------------------------------------------------

# ASCII only: a key may follow a Chinese word without a space between them. An escape before a key hides its boundary:
# "\nsk-..." in a repr, "\u0022sk-..." in JSON, "%20sk-..." in a URL.
_FLAGS: Final = re.ASCII
_START: Final = (
    r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\x[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
)

# Keys that were shortened or masked by whoever wrote the text have these in place of what was left out.
_ALNUM: Final = "[A-Za-z0-9*•…]"
_KEY: Final = r"(?:[\w*•…-]|\.(?=[\w*•….]))"
_NOT_A_WORD: Final = "(?=[a-z_-]{0,30}[A-Z0-9*•…])"

_ISSUED: Final[Mapping[str, str]] = {
    # Model vendors and gateways. sk-: OpenAI, Anthropic, OpenRouter, DeepSeek, LiteLLM, headrace and many more.
    "sk-": _KEY + "{4,}",
    "sess-": f"{_NOT_A_WORD}{_KEY}{{8,}}",
    "pk-": f"{_NOT_A_WORD}{_KEY}{{8,}}",  # Langfuse
    "rk-": f"{_NOT_A_WORD}{_KEY}{{8,}}",
    "xai-": _ALNUM + "{8,}",
    "gsk_": _ALNUM + "{8,}",  # Groq
    "pplx-": _ALNUM + "{8,}",  # Perplexity
    "nvapi-": _KEY + "{8,}",  # NVIDIA
    "hf_": f"{_NOT_A_WORD}{_ALNUM}{{8,}}",  # Hugging Face
    "r8_": _ALNUM + "{8,}",  # Replicate
    "fw_": f"{_NOT_A_WORD}{_ALNUM}{{12,}}",  # Fireworks
    "csk-": f"{_NOT_A_WORD}{_ALNUM}{{12,}}",  # Cerebras
    "tgp_v1_": _KEY + "{8,}",  # Together
    "dapi": "[0-9a-f]{16,}",  # Databricks
    "tvly-": _KEY + "{8,}",  # Tavily
    "lsv2_": _KEY + "{16,}",  # LangSmith
    "sk_": "[0-9a-f]{32,}",  # ElevenLabs
    "key_": "[0-9a-f]{64,}",  # Cursor
    # Clouds. Their secret keys have no prefix; they are found by the name next to them.
    "AKIA": "[0-9A-Z*]{12,}",
    "ASIA": "[0-9A-Z*]{12,}",
    "AIza": r"[\w*-]{10,}",  # Google: API keys, then OAuth access tokens and client secrets
    "ya29.": r"[\w*.-]{10,}(?<!\.)",
    "GOCSPX-": r"[\w*-]{8,}",
    # Code hosts, registries, services.
    **{f"gh{kind}_": _ALNUM + "{8,}" for kind in "oprsu"},
    "github_pat_": r"[\w*]{8,}",
    "glpat-": _KEY + "{8,}",
    "gldt-": _KEY + "{8,}",
    "glrt-": _KEY + "{8,}",
    **{f"xox{kind}-": _KEY + "{8,}" for kind in "abceoprs"},
    "xapp-": _KEY + "{8,}",
    "npm_": _ALNUM + "{20,}",
    "pypi-Ag": r"[\w-]{16,}",
    **{f"{kind}k_{mode}_": _ALNUM + "{8,}" for kind in "spr" for mode in ("live", "test")},  # Stripe
    "SG.": r"[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    # JSON Web Tokens: {" in Base64.
    "eyJ": r"[\w*-]{7,}(?:\.[\w*-]+)*",
}
"""What issuers put before their keys, and what follows it."""

_MASK: Final = r"(?:\*{2,}|•{2,}|…|\.{3}(?=\w))"

_NAMES: Final = (
    r"(?:api|access|secret|private|account|subscription|signing|encryption|master|auth)[_\- ]?key(?:[_\- ]?id)?"
    r"|secret|passw(?:or)?d|passphrase|authorization|cookie"
)
"""Names whose value is a credential, in any case and with anything before them: ``OPENAI_API_KEY``, ``x-api-key``."""

_SCHEMES: Final = "bearer|basic|token|api-?key|digest|negotiate|sharedkey|aws4-hmac-sha256"
_NOTHING: Final = rf"(?:none|null|undefined|true|false)\b|(?:{_SCHEMES})\s|os\.environ/|redacted\]"
_WORD: Final = r"(?-i:[A-Z]?[a-z]{1,19}|[A-Z]{2,19})(?:['-][a-z]{1,15}){0,3}" r"""[.,:;!?)\]}>"']{0,3}(?:\s|\Z)"""
"""What is not a credential where an error message says "api_key: field required" or "basic authentication"."""
_QUOTE: Final = r"""(?:b?\\{0,3}["'])"""
# Between a name and its value: "=" or ":", perhaps with quotes and brackets. In `_ASSIGN`, no word may follow a colon.
_IS: Final = rf"""\\{{0,3}}["']?\]?\s{{0,4}}(?::=?|=[>=]?)\s{{0,4}}[\[(]?{_QUOTE}?"""
_ASSIGN: Final = rf"""\\{{0,3}}["']?\]?\s{{0,4}}(?::=?\s{{0,4}}(?!{_WORD})|=[>=]?\s{{0,4}})[\[(]?{_QUOTE}?"""
_BARE: Final = r"""(?:[^\s"',;&(){}\[\]<>\\]|\\(?![nrt"'\\]))"""
_VALUE: Final = (
    rf"(?!{_NOTHING})"
    r"""(?:(?<=\\")[^"\\\n]{4,}|(?<=\\')[^'\\\n]{4,}"""
    r"""|(?<=[^\\]")(?:[^"\\\n]|\\.){4,}|(?<=[^\\]')(?:[^'\\\n]|\\.){4,}"""
    # Not quoted. What seems to be the value may be the name of the next one: "token=x-api-key: ...".
    rf"""|(?<!["']){_BARE}{{4,}}(?<![.:])(?:\s{{0,4}}[:=]\s{{0,4}}(?!{_WORD}){_QUOTE}?{_BARE}+(?<![.:]))*)"""
)


def _compile(pattern: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(pattern, _FLAGS | flags)


_KEPT: Final = rf"\1{REDACTED}"

_RULES: Final[tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]] = (
    # Private keys in PEM form, to their end or that of the text. RFC 7468, and PGP's (RFC 9580 section 6.2).
    (
        ("private key",),
        _compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"[^-]*(?:-(?!----END )[^-]*)*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
        REDACTED,
    ),
    # The user and password of a URL. A password may hold a slash or an at sign that ought to have been escaped.
    (
        ("://",),
        _compile(r"""(://)(?:[^\s/@'":]{1,200}:(?!\d{1,5}[/?#])[^\s@'"]{0,200}@|(?=[^\s/@'"]+@))(?:[^\s/@'"]+@)*"""),
        rf"\1{REDACTED}@",
    ),
    # A whole Authorization header (RFC 9110 section 11.4), then cookies.
    (
        ("authorization",),
        _compile(
            rf"(authorization{_IS}"
            rf"(?:(?:bearer|basic)\s{{1,4}}(?!token\b|auth)|(?:{_SCHEMES})\s{{1,4}}(?!{_WORD})))"
            r"""[^\s"',;\[\]]{4,}""",
            re.IGNORECASE,
        ),
        _KEPT,
    ),
    (
        ("cookie",),
        _compile(
            rf"(cookie{_IS})"
            r"""[\w.!#$%^-]{1,80}=[^\s;,"'\\]{1,}(?:;\s?[\w.!#$%^-]{1,80}=[^\s;,"'\\]*)*""",
            re.IGNORECASE,
        ),
        _KEPT,
    ),
    # A value next to its name: api_key=..., "x-api-key": "...", \"password\": \"...\", API key provided: ...
    (
        ("key", "token", "secret", "passw", "passphrase", "authorization", "cookie"),
        _compile(
            rf"((?:(?:{_NAMES})(?:\s{{1,4}}provided)?|token(?!{_ASSIGN}\d{{1,9}}(?!\w))){_ASSIGN}){_VALUE}",
            re.IGNORECASE,
        ),
        _KEPT,
    ),
    # The same as a pair, which is how headers are shown by repr: (b'x-api-key', b'...').
    (
        ("key", "token", "secret", "passw", "authorization", "cookie"),
        _compile(
            r"""([\[(]b?["'][\w-]{0,40}(?:authorization|api[_-]?key|cookie|[_-]token|secret|password)["'],"""
            rf"\s{{0,4}}{_QUOTE}){_VALUE}",
            re.IGNORECASE,
        ),
        _KEPT,
    ),
    # Parameters of URLs that no rule above knows: Google's key, and the signatures of Azure, AWS and Google.
    (
        ("key=", "sig=", "signature=", "auth="),
        _compile(
            r"""((?:[?&;](?:key|sig|auth|(?:x-(?:amz|goog)-)?signature)|,\s?signature)=)(?!\[)[^\s"'<>&#]{4,}""",
            re.IGNORECASE,
        ),
        _KEPT,
    ),
    # Credentials after their scheme, but not words: "basic authentication".
    (("bearer",), _compile(rf"(\bbearer\s{{1,4}})(?!{_WORD})[\w.~+/=*•…:-]{{4,}}", re.IGNORECASE), _KEPT),
    (("basic",), _compile(rf"(\bbasic\s{{1,4}})(?!{_WORD})[A-Za-z0-9+/*]{{8,}}={{0,2}}", re.IGNORECASE), _KEPT),
    # What issuers made easy to recognise, whole or masked.
    (
        tuple(prefix.lower() for prefix in _ISSUED),
        _compile(
            rf"{_START}(?:{'|'.join(re.escape(prefix) + tail for prefix, tail in _ISSUED.items())}"
            rf"|(?:{'|'.join(map(re.escape, _ISSUED))})[\w-]{{0,20}}{_MASK}{_KEY}*)"
        ),
        REDACTED,
    ),
    # Anything else that was masked.
    (
        ("***", "•••"),
        _compile(r"\w[\w-]{0,39}(?:\*{3,}|•{3,})[\w*•-]*|(?<![*•])(?:\*{4,}|•{4,})[\w-][\w*•-]*"),
        REDACTED,
    ),
)


def _any_of(words: Collection[str]) -> str:
    """Return a pattern for any of ``words``, grouped by their first characters: it takes a third of the time."""
    if "" in words:
        return ""
    tails: dict[str, list[str]] = {}
    for word in sorted(words):
        tails.setdefault(word[0], []).append(word[1:])
    return f"(?:{'|'.join(re.escape(first) + _any_of(rest) for first, rest in tails.items())})"


_ANY_HINT: Final = re.compile(_any_of({hint for hints, _, _ in _RULES for hint in hints}))
