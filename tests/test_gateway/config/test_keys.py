"""The key store: whose key it is, what it may use, and that nothing shows a key."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.gateway.config.keys import KeySettings, KeyStore, key_digest
from stages.principal import Principal

MASTER = "sk-master-0123456789abcdef"
ANNA = "sk-anna-0123456789abcdef"


def key(name: str, text: str, models: tuple[str, ...] | None = None) -> KeySettings:
    return KeySettings(name, key_digest(text), models)


def test_the_master_key_is_known_as_master_and_may_use_everything() -> None:
    principal = KeyStore(MASTER).authenticate(MASTER.encode())
    assert principal == Principal(name="master", is_master=True)
    assert principal is not None
    assert principal.may_use("anything/at-all")


def test_a_static_key_is_known_by_its_name_and_its_models() -> None:
    store = KeyStore(MASTER, [key("anna", ANNA, ("gpt-5", "openai/*"))])
    assert store.authenticate(ANNA.encode()) == Principal(name="anna", models=("gpt-5", "openai/*"))


def test_a_hashed_key_accepts_the_plain_key_and_not_the_hash_itself() -> None:
    hashed = "sha256:" + hashlib.sha256(ANNA.encode()).hexdigest()
    store = KeyStore(None, [key("anna", hashed.upper().replace("SHA256", "sha256"))])
    principal = store.authenticate(ANNA.encode())
    assert principal is not None
    assert principal.name == "anna"
    assert store.authenticate(hashed.encode()) is None


def test_the_master_key_may_be_hashed_too() -> None:
    hashed = "sha256:" + hashlib.sha256(MASTER.encode()).hexdigest()
    principal = KeyStore(hashed).authenticate(MASTER.encode())
    assert principal is not None
    assert principal.is_master


@pytest.mark.parametrize(
    "presented",
    [b"", b" ", MASTER.encode()[:-1], MASTER.encode() + b" ", MASTER.upper().encode(), b"\xff\x00", b"x" * 100_000],
    ids=["empty", "space", "shorter", "longer", "other case", "not text", "huge"],
)
def test_anything_else_is_refused(presented: bytes) -> None:
    assert KeyStore(MASTER, [key("anna", ANNA)]).authenticate(presented) is None


def test_a_store_without_keys_refuses_every_key() -> None:
    assert KeyStore(None).authenticate(b"") is None
    assert len(KeyStore(None)) == 0


def test_two_names_for_one_key_are_refused_without_showing_it() -> None:
    with pytest.raises(ValueError) as caught:
        KeyStore(None, [key("anna", ANNA), key("ben", ANNA)])
    assert str(caught.value) == "the keys 'anna' and 'ben' are the same: use a different key for each"


@pytest.mark.parametrize("text", ["", "sha256:abc", "sha256:" + "g" * 64, "two words", "naïve", "line\nbreak"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        key_digest(text)
    assert not text or text not in str(caught.value)


def test_no_repr_shows_a_key_or_its_digest() -> None:
    settings_, store = key("anna", ANNA), KeyStore(MASTER, [key("anna", ANNA)])
    shown = repr(settings_) + repr(store) + repr(store.authenticate(ANNA.encode()))
    assert ANNA not in shown
    assert MASTER not in shown
    assert hashlib.sha256(ANNA.encode()).hexdigest() not in shown
    assert repr(settings_.digest) not in shown
    assert repr(settings_) == "<KeySettings anna>"


@given(st.binary(max_size=64))
@settings(max_examples=100)
def test_no_other_bytes_are_ever_accepted(presented: bytes) -> None:
    principal = KeyStore(MASTER, [key("anna", ANNA)]).authenticate(presented)
    assert (principal is not None) == (presented in (MASTER.encode(), ANNA.encode()))


def test_finding_a_key_among_a_hundred_takes_less_than_20_microseconds() -> None:
    store = KeyStore(MASTER, [key(f"k{n}", f"{ANNA}{n}") for n in range(100)])
    presented = f"{ANNA}99".encode()

    def one_run_ns() -> int:
        start = time.perf_counter_ns()
        for _ in range(200):
            store.authenticate(presented)
        return (time.perf_counter_ns() - start) // 200

    assert min(one_run_ns() for _ in range(10)) < 20_000  # the best of ten, since the machine is shared


@pytest.mark.parametrize(
    ("pattern", "model", "may"),
    [
        ("gpt-5", "gpt-5", True),
        ("gpt-5", "gpt-5-mini", False),
        ("gpt-5", "GPT-5", False),
        ("*", "", True),
        ("*", "a/b", True),
        ("openai/*", "openai/gpt-5", True),
        ("openai/*", "openai", False),
        ("*-mini", "gpt-5-mini", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a*bc*c", "abc", False),
        ("**", "x", True),
        ("gpt-[5]", "gpt-5", False),
        ("gpt-?", "gpt-5", False),
    ],
)
def test_a_pattern_matches_whole_names_with_any_text_for_a_star(pattern: str, model: str, may: bool) -> None:
    assert Principal(name="anna", models=(pattern,)).may_use(model) is may


def test_an_empty_list_of_models_allows_no_model() -> None:
    assert not Principal(name="anna", models=()).may_use("gpt-5")


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.lists(st.text("ab", max_size=3), max_size=4))
def test_a_pattern_matches_whatever_its_stars_are_filled_with(pieces: list[str], fillings: list[str]) -> None:
    fillings = (fillings + [""] * len(pieces))[: len(pieces) - 1]
    model = pieces[0] + "".join(filling + piece for filling, piece in zip(fillings, pieces[1:], strict=True))
    assert Principal(name="anna", models=("*".join(pieces),)).may_use(model)
