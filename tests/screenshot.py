"""Takes pictures of the page at /, in dist/: each of its states, wide and light, on a phone and dark, and lying on its
side. Of the last what is in sight about the claims, of the others the whole page."""

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
    browser.click("#demo")
    wait_until(lambda: browser.read("#log").count("To try the cookie") == 2)
    browser.script("document.querySelector('#log details').open = true")
    yield "opened"
    browser.click("#logout")
    wait_until(lambda: "Logged out" in browser.read("#notice"))
    yield "logged-out"


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
                for width, height, scheme, scale in ((1280, 0, "light", 1), (390, 0, "dark", 2), (667, 375, "light", 2)):
                    picture = directory / f"page-{state}-{width}.png"
                    if height:
                        browser.look(width, height, scheme, scale)
                        browser.show("#payload")
                    picture.write_bytes(browser.look(width, height, scheme, scale))
                    print(picture.relative_to(TOP))
                browser.look_away()
        finally:
            browser.close()
    stores.pop().close()
    SCRATCH.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())
