"""Reloads of a running service: who belongs to which generation, what goes on, and what is left behind."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, begun, good_answer, post_bytes
from kit.clients.held_streams import Held, open_stream, read_body
from kit.clients.raw import RawClient
from kit.service.arounds import FunctionAround, pass_on
from kit.service.running import CONFIG, Service, model, serving
from kit.time.patience import patiently
from kit.upstreams.scripted import error, scripted_upstream, stall

from pipeline import Host, Plugin, per_event
from pipeline.gateway.generation import Generation
from pipeline.gateway.generations import MAX_OLD, ReloadRefusedError
from pipeline.registry import AnyPlugin, NoOptions, PluginError
from stages.events import StreamEvent
from stages.reasoning.store import StoreError

LIMITED = "sk-limited-key-0123456789"
OTHER = "sk-another-key-0123456789"
OTHER_KEYS = CONFIG.replace(LIMITED, OTHER)
"""The configuration in which the limited key is another one."""
HELLO = {"model": "echo", "input": "Hello there"}


def living(name: str, events: list[str], *, fails: bool = False) -> AnyPlugin:
    """Return a plugin that notes when it is opened and closed, and counts its openings in a store of the process."""

    @per_event
    def keep(event: StreamEvent) -> list[StreamEvent]:
        return [event]

    keep.name = name

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        if fails:
            raise OSError("no such disk")
        store = host.shared("openings")
        count = int(await store.get("count") or b"0") + 1
        await store.set("count", b"%d" % count)
        events.append(f"open {name} {count}")
        yield keep
        events.append(f"close {name} {count}")

    return Plugin(name, options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)


async def ended(service: Service) -> None:
    """Wait until only the current generation is left."""
    with patiently():
        while len(service.application.generations.living) > 1:
            await trio.sleep(0.01)


async def test_row_68_new_requests_get_the_new_configuration_and_running_ones_end_with_theirs() -> None:
    """A reload: new requests get the new keys and models, and running streams end as they began."""
    held = Held()
    async with scripted_upstream(held) as upstream, serving(model("team/up", upstream.url)) as service:
        running = await RawClient.open(("127.0.0.1", service.port))
        await running.send(post_bytes(ask("team/up"), key=LIMITED))
        assert (await running.read_head()).status == 200
        assert (await service.post(ask("new"))).status_code == 404
        await service.reload("  - {model_name: new, litellm_params: {model: canned/echo}}\n", config=OTHER_KEYS)
        assert (await service.post(HELLO, key=LIMITED)).status_code == 401
        assert (await service.post(HELLO, key=OTHER)).status_code == 200
        assert (await service.post(ask("new"))).status_code == 200
        assert (await service.post(ask("team/up"))).status_code == 404
        assert [one["id"] for one in (await service.get("/v1/models")).json()["data"]][-1] == "new"
        held.go.set()
        async with running:
            folded = fold_stream(await read_body(running))
            assert (folded.content, folded.is_done) == ("Hello, you", True)
        await ended(service)
        assert [record["generation"] for record in service.records] == [1, 2, 2, 2, 2, 1]


async def test_row_68_a_kept_connection_goes_on_with_the_new_generation() -> None:
    """A client's connection stays open through a reload; its next request is one of the new configuration."""
    async with serving() as service, await RawClient.open(("127.0.0.1", service.port)) as client:
        for number in range(1, 4):
            await client.send(post_bytes(ask("echo", stream=False)))
            assert (await client.read_answer()).status == 200
            assert (await service.record(number - 1))["generation"] == number
            await service.reload()


async def test_row_68_under_load_nothing_is_cut_or_refused() -> None:
    """Reloads under load: no stream is cut, no request refused, the service is ready all the time."""
    held = Held()
    reloads, streams, posting = 8, 40, 6
    async with scripted_upstream(held) as upstream, serving(model("up", upstream.url)) as service:
        clients = [await open_stream(service.port) for _ in range(streams)]
        is_over = False
        statuses: list[int] = []

        async def post_on() -> None:
            async with await RawClient.open(("127.0.0.1", service.port)) as client:
                while not is_over:
                    await client.send(post_bytes(ask("echo", stream=False)))
                    statuses.append((await client.read_answer()).status)

        async def connect_on() -> None:
            while not is_over:
                async with await RawClient.open(("127.0.0.1", service.port)) as client:
                    statuses.append((await client.ask(path="/readyz")).status)

        async def fifty_more_answered() -> None:
            before = len(statuses)
            with patiently():
                while len(statuses) < before + 50:
                    await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            for _ in range(posting):
                nursery.start_soon(post_on)
            nursery.start_soon(connect_on)
            for number in range(reloads):
                await fifty_more_answered()
                if number == reloads // 2:
                    held.go.set()  # else those of the oldest generations would be cut off
                    for client in clients:
                        async with client:
                            folded = fold_stream(await read_body(client))
                            assert (folded.content, folded.is_done) == ("Hello, you", True)
                await service.reload(model("up", upstream.url), f"  request_timeout_s: {600 + number}")
            await fifty_more_answered()
            is_over = True
        assert set(statuses) == {200}
        assert len(statuses) >= 50 * reloads
        await ended(service)
        assert {record["end"] for record in service.records} == {"OK"}
        assert {record["generation"] for record in service.records} == set(range(1, reloads + 2))
        ids = [record["request_id"] for record in service.records]
        assert len(set(ids)) == len(ids)


