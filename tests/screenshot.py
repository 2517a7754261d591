"""Takes three pictures of the page at /, in dist/: a good token, a broken one, and a good one on a phone."""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from serverkit import SCRATCH, TOP, Running, build, stores, wait_until
from webdriver import ENTER, Browser, missing


def take(browser, port, directory):
    browser.go(f"http://localhost:{port}/")
    browser.type("[name=username]", "admin")
    browser.type("[name=password]", "admin123", ENTER)
    wait_until(lambda: "POST /refresh" in browser.read("#log") and "Good" in browser.read("#verdict"))
    (directory / "page-light.png").write_bytes(browser.look(1280))
    (directory / "page-phone.png").write_bytes(browser.look(390, scale=2))
    browser.look(1280)
    browser.script("payload.value = payload.value.replace('admin', 'admio'); payload.oninput()")
    wait_until(lambda: "Refused" in browser.read("#verdict"))
    (directory / "page-dark.png").write_bytes(browser.look(1280, "dark"))


def main():
    if missing():
        print(f"screenshot: {missing()}", file=sys.stderr)
        return 1
    directory = TOP / "dist"
    directory.mkdir(exist_ok=True)
    with Running(build(time.time)) as running:
        browser = Browser()
        try:
            take(browser, running.address[1], directory)
        finally:
            browser.close()
    stores.pop().close()
    SCRATCH.cleanup()
    print(*sorted(path.relative_to(TOP) for path in directory.glob("page-*.png")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
