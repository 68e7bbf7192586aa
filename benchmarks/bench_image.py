"""The image: how large it is, how soon it serves, and what it takes at rest.

    python -m benchmarks.bench_image                # as root; builds it first, which takes one or two minutes
    python -m benchmarks.bench_image --starts 20

What runs is what an engine would run (`kit.deploy.image`, in tests/kit): process 1, as the image's user, with its files
read-only. The figures are printed, and not recorded: much depends on the base, here the Debian that the tests make.
"""

from __future__ import annotations

import argparse
import http.client
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT, family, free_port, get_status
from benchmarks.recording import number, table

sys.path.insert(0, str(ROOT / "tests"))

from kit.deploy.image import DOCKERFILE, Image, Storage, opened_storage

KEY: Final = "sk-bench-image-0123456789"
CONFIG: Final = f"""\
model_list:
  - {{model_name: echo, litellm_params: {{model: canned/echo}}}}
general_settings: {{master_key: {KEY}}}
"""
STREAMS: Final = 100
MIB: Final = 1024 * 1024
PATIENCE_S: Final = 60.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the size of the image, its start-up time and its memory.")
    parser.add_argument("--starts", type=int, default=10, help="how often it is started (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the image's user reads it
        Path(folder, "config.yaml").write_text(CONFIG)
        with opened_storage(Path(made)) as storage:
            base = Image(storage, storage.debian())
            image = storage.build("headrace", DOCKERFILE, base=base.name)
            print(size_table(storage, base, image, Path(made, "pushed")), end="\n\n")
            print(start_table(image, Path(folder), options.starts), end="\n\n")
            print(memory_table(image, Path(folder)))
    return 0


def size_table(storage: Storage, base: Image, image: Image, pushed: Path) -> str:
    """Return how large the image is, and which part of that is its base."""
    storage.buildah("push", "--quiet", image.name, f"oci:{pushed}")
    [entry] = json.loads((pushed / "index.json").read_text())["manifests"]
    manifest = json.loads((pushed / "blobs" / "sha256" / entry["digest"].partition(":")[2]).read_text())
    of_base, *of_headrace = [layer["size"] for layer in manifest["layers"]]
    sizes = [("base", size_of(base), of_base), ("headrace", size_of(image) - size_of(base), sum(of_headrace))]
    sizes.append(("image", sizes[0][1] + sizes[1][1], sizes[0][2] + sizes[1][2]))
    rows = [["size", "MiB", "MiB, compressed (gzip)"]]
    rows += [[name, number(plain / MIB, 1), number(packed / MIB, 1)] for name, plain, packed in sizes]
    return table(rows)


def size_of(image: Image) -> int:
    """Return how many bytes the files of an image have."""
    return sum(path.lstat().st_size for path in image.files.rglob("*") if not path.is_dir() or path.is_symlink())


def start_table(image: Image, folder: Path, starts: int) -> str:
    """Return how long it takes from the start of the container until /readyz is answered with 200."""
    empty = [seconds_of(image.command(entrypoint=("true",))) for _ in range(starts)]
    service, checks = list[float](), list[float]()
    for _ in range(starts):
        with running(image, folder) as (process_one, port, took_s):
            service.append(took_s)
            checks.append(cpu_of_check(image, process_one, port))
    rows = [["time", "min ms", "median ms", "max ms"]]
    figures = {"a container that runs `true`": empty, "until /readyz is 200": service, "CPU of a health check": checks}
    for name, found in figures.items():
        rows.append([name, *(number(one * 1000) for one in (min(found), statistics.median(found), max(found)))])
    return table(rows)


def seconds_of(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun


def cpu_of_check(image: Image, process_one: int, port: int) -> float:
    """Return the CPU seconds of a health check in a container, with what an engine needs to start it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(image.exec_command(process_one, image.health_check, {"HEADRACE_PORT": str(port)}), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def running(image: Image, folder: Path) -> Iterator[tuple[int, int, float]]:
    """Run a container; yield its first process, its port, and the seconds until it was ready."""
    port = free_port()
    command = image.command(volumes={"/etc/headrace": folder}, HEADRACE_PORT=str(port))
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while get_status(port, "/readyz") != 200:
            assert process.poll() is None, "the container has ended"
            assert time.perf_counter() < begun + PATIENCE_S, "the service does not come up"
            time.sleep(0.002)
        took_s = time.perf_counter() - begun
        yield family(process.pid)[1], port, took_s
    finally:
        process.kill()
        process.wait()


def memory_table(image: Image, folder: Path) -> str:
    """Return the memory of the supervisor and of its worker, after the start and after some streams."""
    rows = [["memory, MiB", "PSS", "RSS"]]
    with running(image, folder) as (process_one, port, _):
        for when in ("at rest", f"after {STREAMS} streams"):
            for who, pid in zip(("supervisor", "worker"), family(process_one), strict=True):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found = [int(rollup.partition(f"\n{name}:")[2].split()[0]) / 1024 for name in ("Pss", "Rss")]
                rows.append([f"{who} {when}", *(number(one, 1) for one in found)])
            if len(rows) == 3:
                for _ in range(STREAMS):
                    stream(port)
    return table(rows)


def stream(port: int) -> None:
    """Read one stream to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    body = json.dumps({"model": "echo", "stream": True, "input": "word " * 200})
    connection.request("POST", "/cursor/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
    answer = connection.getresponse().read()
    assert answer.endswith(b"data: [DONE]\n\n"), answer[-200:]
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
