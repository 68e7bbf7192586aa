"""Let libFuzzer choose what to mutate, by the branches that each input reaches: atheris, of the group ``fuzz``."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

import trio


def fuzz(name: str, count: int, seed: int, folder: Path) -> None:
    """Try inputs of one target until ``count``, and exit the process.

    What reaches a branch that no other input has reached is kept in ``folder/corpus``, for the next run as well.
    """
    try:
        atheris: Any = importlib.import_module("atheris")  # it has no types
    except ImportError:
        sys.exit("--guided needs atheris: pip install --group fuzz (or: make fuzz)")
    with atheris.instrument_imports(include=["stages", "pipeline"]):
        from fuzz.runner import target

        it = target(name)
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(it.seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def try_one(data: bytes) -> None:
        trio.run(it.check, data)

    def mutate(data: bytes, most_bytes: int, draw: int) -> bytes:
        try:
            return it.mutated(data, Random(draw))[:most_bytes]
        except Exception:  # it would vanish in the fuzzer
            traceback.print_exc()
            raise

    options = [
        f"-runs={count}",
        f"-seed={seed or 1}",
        "-max_len=200000",
        f"-artifact_prefix={folder}/{name}-",
        "-timeout=20",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], try_one, custom_mutator=mutate)
    atheris.Fuzz()
