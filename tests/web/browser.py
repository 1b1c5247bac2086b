"""A headless Chromium, spoken to in its own protocol (DevTools) over a pair of pipes: no driver, no port."""
import base64
import itertools
import json
import os
import select
import signal
import subprocess
import tempfile
import time

PATIENCE_S = 60


class Browser:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="ll-chromium-")
        to_read, self._to_write = os.pipe()
        self._from_read, from_write = os.pipe()

        def pipes():  # Chromium reads from descriptor 3 and writes to 4
            spare_read, spare_write = os.dup(to_read), os.dup(from_write)
            os.dup2(spare_read, 3)
            os.dup2(spare_write, 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
             "--hide-scrollbars", f"--user-data-dir={self.folder.name}"],
            preexec_fn=pipes, close_fds=False, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        self._numbers = itertools.count(1)
        self._rest = b""
        self.events = []

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)  # its children write into the folder, too
        self.process.wait(timeout=PATIENCE_S)
        os.close(self._to_write)
        os.close(self._from_read)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.folder.cleanup()
            except OSError:  # one of them is not quite gone
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _message(self, deadline):
        while b"\0" not in self._rest:
            ready = select.select([self._from_read], [], [], max(0, deadline - time.monotonic()))[0]
            if not ready:
                return None
            piece = os.read(self._from_read, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has ended")
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._message(deadline)
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def collect(self, seconds):
        """Takes events for so long."""
        deadline = time.monotonic() + seconds
        while (event := self._message(deadline)) is not None:
            self.events.append(event)


class Tab:
    """One page: width and height in CSS pixels; `dark`: the reader prefers dark colours; `script`: whether scripts run."""

    def __init__(self, browser, width=1280, height=900, dark=False, script=True):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        if not script:
            self("Emulation.setScriptExecutionDisabled", value=True)

    def __call__(self, method, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def mine(self, method):
        return [e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e.get("method") == method]

    def open(self, url):
        loads = len(self.mine("Page.loadEventFired"))
        answer = self("Page.navigate", url=url)
        if answer.get("errorText"):
            raise RuntimeError(f"{url}: {answer['errorText']}")
        self.wait(lambda: len(self.mine("Page.loadEventFired")) > loads, url)

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            self.browser.collect(0.05)

    def run(self, expression):
        """The value of JavaScript, as the page would compute it."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression):
        # What is looked for may be missing for a moment, while the page is replaced.
        self.wait(lambda: self.run(f"(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()"), expression)

    def press(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **({"text": key} if len(key) == 1 and kind == "keyDown" else {}))

    def picture(self, path, whole=True):
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def complaints(self):
        """What the console would show: errors, uncaught exceptions, violations of the policy."""
        out = [e["entry"]["text"] for e in self.mine("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")]
        out += [str(e["exceptionDetails"]) for e in self.mine("Runtime.exceptionThrown")]
        return out + [str(e["args"]) for e in self.mine("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")]

    def addresses(self):
        return [e["request"]["url"] for e in self.mine("Network.requestWillBeSent")]
