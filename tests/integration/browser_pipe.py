"""A real Chromium driven over its DevTools pipe: any width, light or dark, waits for what happens.

Messages are JSON ended by a NUL, on the file descriptors 3 (to the browser) and 4 (from it).
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# No sandbox: root has none. Nothing but the page is to be asked for.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
# Puts the pipes where the browser looks for them; out of the way first, as they may be there.
START = """
import fcntl, os, sys
away = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for fd, place in zip(away, (3, 4)):
    os.dup2(fd, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
# A page that waits for longer than this has failed [ms]; a loaded machine takes seconds.
WAIT_MS = 60_000


@dataclass
class Tab:
    """One page of the browser, and what its console said."""

    commands: int
    answers: int
    session: str = ""
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _loaded: bool = False
    _id: int = 0
    _rest: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for the answer."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._id:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        said = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true, looked at whenever the page changes."""
        happened = self.run(f"""new Promise(done => {{
            const look = () => {{ if ({condition}) {{ watch.disconnect(); done(true); }} }};
            const watch = new MutationObserver(look);
            watch.observe(document, {{subtree: true, childList: true, attributes: true,
                                      characterData: true}});
            setTimeout(() => done(false), {WAIT_MS});
            look();
        }})""")
        assert happened, f"never true: {condition}: {self.run('document.body.innerText')}"

    def look(
        self,
        url: str,
        width: int = 1280,
        height: int = 900,
        *,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        """Open a page and wait until it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        # What the page before this one still says, of its server that is gone, is no word of this.
        self._open("about:blank")
        self.console.clear()
        self.asked.clear()
        self._open(url)

    def photograph(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _open(self, url: str) -> None:
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._note(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self.answers, 1 << 20)
            assert more, "the browser ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Log.entryAdded":
                self.console.append(told["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.console.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.console.append(str(told["args"]))
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])


@contextlib.contextmanager
def browser(binary: Path, folder: Path) -> Iterator[Tab]:
    # Runs until the block ends.
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    pipes = [str(to_read), str(from_write)]
    command = [sys.executable, "-c", START, *pipes, str(binary), *FLAGS,
               f"--user-data-dir={folder}"]  # fmt: skip
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=(to_read, from_write), stdout=log, stderr=log)
    os.close(to_read)
    os.close(from_write)
    tab = Tab(to_write, from_read)
    try:
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        attached = tab.call("Target.attachToTarget", targetId=target, flatten=True)
        tab.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        yield tab
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_write)
        os.close(from_read)
