"""The machine: descriptors, the port, cores, memory and the disk, against what is configured."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from pathlib import Path
from typing import Final

import httpx

from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.doctor.findings import Finding, Report, ok, problem, warning
from pipeline.gateway.memory import MIB, memory_limit_bytes
from pipeline.gateway.open_files import files_needed
from pipeline.gateway.upload_budget import default_total_bytes

WORKER_MIB: Final = 90
"""A worker without requests, as docs/reliability.md has measured, rounded up."""
ANSWER_LIMIT_S: Final = 3.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""An address that stands for all: the one by which this machine itself is reached."""


async def see_machine(settings: Settings, report: Report) -> None:
    """Make all checks of the machine."""
    own = settings.pipeline
    report(judge_files(own.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    report(await see_port(own))
    report(judge_workers(own.workers, len(os.sched_getaffinity(0))))
    report(judge_memory(own, memory_limit_bytes()))
    report(see_disk(own))


def judge_files(max_connections: int, hard: int) -> Finding:
    """Return whether so many descriptors (less than 0: any number) are enough."""
    needed = files_needed(max_connections)
    text = f"{'any number' if hard < 0 else hard} allowed, {needed} needed for max_connections: {max_connections}"
    if 0 < hard < needed:
        return warning(
            "open files", text, "ulimit -n, systemd's LimitNOFILE, docker's --ulimit nofile; or less max_connections"
        )
    return ok("open files", text)


async def see_port(own: PipelineSettings, limit_s: float = ANSWER_LIMIT_S) -> Finding:
    """See whether the port is free or, if not, who answers there."""
    where = f"{own.host} port {own.port}"
    if not own.port:
        return ok("port", "any that is free")
    try:
        family = socket.AF_INET6 if ":" in own.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((own.host, own.port))
        return ok("port", f"{where} is free: headrace does not run there now")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            why = (error.strerror or type(error).__name__).lower()
            return problem("port", f"{where}: {why}", "set pipeline_settings.host and port to what this machine has")
    host = _ANY.get(own.host, own.host)
    scheme = "http" if own.tls_certfile is None else "https"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{own.port}/livez"
    try:
        # Nothing secret is sent, and the certificate is for another name.
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=limit_s) as client:
            server = (await client.get(url)).headers.get("server", "")
    except (httpx.HTTPError, ValueError):
        server = ""
    if server == "headrace":
        return ok("port", f"headrace answers at {where}")
    who = f"{server.partition('/')[0]} answers" if server else "something that is not headrace listens"
    return problem("port", f"{who} at {where}", "end it, or set another pipeline_settings.port")


def judge_workers(workers: int, cores: int) -> Finding:
    """Return whether there are cores for the workers."""
    text = f"{workers} {'worker' if workers == 1 else 'workers'}, {cores} {'core' if cores == 1 else 'cores'}"
    if workers > cores:
        return warning("workers", text, f"pipeline_settings.workers: {cores}: more than cores only wait for each other")
    return ok("workers", text)


def judge_memory(own: PipelineSettings, limit_bytes: int | None) -> Finding:
    """Return whether what the workers may keep fits into the memory."""
    if limit_bytes is None:
        return ok("memory", "this system does not say how much there is")
    uploads = own.max_upload_mb_total
    uploads_mib = default_total_bytes(limit_bytes, own.workers) / MIB if uploads is None else uploads
    each_mib = WORKER_MIB + own.recorder_mb + uploads_mib
    text = (
        f"{limit_bytes / MIB:.0f} MiB; {own.workers} x {each_mib:.0f} MiB may be used (the worker {WORKER_MIB}, "
        f"recorder_mb {own.recorder_mb:g}, uploads {uploads_mib:.0f})"
    )
    if own.workers * each_mib * MIB > limit_bytes:
        return warning("memory", text, "less workers, max_upload_mb_total or recorder_mb; or more memory")
    return ok("memory", text)


def see_disk(own: PipelineSettings) -> Finding:
    """See whether the store of reasoning has room."""
    if not own.restore_reasoning or own.reasoning_store != "sqlite" or own.reasoning_store_file is None:
        return ok("disk", "nothing is kept there")
    folder = Path(own.reasoning_store_file).absolute().parent
    if not os.access(folder, os.W_OK):
        return problem("disk", f"{folder} cannot be written", "set reasoning_store_file, or the owner of the folder")
    free_mib = shutil.disk_usage(folder).free / MIB
    text = f"{folder} has {free_mib:.0f} MiB free"
    needed_mib = own.reasoning_max_mb
    if needed_mib is not None and free_mib < needed_mib:
        return warning("disk", f"{text}, reasoning_max_mb is {needed_mib:g}", "make room, or set less")
    return ok("disk", text)
