"""A small WebDriver client (W3C WebDriver, and chromedriver's logs and DevTools commands): a real browser, headless."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from http.client import HTTPConnection

PROGRAMS = ("chromium", "chromedriver")  # Debian: the packages chromium and chromium-driver
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12.1: under this name an element travels
BACKSPACE, TAB, ENTER, LEFT = "\ue003", "\ue004", "\ue007", "\ue012"  # WebDriver §17.4.2
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
    # no host but this machine, whatever is asked for
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)  # fmt: skip


def missing():
    """Return why there can be no browser, or ""."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    return f"needs {' and '.join(absent)}" if absent else ""


class Browser:
    """Chromium with an empty profile, under a chromedriver on a free port."""

    def __init__(self):
        chromium, chromedriver = map(shutil.which, PROGRAMS)
        self.profile = tempfile.mkdtemp(prefix="minijwt-browser-")
        self.driver = subprocess.Popen(
            [chromedriver, "--port=0"], env={**os.environ, "HOME": self.profile}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,  # a group, to end as a whole
        )  # fmt: skip
        self.session, self.connection = "", None
        try:
            port = next(m[1] for m in map(re.compile("successfully on port ([0-9]+)").search, self.driver.stdout) if m)
            self.connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
            options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={self.profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            answer = self.command("POST", "", capabilities={"alwaysMatch": wanted})
            self.session = "/" + answer["sessionId"]
            self.go("about:blank")  # away from the start page, and from what that has asked for
            self.console(), self.requests()
        except BaseException:
            self.close()
            raise

    def command(self, method, path, **parameters):
        """Send one command of the session; return its value."""
        body = json.dumps(parameters) if method == "POST" else None
        self.connection.request(method, f"/session{self.session}{path}", body, {"Content-Type": "application/json"})
        value = json.loads(self.connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

    def go(self, url):
        self.command("POST", "/url", url=url)

    def script(self, body, *arguments):
        return self.command("POST", "/execute/sync", script=body, args=arguments)

    def devtools(self, name, **parameters):
        return self.command("POST", "/goog/cdp/execute", cmd=name, params=parameters)

    def find(self, selector):
        return self.command("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def read(self, selector, what="text"):
        """Return an element's "text" that is to be seen, its "property/value", or its "computedlabel" for ears."""
        return self.command("GET", f"/element/{self.find(selector)}/{what}")

    def click(self, selector):
        self.command("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, *keys):
        """Press `keys`, beginning behind the last character of a field."""
        self.command("POST", f"/element/{self.find(selector)}/value", text="".join(keys))

    def press(self, *keys):
        """Press `keys` wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in "".join(keys) for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def hover(self, selector):
        move = {"type": "pointerMove", "origin": {ELEMENT: self.find(selector)}, "x": 0, "y": 0}
        self.command("POST", "/actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def console(self):
        """Return what has been written to the console since the last time."""
        return [entry["message"] for entry in self.command("POST", "/se/log", type="browser")]

    def requests(self):
        """Return the address of every request since the last time."""
        entries = self.command("POST", "/se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]

    def look(self, width, scheme="light", scale=1):
        """Look at the whole page in a window of `width`, in the "light" or "dark" scheme; return it as a PNG."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": 800, "deviceScaleFactor": scale, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        size["height"] = self.script("return document.documentElement.scrollHeight")
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        return base64.b64decode(self.command("GET", "/screenshot"))

    def close(self):
        with suppress(Exception):
            self.command("DELETE", "")
        if self.connection:
            self.connection.close()
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        self.driver.stdout.close()
        shutil.rmtree(self.profile, ignore_errors=True)
