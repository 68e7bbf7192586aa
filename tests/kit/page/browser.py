"""A real Chromium without a window, driven by the DevTools protocol over a pipe: JSON documents that end with NUL.

Protocol: https://chromedevtools.github.io/devtools-protocol/ ; ``--remote-debugging-pipe`` reads from descriptor 3 and
writes to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 25
SIZE = 1280, 900
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class PageError(Exception):
    """An expression that was evaluated in a page has failed."""


class Browser:
    """A running Chromium; see `chromium`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], PATIENCE_S)
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                raise PageError("Chromium has ended" if ready else f"no answer of Chromium within {PATIENCE_S} s")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    @contextmanager
    def tab(self, width: int = SIZE[0], height: int = SIZE[1]) -> Iterator[Tab]:
        """Open a tab in a profile of its own, and close it at the end."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.prefer(dark=False)
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """A tab of a `Browser`."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol on this tab."""
        return self.browser.call(method, session=self.session, **params)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def clear(self) -> None:
        """Leave the page, and forget what it has kept or reported."""
        self.run("sessionStorage.clear(); localStorage.clear()")
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.resize(*SIZE)
        self.prefer(dark=False)
        self.browser.events.clear()

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, *, dark: bool) -> None:
        """Set what the system prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def run(self, expression: str) -> Any:
        """Evaluate an expression, await it if it is a promise, and return its value."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self.run(f"!!({expression})"):
                    return
            except PageError as error:
                if "context" not in str(error) and "null" not in str(error):  # the page is about to change
                    raise
            if time.monotonic() > deadline:
                shown = self.run("document.body.innerText.slice(0, 600)")
                raise AssertionError(f"{expression} has not become true; problems: {self.problems()}; shown: {shown}")
            self.run("new Promise((resolve) => setTimeout(resolve, 20))")

    def text(self, selector: str) -> str:
        """Return the text of the first element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            code = KEYS.get(key) or ARROWS.get(key) or ord(key.upper())
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            for kind in ("keyDown", "keyUp"):
                typed = text if kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def move(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click the first element."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def problems(self) -> list[str]:
        """Return what the tab has written into its console as an error: failed scripts, refused contents."""
        self.run("0")
        found: list[str] = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event["params"]
            match event["method"]:
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
                case "Runtime.exceptionThrown":
                    details = params["exceptionDetails"]
                    found.append(details.get("exception", {}).get("description") or details["text"])
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    found.append(str([value.get("value") for value in params["args"]]))
        return found

    def picture(self, selector: str = "") -> bytes:
        """Return what is shown, or the section that has an element, as PNG."""
        cut: dict[str, Any] = {}
        if selector:
            section = f"document.querySelector({json.dumps(selector)}).closest('section')"
            box = self.run(
                f"{section}.scrollIntoView({{ block: 'center' }}); {section}.getBoundingClientRect().toJSON()"
            )
            cut = {"clip": {name: box[name] for name in ("x", "y", "width", "height")} | {"scale": 1}}
        shot = self.call("Page.captureScreenshot", format="png", **cut)
        return base64.b64decode(shot["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with an empty profile, and end it."""
    assert CHROMIUM is not None
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The shell puts the pipes where Chromium expects them.
        script = f'exec "$0" "$@" 3<&{commands_out} 4>&{answers_in}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_out)
        os.close(answers_in)
        browser = Browser(commands_in, answers_out)
        try:
            yield browser
            browser.call("Browser.close")
        finally:
            os.close(commands_in)  # it ends without its pipe, too
            process.wait(PATIENCE_S)
            os.close(answers_out)
