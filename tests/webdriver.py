"""A small WebDriver client (W3C WebDriver): Chromium, Firefox and WebKit, without a window and without a network."""

import base64
import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile
from http.client import HTTPConnection

from serverkit import found, free_port, wait_until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12.1: under this name an element travels
BACKSPACE, TAB, ENTER, CONTROL, LEFT = "\ue003", "\ue004", "\ue007", "\ue009", "\ue012"  # §17.4.2
WINDOW = {"width": 1280, "height": 1000}


class Browser:
    """A browser with an empty profile, under its driver. The last of `programs` is the driver, the first the browser."""

    programs = ()
    keeps_secure_cookies = True  # that came over plain HTTP from localhost
    logs = False  # tells what is in the console, and what was asked of whom

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="minijwt-browser-")
        self.environ = {**os.environ, "HOME": self.profile, "TMPDIR": self.profile}
        self.processes, self.session, self.connection = [], "", None
        try:
            port = free_port()
            self.prepare()
            self.start(find(self.programs[-1]), f"--port={port}")
            self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
            wait_until(self.is_ready)
            answer = self.command("POST", "", capabilities={"alwaysMatch": self.capabilities()})
            self.session = "/" + answer["sessionId"]
            self.go("about:blank")  # away from the start page, and from what that has asked for
            self.command("POST", "/window/rect", **WINDOW)
            self.console(), self.requests()
        except BaseException:
            self.close()
            raise

    @classmethod
    def missing(cls):
        """Return why there can be no such browser, or ""."""
        absent = [name for name in cls.programs if not find(name)]
        return f"needs {' and '.join(absent)}" if absent else ""

    def start(self, *command, **options):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        # A group of its own, to end as a whole.
        self.processes.append(subprocess.Popen(command, env=self.environ, start_new_session=True, **options))

    def prepare(self):
        """Start what the browser needs besides its driver."""

    def is_ready(self):
        with contextlib.suppress(OSError):
            self.connection.request("GET", "/status")
            return json.loads(self.connection.getresponse().read())["value"]["ready"]
        self.connection.close()
        return False

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

    def find(self, selector):
        return self.command("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def read(self, selector, what="text"):
        """Return an element's "text" that is to be seen, its "property/value", or its "computedlabel" for ears."""
        return self.command("GET", f"/element/{self.find(selector)}/{what}")

    def show(self, selector):
        """Scroll to an element, so that it is not beneath what stays at the top."""
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)

    def click(self, selector):
        self.show(selector)
        self.command("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, *keys):
        """Press `keys`, beginning behind the last character of a field."""
        self.command("POST", f"/element/{self.find(selector)}/value", text="".join(keys))

    def press(self, *keys):
        """Press `keys` wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in "".join(keys) for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def hover(self, selector):
        self.show(selector)
        move = {"type": "pointerMove", "origin": {ELEMENT: self.find(selector)}, "x": 0, "y": 0}
        self.command("POST", "/actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def resize(self, width=WINDOW["width"], height=WINDOW["height"]):
        """Make the page as wide and as high, or as near to that as the window goes."""
        self.command("POST", "/window/rect", width=width, height=height)
        measured = self.script("return [outerWidth - innerWidth, outerHeight - innerHeight]")
        self.command("POST", "/window/rect", width=width + measured[0], height=height + measured[1])

    def console(self):
        """Return what has been written to the console since the last time."""
        return []

    def requests(self):
        """Return the address of every request since the last time."""
        return []

    def close(self):
        with contextlib.suppress(Exception):
            self.command("DELETE", "")
        if self.connection:
            self.connection.close()
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class Chromium(Browser):
    """Debian: chromium and chromium-driver. Its DevTools commands are not of WebDriver."""

    programs = ("chromium", "chromedriver")
    logs = True
    arguments = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        # no host but this machine, whatever is asked for
        "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    )  # fmt: skip

    def capabilities(self):
        arguments = [*self.arguments, f"--user-data-dir={self.profile}"]
        return {
            "goog:chromeOptions": {"binary": find("chromium"), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }

    def devtools(self, name, **parameters):
        return self.command("POST", "/goog/cdp/execute", cmd=name, params=parameters)

    def console(self):
        return [entry["message"] for entry in self.command("POST", "/se/log", type="browser")]

    def requests(self):
        entries = self.command("POST", "/se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]

    def look(self, width, height=0, scheme="light", scale=1, forced="none"):
        """Look at the page in a window of `width` and `height` (0: the whole page); return it as a PNG."""
        features = {"prefers-color-scheme": scheme, "forced-colors": forced}
        features = [{"name": name, "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": height or 800, "deviceScaleFactor": scale, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        if not height:
            size["height"] = self.script("return document.documentElement.scrollHeight")
            self.devtools("Emulation.setDeviceMetricsOverride", **size)
        return base64.b64decode(self.command("GET", "/screenshot"))

    def resize(self, width=0, height=1000):
        if width:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            self.devtools("Emulation.setDeviceMetricsOverride", **size)
        else:
            self.devtools("Emulation.clearDeviceMetricsOverride")

    def look_away(self):
        self.devtools("Emulation.clearDeviceMetricsOverride")
        self.devtools("Emulation.setEmulatedMedia", features=[])


class Firefox(Browser):
    """Debian: firefox-esr. Its driver, geckodriver, is not in every Debian."""

    programs = ("firefox-esr", "geckodriver")

    def capabilities(self):
        # No host but this machine: a proxy at a port where nothing listens.
        preferences = {
            "network.proxy.type": 1, "network.proxy.http": "127.0.0.1", "network.proxy.http_port": 9,
            "network.proxy.ssl": "127.0.0.1", "network.proxy.ssl_port": 9,
            "network.proxy.no_proxies_on": "localhost,127.0.0.1,page.test", "network.dns.localDomains": "page.test",
        }  # fmt: skip
        return {"moz:firefoxOptions": {"binary": find("firefox-esr"), "args": ["-headless"], "prefs": preferences}}


class WebKit(Browser):
    """Debian: webkit2gtk-driver and xvfb. Safari's engine, which keeps no Secure cookie that came over plain HTTP."""

    programs = ("MiniBrowser", "Xvfb", "WebKitWebDriver")
    keeps_secure_cookies = False

    def prepare(self):
        reader, writer = os.pipe()
        self.start(find("Xvfb"), "-displayfd", str(writer), "-screen", "0", "1400x1100x24", pass_fds=[writer])
        os.close(writer)
        with open(reader, "rb") as display:
            self.environ["DISPLAY"] = ":" + display.readline().decode().strip()

    def capabilities(self):
        return {"webkitgtk:browserOptions": {"binary": find("MiniBrowser"), "args": ["--automation"]}}


ENGINES = (Chromium, Firefox, WebKit)


def find(program):
    """Return the path of a program, or None. WebKit's browser is not among those that people call."""
    places = [found(program), *glob.glob(f"/usr/lib/*/webkit2gtk-4*/{program}")]
    return next(filter(None, places), None)
