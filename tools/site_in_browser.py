"""`python -m tools.site_in_browser FOLDER [--screenshots DIR]`: the documentation site in headless Chromium.

Every page, as wide as a desktop's window and as a telephone's screen, must load without an error in the console, show
every picture, and not be wider than the screen; every link inside the site must have its target; and the search must
find what a reader types. The pages are served on loopback; nothing else is asked for.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

#: Programs that are a Chromium, the first that is installed.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
#: What a reader may type, and the page that must be among the first results.
SEARCHES = {
    "dt": "tutorials/irregular-times.html",
    "times": "tutorials/irregular-times.html",
    "field": "api/glossary.html",
    "divergence_scale": "api/glossary.html",
    "GPU not used": "how-to/backend-missing.html",
    "backend did not load": "how-to/backend-missing.html",
    "skew_expm": "api/functions.html",
    "environment": "how-to/environment.html",
}
FIRST = 5
#: What is wrong with the page that is shown, as a list of sentences.
CHECK = """(async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  const found = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > width + 1);
    const names = wide.slice(0, 3).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40));
    found.push(`is ${document.documentElement.scrollWidth} wide on a screen of ${width}: ${names.join(' | ')}`);
  }
  for (const image of document.images) if (!image.naturalWidth) found.push(`does not show ${image.src}`);
  for (const formula of document.querySelectorAll('.math'))
    if (!formula.querySelector('mjx-container')) found.push(`has a formula that was not set: ${formula.textContent}`);
  for (const error of document.querySelectorAll('mjx-merror')) found.push(`has a wrong formula: ${error.textContent}`);
  return found;
})()"""
RESULTS = """(async () => {
  for (let k = 0; k < 100; ++k) {
    const done = document.querySelector('#search-results .search-summary');
    if (done && Search.title.textContent !== _('Searching')) break;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return [...document.querySelectorAll('#search-results ul.search > li > a')].map(a => a.href);
})()"""


def browser() -> str:
    """The program.

    Raises:
        FileNotFoundError: none is installed.
    """
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(PROGRAMS)} is installed (Debian: apt-get install chromium)")
    return found


class Page:
    """A tab of the browser, driven by the Chrome DevTools Protocol."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._number = 0
        self.errors: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        name, told = event.get("method"), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded = True
        elif name == "Runtime.exceptionThrown":
            self.errors.append(f"throws {told['exceptionDetails'].get('exception', told)}")
        elif name == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(f"logs {[part.get('value') for part in told['args']]}")
        elif name == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"logs {told['entry']['text']} {told['entry'].get('url', '')}")
        elif name == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if urlsplit(address).hostname not in ("127.0.0.1", None) and not address.startswith("data:"):
                self.errors.append(f"asks for {address}")

    def show(self, address: str, width: int, height: int, mobile: bool) -> None:
        """Loads the address on a screen of that size."""
        self.errors, self._loaded = [], False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._note(json.loads(self._socket.recv()))

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """What is on the screen, or the whole page, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def opened_page() -> Iterator[Page]:
    """A page of a browser with a profile of its own and no network but loopback."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", "--remote-debugging-port=0",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Page(_address_of(Path(profile) / "DevToolsActivePort"))
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address_of(port_file: Path) -> str:
    """Where the browser's first page takes commands."""
    import urllib.request

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if port_file.exists() and (port := port_file.read_text().split("\n")[0]):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise RuntimeError("the browser did not open a page within a minute")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder on loopback; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


class Links(HTMLParser):
    """The targets of a page: its anchors, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one element."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(folder: Path) -> list[str]:
    """Links inside the site whose file or anchor is missing, in words."""
    pages = {path.resolve(): Links(path.read_text()) for path in folder.rglob("*.html")}
    found = []
    for page, parsed in pages.items():
        for link in parsed.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            address, anchor = urldefrag(link)
            target = (page.parent / unquote(urlsplit(address).path)).resolve() if address else page
            if not target.exists():
                found.append(f"{page.relative_to(folder.resolve())}: {link} leads nowhere")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                found.append(f"{page.relative_to(folder.resolve())}: {link} has no such anchor")
    return sorted(set(found))


def looked_at(folder: Path, screenshots: Path | None) -> list[str]:
    """What is wrong with the pages in the browser, in words."""
    found = []
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    with served(folder) as address, opened_page() as page:
        for screen, size in SCREENS.items():
            for name in names:
                if name in (
                    "report.html",
                    "search.html",
                ):  # a page of its own, and one that is empty without a question
                    continue
                page.show(f"{address}/{name}", *size)
                wrong = page.value(CHECK)
                found += [f"{name} on a {screen}: {sentence}" for sentence in (*wrong, *page.errors)]
                if screenshots is not None:
                    page.screenshot(
                        screenshots / f"{name.removesuffix('.html').replace('/', '-')}-{screen}.png", whole=True
                    )
        for words, expected in SEARCHES.items():
            page.show(f"{address}/search.html?q={words.replace(' ', '+')}", *SCREENS["desktop"])
            results = [urlsplit(link).path.lstrip("/") for link in page.value(RESULTS)]
            if expected not in results[:FIRST]:
                found.append(f"the search for {words!r} has not {expected} but {results[:FIRST]}")
            found += [f"the search for {words!r}: {error}" for error in page.errors]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="folder for a picture of every page")
    arguments = parser.parse_args()
    found = broken_links(arguments.folder)
    try:
        browser()
    except FileNotFoundError as error:
        print(f"pages are not looked at: {error}")
    else:
        if arguments.screenshots:
            arguments.screenshots.mkdir(parents=True, exist_ok=True)
        found += looked_at(arguments.folder, arguments.screenshots)
    for line in found:
        print(line)
    print(f"{arguments.folder}: {'ok' if not found else 'FAILED'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
