"""A browser driven as a person would: by mouse, finger, keys and files, over the Chrome DevTools Protocol.

A click goes to the middle of what is seen, and fails where something else lies there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

HANG_S = 90.0
"""Nothing here may take longer; a guard against hangs, not a target."""

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


@dataclass(slots=True)
class Page:
    """One tab.

    Attributes:
        faults: what the page complained of: exceptions, errors on its console, what its policy blocked.
        addresses: that it asked for, in order.
        downloads: the folder that downloads go to.
    """

    loop: asyncio.AbstractEventLoop
    socket: aiohttp.ClientWebSocketResponse
    downloads: Path
    session: str = ""
    faults: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    _calls: int = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), HANG_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        self._calls += 1
        number = self._calls
        message = {"id": number, "method": method, "params": parameters}
        await self.socket.send_json(message | ({"sessionId": self.session} if self.session else {}))
        while True:
            answer = json.loads(await self.socket.receive_str())
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.addresses.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.faults.append(told["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.faults.append(json.dumps(told["args"]))

    # ---- seeing

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, (expression, done["exceptionDetails"])
        return done["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression, as soon as it is true."""
        latest_s = time.monotonic() + HANG_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < latest_s, f"never true: {expression}; {self.faults}"
            time.sleep(0.03)
        return value

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent.trim()"))

    def shown(self, selector: str) -> bool:
        """Whether an element takes up room on the page."""
        return bool(self.evaluate(f"document.querySelector({json.dumps(selector)}).checkVisibility()"))

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    # ---- doing

    def open(self, address: str) -> None:
        """Go to an address, and wait until the page has started."""
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def look_through(self, width_px: int, height_px: int, *, dark: bool = False, finger: bool = False) -> None:
        """Use a window of this size; with `finger`, a telephone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=height_px,
            deviceScaleFactor=2 if finger else 1,
            mobile=finger,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=finger)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Press the mouse on an element, at shares of its width and height."""
        at_x, at_y = self._point(selector, x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at_x, y=at_y, button="left", clickCount=1)

    def drag(self, selector: str, x: float, to_x: float) -> None:
        """Drag with the mouse within an element, from one share of its width to another."""
        (start, y), (end, _) = self._point(selector, x, 0.5), self._point(selector, to_x, 0.5)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start, y=y, button="left", clickCount=1)
        for step in range(1, 6):
            moved = start + (end - start) * step / 5
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=moved, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end, y=y, button="left", clickCount=1)

    def _point(self, selector: str, x: float, y: float) -> tuple[float, float]:
        """Where to press: scrolled into view, and nothing else on top."""
        found = self.evaluate(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              if (element === null) return "is not there";
              if (element.disabled) return "is disabled";
              const seen = () => {{
                const box = element.getBoundingClientRect();
                const [x, y] = [box.left + box.width * {x}, box.top + box.height * {y}];
                const top = document.elementFromPoint(x, y);
                const same = element.contains(top) || top?.closest("label")?.control === element;
                return same ? [x, y] : `${{top?.outerHTML.slice(0, 200)}} lies there`;
              }};
              const at = seen();
              if (Array.isArray(at)) return at;
              element.scrollIntoView({{ block: "center" }});
              return seen();
            }})()"""
        )
        assert isinstance(found, list), f"{selector}: {found}"
        return float(found[0]), float(found[1])

    def press(self, key: str, times: int = 1) -> None:
        """Press a key on whatever has the focus."""
        for _ in range(times):
            text = {"Enter": "\r", " ": " "}.get(key)
            code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(150):
            if self.evaluate(f"document.activeElement === document.querySelector({json.dumps(selector)})"):
                return
            self.press("Tab")
        raise AssertionError(f"Tab never comes to {selector}")

    def write(self, text: str) -> None:
        """Enter a text where the focus is, as a paste does."""
        self.call("Input.insertText", text=text)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Choose files in a file dialog."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        handle = node["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], objectId=handle)

    def downloaded(self, name: str) -> bytes:
        """A file that was downloaded, once it is whole."""
        path = self.downloads / name
        latest_s = time.monotonic() + HANG_S
        while not path.is_file() or any(self.downloads.glob("*.crdownload")):
            assert time.monotonic() < latest_s, f"{name} never came: {list(self.downloads.iterdir())}"
            time.sleep(0.03)
        return path.read_bytes()


@contextmanager
def browser() -> Iterator[Page]:
    """A headless Chromium with one tab, whose profile is thrown away."""
    assert CHROMIUM is not None, "Chromium is not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        downloads = Path(folder) / "downloads"
        downloads.mkdir()
        arguments = ["--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--mute-audio"]
        arguments += ["--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile"]
        if os.geteuid() == 0:  # Chromium's sandbox refuses root
            arguments.append("--no-sandbox")
        process = subprocess.Popen(
            [CHROMIUM, *arguments, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            with _tab(_address(process), downloads) as page:
                yield page
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"DevTools listening on (ws://\S+)", line):
            return found[1]
    raise AssertionError("Chromium ended before it listened")


@contextmanager
def _tab(address: str, downloads: Path) -> Iterator[Page]:
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(_client())
    try:
        socket = loop.run_until_complete(client.ws_connect(address, max_msg_size=0))
        page = Page(loop, socket, downloads)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        loop.run_until_complete(client.close())
        loop.close()


async def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()
