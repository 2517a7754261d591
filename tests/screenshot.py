"""Takes pictures of the page at /, in dist/: each of its states, wide and light, and on a phone and dark."""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from serverkit import SCRATCH, TOP, Running, build, stores, wait_until
from webdriver import LEFT, Chromium

ATTACK = """const buttons = Array.from(document.querySelectorAll("#attacks button"));
    buttons.find(each => each.textContent === arguments[0]).click()"""
SLIDE = "const shift = document.getElementById('shift'); shift.value = 660; shift.oninput()"


def states(browser):
    """Bring the page from one state to the next; yield the name of each."""

    def judged(text):
        wait_until(lambda: text in browser.read("#verdict"))

    yield "signed-out"
    browser.click("#demo")
    judged("Good")
    wait_until(lambda: "To try the cookie" in browser.read("#log"))
    yield "good"
    browser.type("#payload", *[LEFT] * 2, "0")
    judged("Refused")
    yield "edited"
    browser.script(ATTACK, "sign nothing")
    judged("algorithm")
    yield "attacked"
    browser.click("#restore")
    judged("Good")
    browser.script(SLIDE)
    judged("11 min later")
    yield "later"
    browser.click("#restore")
    browser.command("DELETE", "/cookie")
    browser.click("#refresh")
    wait_until(lambda: "session has ended" in browser.read("#notice"))
    judged("Good")
    yield "refused"


def main():
    if Chromium.missing():
        print(f"screenshot: {Chromium.missing()}", file=sys.stderr)
        return 1
    directory = TOP / "dist"
    directory.mkdir(exist_ok=True)
    with Running(build(time.time)) as running:
        browser = Chromium()
        try:
            browser.go(f"http://localhost:{running.address[1]}/")
            for state in states(browser):
                for width, scheme, scale in ((1280, "light", 1), (390, "dark", 2)):
                    picture = directory / f"page-{state}-{width}.png"
                    picture.write_bytes(browser.look(width, scheme=scheme, scale=scale))
                    print(picture.relative_to(TOP))
                browser.look_away()
        finally:
            browser.close()
    stores.pop().close()
    SCRATCH.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())
