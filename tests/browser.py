"""A headless Chromium that tests can drive: keys, window size, media, and what it complains about.

It speaks the DevTools protocol over two pipes, so nothing but Chromium itself is needed: no driver,
no package, no port.
"""

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WHY_NOT = "" if CHROMIUM else "no chromium, chromium-browser or google-chrome on the PATH"
TIMEOUT = 60  # seconds for one answer, on a busy machine
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever a page asks for does not get out
)
# Key → its code, the number that old programs know it by, and the text that it types.
KEYS = {
    "Tab": ("Tab", 9, ""),
    " ": ("Space", 32, " "),
    "Enter": ("Enter", 13, "\r"),
    "End": ("End", 35, ""),
    "Home": ("Home", 36, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
}


class Browser:
    """One Chromium with one tab; to be used in a `with`.

    Attributes:
        complaints: messages on the console and exceptions since the page was opened, as text.
        requests: addresses asked for since then, but for `data:` and the page itself.
    """

    def __init__(self, profile: Path):
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._page, self._loaded, self._asked = "", False, 0
        self._buffer = b""
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # Chromium reads descriptor 3 and writes 4; a shell puts ours there, whatever they are.
        inherited = [os.dup(fd) for fd in (theirs_in, theirs_out)]
        words = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]

        def at_3_and_4() -> None:
            high = [os.dup2(fd, 200 + index) for index, fd in enumerate(inherited)]
            for index, fd in enumerate(high):
                os.dup2(fd, 3 + index)

        self._process = subprocess.Popen(
            [*words, "about:blank"],
            preexec_fn=at_3_and_4,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, *inherited):
            os.close(fd)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, page: Path, *, width: int = 1280, height: int = 900, **media: str) -> None:
        """Open a file in a window of this size; `media` as `emulate` takes it."""
        self.resize(width, height)
        self.emulate(**media)
        self.complaints, self.requests = [], []
        self._page, self._loaded = page.as_uri(), False
        answer = self.call("Page.navigate", url=self._page)
        assert "errorText" not in answer, f"{page}: {answer['errorText']}"
        deadline = time.monotonic() + TIMEOUT
        while not self._loaded:
            self._heed(self._receive(deadline))
        self.script("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def resize(self, width: int, height: int) -> None:
        """Give the window a size, in CSS pixels; narrower than a real one may be."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def emulate(self, media: str = "", scheme: str = "light") -> None:
        """Show the page for a medium (print, screen) and in a colour scheme (light, dark)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def script(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, as a keyboard does."""
        code, number, text = KEYS[key]
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        event["modifiers"] = 8 if shift else 0
        typed = {"text": text} if text else {}
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, **event, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._asked:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._heed(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._from, 1 << 20) if ready else b""
            assert more, "chromium does not answer" if not ready else "chromium has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _heed(self, event: dict[str, Any]) -> None:
        name, facts = event.get("method", ""), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded = True
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(facts["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled":
            values = [str(given.get("value")) for given in facts["args"]]
            self.complaints.append(f"{facts['type']}: {' '.join(values)}")
        elif name == "Log.entryAdded":
            self.complaints.append(f"{facts['entry']['level']}: {facts['entry']['text']}")
        elif name == "Network.requestWillBeSent":
            address = facts["request"]["url"]
            if not address.startswith("data:") and address != self._page:
                self.requests.append(address)