async def test_the_log_says_what_a_reload_has_changed_and_when_the_generation_before_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    with caplog.at_level(logging.INFO, "headrace"):
        async with scripted_upstream(held) as upstream, serving(model("up", upstream.url)) as service:
            client = await open_stream(service.port)
            await service.reload()
            assert caplog.messages[-1] == (
                "configuration reloaded: 3 models, 2 keys (generation 2); 1 request still running in generation 1"
            )
            held.go.set()
            async with client:
                await read_body(client)
            await ended(service)
            await service.reload()
            await ended(service)
    assert caplog.messages[1:4] == [
        "generation 1 has ended",
        "configuration reloaded: 3 models, 2 keys (generation 3)",
        "generation 2 has ended",
    ]


async def test_of_more_reloads_in_a_row_than_generations_may_live_the_oldest_is_cut_off() -> None:
    held = Held()
    async with scripted_upstream(held) as upstream, serving(model("up", upstream.url)) as service:
        clients: list[RawClient] = []
        for _ in range(MAX_OLD + 1):
            clients.append(await open_stream(service.port))
            await service.reload(model("up", upstream.url))
        oldest, *others = clients
        async with oldest:
            cut = fold_stream(await read_body(oldest))
            assert cut.error is not None
            assert cut.error["code"] == "draining"
        held.go.set()
        for client in others:
            async with client:
                assert fold_stream(await read_body(client)).is_done
        await ended(service)


async def test_a_generation_that_cannot_be_made_or_opened_changes_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_text("this is not a database, and long enough to be none" * 20)
    events: list[str] = []
    use = "  stages: [{use: a}, {use: b}]"
    plugins = {"a": living("a", events), "b": living("b", events)}
    async with serving(pipeline=use, plugins=plugins) as service:
        generation = service.app
        events.clear()
        with pytest.raises(PluginError, match="no such disk"):
            await service.reload(pipeline=use, plugins={**plugins, "b": living("b", events, fails=True)})
        with pytest.raises(PluginError, match="no stage named 'c' is installed"):
            await service.reload(pipeline="  stages: [{use: c}]")
        with pytest.raises(StoreError, match=r"the reasoning store .*damaged cannot be used"):
            await service.reload(pipeline=f"  reasoning_store: sqlite\n  reasoning_store_file: {damaged}")
        assert events == ["open a 3", "close a 3"]
        assert service.app is generation
        assert (await service.post(HELLO)).status_code == 200
        assert (await service.record())["generation"] == 1
        assert service.application.generations.living == [generation]


async def test_plugins_are_opened_before_the_switch_and_closed_after_the_last_request() -> None:
    events: list[str] = []
    held = Held()
    use = "  stages: [{use: a}, {use: b}]"
    plugins = {"a": living("a", events), "b": living("b", events)}
    async with scripted_upstream(held) as upstream:
        async with serving(model("up", upstream.url), use, plugins=plugins) as service:
            client = await open_stream(service.port)
            await service.reload(pipeline=use, plugins=plugins)
            assert events == ["open a 1", "open b 2", "open a 3", "open b 4"]
            events.clear()
            held.go.set()
            async with client:
                assert fold_stream(await read_body(client)).is_done
            await ended(service)
            assert events == ["close b 2", "close a 1"]
            service.shutdown.set()
            with patiently():
                await service.ended.wait()
        assert events == ["close b 2", "close a 1", "close b 4", "close a 3"]


async def test_a_shutdown_drains_and_closes_all_generations() -> None:
    held = Held()
    async with scripted_upstream(held) as upstream, serving(model("up", upstream.url)) as service:
        first = await open_stream(service.port)
        await service.reload(model("up", upstream.url))
        second = await open_stream(service.port)
        service.shutdown.set()
        with patiently():
            while not service.application.generations.is_draining:
                await trio.sleep(0)
        with pytest.raises(ReloadRefusedError, match="about to stop"):
            await service.reload()
        held.go.set()
        for client in (first, second):
            async with client:
                assert fold_stream(await read_body(client)).is_done
        with patiently():
            await service.ended.wait()
        assert sorted(record["generation"] for record in service.records) == [1, 2]


async def test_at_the_drain_deadline_the_requests_of_all_generations_are_cut_off() -> None:
    config = "  graceful_timeout_s: 0.2"
    async with (
        scripted_upstream(*begun("Hello, "), stall()) as upstream,
        serving(model("up", upstream.url), config) as service,
    ):
        await service.reload(model("up", upstream.url))  # with the default: only the drain's is short
        clients = [await open_stream(service.port)]
        await service.reload(model("up", upstream.url))
        clients.append(await open_stream(service.port))
        service.shutdown.set()
        for client in clients:
            async with client:
                folded = fold_stream(await read_body(client))
                assert folded.error is not None
                assert folded.error["code"] == "draining"
        with patiently():
            await service.ended.wait()


def opening_slowly(events: list[str]) -> AnyPlugin:
    """Return a plugin that never opens for the second time."""

    @per_event
    def keep(event: StreamEvent) -> list[StreamEvent]:
        return [event]

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        events.append("opening")
        try:
            if len(events) > 1:
                await trio.sleep_forever()
            yield keep
        finally:
            events.append("closed")

    return Plugin("keep", options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)


async def test_a_shutdown_ends_a_reload_that_is_still_opening() -> None:
    events: list[str] = []
    plugins = {"keep": opening_slowly(events)}
    refused: list[ReloadRefusedError] = []

    async def reload(service: Service) -> None:
        try:
            await service.reload(pipeline="  stages: [{use: keep}]", plugins=plugins)
        except ReloadRefusedError as error:
            refused.append(error)

    async with serving(pipeline="  stages: [{use: keep}]", plugins=plugins) as service, trio.open_nursery() as nursery:
        nursery.start_soon(reload, service)
        with patiently():
            while len(events) < 2:
                await trio.sleep(0.01)
            service.shutdown.set()
            await service.ended.wait()
    assert events == ["opening", "opening", "closed", "closed"]
    assert len(refused) == 1


async def test_a_shutdown_just_after_the_opening_ends_a_reload_and_closes_what_it_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    use, plugins = "  stages: [{use: a}]", {"a": living("a", events)}
    open_it = Generation.open
    async with serving(pipeline=use, plugins=plugins) as service:
        before = service.app

        async def open_and_drain(self: Generation) -> None:
            await open_it(self)
            service.application.generations.drain()

        monkeypatch.setattr(Generation, "open", open_and_drain)
        with pytest.raises(ReloadRefusedError, match="about to stop"):
            await service.reload(pipeline=use, plugins=plugins)
        assert events == ["open a 1", "open a 2", "close a 2"]
        assert service.application.generations.living == [before]


async def test_a_generation_that_cannot_take_over_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    use, plugins = "  stages: [{use: a}]", {"a": living("a", events)}

    def fail(self: Generation, before: Generation) -> None:
        raise ValueError("no")

    async with serving(pipeline=use, plugins=plugins) as service:
        before = service.app
        monkeypatch.setattr(Generation, "take_over", fail)
        with pytest.raises(ValueError, match="no"):
            await service.reload(pipeline=use, plugins=plugins)
        assert events == ["open a 1", "open a 2", "close a 2"]
        assert service.application.generations.living == [before]
        assert (await service.post(HELLO)).status_code == 200


async def test_what_is_known_of_unchanged_deployments_and_of_clients_goes_on() -> None:
    config = CONFIG.replace(
        "{{num_retries: 0}}", "{{num_retries: 0, cooldown_time: 600, routing_strategy: least-busy}}"
    )
    more = "  - {model_name: more, litellm_params: {model: canned/echo}}\n"
    async with scripted_upstream(error(401)) as upstream:
        up, moved = model("up", upstream.url), model("up", upstream.url, api_key="sk-repaired-0123456789012")
        async with serving(up, config=config) as service:
            assert (await service.post(ask("up"))).status_code == 502
            assert (await service.post(ask("echo"), key="sk-wrong")).status_code == 401
            before = service.app
            before.deployments.router.asked_by_chat |= {"up", "echo"}
            before.deployments.router.keep("a conversation", before.settings.deployments[0])
            await service.reload(more + up, config=config)
            await ended(service)
            now = service.app.deployments.router
            assert now.health["up"].ejected_until_s is not None
            assert now.budget is before.deployments.router.budget
            assert now._sticky == {("echo", "a conversation"): "echo"}
            assert now.asked_by_chat == {"up", "echo"}
            page = (await service.get("/health")).json()
            assert page["wrong_keys"] == 1
            assert [one["state"] for one in page["unhealthy_endpoints"]] == ["ejected"]
            assert service.app.clients is before.clients
            assert service.app.reasoning is before.reasoning
            assert service.app.bridge.uploads is before.bridge.uploads
            await service.reload(moved, config=config)  # with another key it may be well
            await ended(service)
            now = service.app.deployments.router
            assert now.health["up"].ejected_until_s is None
            assert now.asked_by_chat == {"echo"}


async def test_the_connections_to_an_upstream_that_is_configured_no_more_are_closed() -> None:
    async with scripted_upstream(*good_answer()) as kept, scripted_upstream(*good_answer()) as left:
        async with serving(model("up", kept.url) + model("gone", left.url)) as service:
            for name in ("up", "gone"):
                assert (await service.post(ask(name))).status_code == 200
            clients = service.app.clients
            assert clients.idle_connections == 2
            await service.reload(model("up", kept.url))
            await ended(service)
            assert service.app.clients is clients
            assert clients.idle_connections == 1
            with patiently():
                await left.connection_closed()
            assert (await service.post(ask("up"))).status_code == 200
            assert len(kept.requests) == 2
            assert len(kept.connections) == 1


async def test_other_settings_of_clients_and_stores_make_new_ones() -> None:
    async with serving() as service:
        before = service.app
        await service.reload(pipeline="  upstream_max_connections: 7\n  reasoning_max_entries: 7")
        await ended(service)
        assert service.app.clients is not before.clients
        assert service.app.reasoning is not before.reasoning
        with pytest.raises(RuntimeError, match="after it has ended"):
            before.clients.transport_for(before.settings.deployments[0])
        await service.reload(pipeline="  restore_reasoning: false")
        assert service.app.reasoning is None
        assert (await service.post(HELLO)).status_code == 200


def system_tasks(name: str) -> int:
    """Return how many of trio's system tasks have this name."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sum(task.name == name for nursery in root.child_nurseries for task in nursery.child_tasks)


async def test_what_has_failed_is_opened_anew() -> None:
    async with serving() as service:
        before = service.app
        assert before._store is not None
        before._store.has_failed = before._clients.has_failed = True
        await service.reload()
        assert service.app.reasoning is not before.reasoning
        assert service.app.clients is not before.clients
        assert (await service.post(HELLO)).status_code == 200


async def test_only_the_current_generation_asks_deployments_in_the_background() -> None:
    checks = "{{master_key: {key}, background_health_checks: true, health_check_interval: 60}}"
    config = CONFIG.replace("{{master_key: {key}}}", checks)
    up = model("up", "http://127.0.0.1:9")
    async with serving(up, config=config) as service:
        for _ in range(3):
            await service.reload(up, config=config)
            await ended(service)
            assert system_tasks("health checks") == 1
        await service.reload(up)
        await ended(service)
        assert system_tasks("health checks") == 0


WITHOUT = "  stages: [{use: a}]"
SOMETIMES = "  stages: [{use: a, when: {stream: true}}, {use: around, when: {models: [up]}}]"
ALWAYS = "  stages: [{use: a}, {use: around}]"


@pytest.mark.parametrize("use", [WITHOUT, SOMETIMES, ALWAYS])
async def test_nothing_of_a_generation_is_left_after_its_end_without_the_collector(use: str) -> None:
    events: list[str] = []
    around = Plugin("around", lambda _: FunctionAround(pass_on), NoOptions, kind="around")
    plugins = {"a": living("a", events), "around": around}
    async with scripted_upstream(*good_answer()) as upstream:
        async with serving(model("up", upstream.url), use, plugins=plugins) as service:
            left: list[weakref.ref[Any]] = []
            gc.collect()
            gc.disable()
            try:
                for number in range(50):
                    now = service.app
                    left += [weakref.ref(one) for one in (now, now.bridge, now.deployments, now.bridge.assembly)]
                    for name, is_stream in (("up", True), ("echo", False)):
                        assert (await service.post(ask(name, stream=is_stream))).status_code == 200
                    pipeline = f"{use}\n  request_timeout_s: {number + 60}"
                    await service.reload(model("up", upstream.url), pipeline, plugins=plugins)
                del now
                await ended(service)
                await trio.testing.wait_all_tasks_blocked()
                assert [one() for one in left if one() is not None] == []
            finally:
                gc.enable()
    assert len(events) == 2 * 51
