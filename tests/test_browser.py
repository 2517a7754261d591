"""The page in a real browser: what a person sees and does, what the console says, whom the browser talks to."""

import json
import time
from contextlib import contextmanager

import minijwt
import pytest
from serverkit import ACCESS, NOW, Clock, Running, build, wait_until
from webdriver import BACKSPACE, ENTER, LEFT, TAB, Browser, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
PARTS = ("header", "payload", "signature")
PAINTED = "return performance.getEntriesByType('paint').length"
SIGN_IN = "const [form] = document.forms; [form[0].value, form[1].value] = arguments; form.requestSubmit()"
CHECKS = """return Array.from(document.querySelectorAll("#trace li"), row =>
    [row.className, row.children[1].textContent, row.children[2].textContent])"""
SEGMENTS = """return Array.from(document.querySelectorAll("#mirror span"), each =>
    [each.dataset.part, each.textContent]).filter(each => each[0])"""
BACKGROUND = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
OVERFLOWING = """return Array.from(document.querySelectorAll("body *")).filter(each =>
    each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline"
    ).map(each => each.outerHTML)"""


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


class Visit:
    """The page of one server in the browser, and what a person does there."""

    def __init__(self, browser, origin):
        self.browser, self.origin = browser, origin
        self.refusals = []  # the paths of answers 4xx, each of which the browser reports in the console

    def read(self, name):
        return self.browser.read("#" + name)

    def token(self):
        return self.browser.read("#token", "property/value")

    def sign_in(self, password="admin123"):
        self.browser.script(SIGN_IN, "admin", password)

    def signed_in(self):
        self.sign_in()
        self.verdict("Good")
        wait_until(lambda: "POST /refresh → 200 To try the cookie" in self.read("log"))
        return self

    def verdict(self, text):
        """Wait until the server's verdict holds `text`; return the checks as (state, name, section)."""
        wait_until(lambda: text in self.read("verdict"))
        return [tuple(check) for check in self.browser.script(CHECKS)]

    def failed(self, text):
        """Wait for that verdict; return name and section of the one check that failed."""
        (failed,) = [check[1:] for check in self.verdict(text) if check[0] == "failed"]
        return failed


@pytest.fixture
def visit(browser):
    """A function that starts a server and goes to its page. At the end: nothing unexpected in the console, and no
    request to anybody else."""

    @contextmanager
    def visit(clock=time.time, host="localhost", **changes):
        browser.devtools("Network.clearBrowserCookies")
        app = build(clock, **changes)
        with Running(app) as running:
            visit = Visit(browser, f"http://{host}:{running.address[1]}")
            visit.app = app
            browser.go(visit.origin + "/")
            wait_until(lambda: browser.script(PAINTED))  # until then Chromium drops what is typed
            yield visit
            browser.go("about:blank")
        for message in browser.console():
            path, _, text = message.removeprefix(visit.origin).partition(" - ")
            assert path in visit.refusals and text.startswith("Failed to load resource"), message
            visit.refusals.remove(path)
        assert visit.refusals == []
        for url in browser.requests():
            assert url.startswith(visit.origin + "/") or url == "about:blank", url

    return visit


def test_a_first_visit_asks_for_the_page_and_nothing_else(browser, visit):
    log = []
    with visit(log=log, access_log=True) as page:
        assert browser.requests() == [page.origin + "/"]
        assert [event.fields["path"] for event in log] == ["/"], "no icon either"
        assert page.read("who") == "" and browser.read("[type=submit]") == "Sign in"


def test_signing_in_shows_the_token_and_hides_the_cookie(browser, visit):
    with visit() as page:
        page.signed_in()
        token = page.token()
        assert browser.read("#mirror", "property/textContent") == token
        assert [tuple(each) for each in browser.script(SEGMENTS)] == [*zip(PARTS, token.split("."))]
        told = {part: json.loads(browser.read("#" + part, "property/value")) for part in ("header", "payload")}
        decoded = minijwt.decode_complete(token, ACCESS)
        assert told == {part: decoded[part] for part in told}
        assert bytes.fromhex(page.read("bytes")) == decoded["signature"]
        assert {state for state, *_ in page.verdict("Good")} == {"passed", "skipped"}
        assert browser.script("return document.cookie") == "" and 'document.cookie = ""' in page.read("log")
        (cookie,) = browser.command("GET", "/cookie")
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == ("jwt", True, True)
        assert browser.script("return localStorage.length + sessionStorage.length") == 0
        first = page.read("countdown")
        assert first.startswith("expires in 9:5") or first == "expires in 10:00"
        wait_until(lambda: page.read("countdown") != first)


EDITS = [  # field, keys behind its last character, where that fails
    ("payload", [LEFT, LEFT, BACKSPACE, "x"], ("signature", "RFC 7515 §5.2")),  # exp: the text ends with …\n}
    ("payload", [" ", ENTER], None),  # white space counts only within strings
    ("header", [LEFT, ',"crit":[]'], ("header", "RFC 7515 §4")),
    ("header", [LEFT, ',"alg":"none"'], ("header", "RFC 7515 §4")),  # the name is there twice
    ("header", [*[LEFT] * 19, *[BACKSPACE] * 5, "none"], ("algorithm", "RFC 8725 §3.1")),
    ("token", [BACKSPACE, "-"], ("signature", "RFC 7515 §5.2")),
    ("token", [".", "\u20ac"], ("shape", "RFC 7515 §7.1")),
    ("token", [" ", ENTER], None),
]


def test_an_edit_fails_at_the_very_check_that_it_breaks(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        for field, keys, failure in EDITS:
            browser.type("#" + field, *keys)
            if failure:
                assert page.failed("Refused") == failure
                states = [state for state, *_ in page.verdict("Refused")]
                assert {*states[states.index("failed") + 1 :]} == {"skipped"}
                assert browser.read("mark") in page.token(), "what was changed is marked"
                browser.click("#restore")
                page.verdict("Good")
            assert page.token() == token


def test_an_expired_token_turns_red_by_itself_and_a_refresh_mends_it(browser, visit):
    with visit(access_ttl=2) as page:
        browser.script("automatic.checked = false")
        token = page.signed_in().token()
        assert page.failed("Refused at “exp”") == ("exp", "RFC 7519 §4.1.4")
        assert page.read("countdown") == "has expired"
        browser.click("#refresh")
        page.verdict("Good")
        assert page.token() != token and page.read("log").startswith("POST /refresh → 200 By button")


def test_by_the_servers_clock_a_token_is_refreshed_before_it_expires_and_an_edit_stays(browser, visit):
    with visit(Clock(NOW)) as page:  # years away from the browser's
        token = page.signed_in().token()
        assert page.read("countdown") in ("expires in 10:00", "expires in 9:59", "expires in 9:58")
        page.app.clock.now += 300
        browser.type("#token", BACKSPACE)  # with the answer to this the page learns how late it is
        wait_until(lambda: page.read("countdown") in ("expires in 5:00", "expires in 4:59", "expires in 4:58"))
        page.app.clock.now += 275
        browser.type("#token", BACKSPACE)
        wait_until(lambda: page.read("log").startswith("POST /refresh → 200 In time, by itself"))
        assert page.token() == token[:-2]
        browser.click("#restore")
        page.verdict("Good")
        assert minijwt.decode(page.token(), ACCESS, now=NOW + 575)["iat"] == NOW + 575


def test_after_logout_a_refresh_is_refused_and_the_token_is_gone(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        (cookie,) = browser.command("GET", "/cookie")
        browser.click("#logout")
        wait_until(lambda: browser.read("[type=submit]") == "Sign in")
        assert page.read("log").startswith("POST /logout → 204")
        assert token.split(".")[2] not in browser.script("return document.documentElement.outerHTML")
        assert page.token() == page.read("who") == ""
        assert browser.command("GET", "/cookie") == []
        for _ in range(2):  # without the cookie, and with it put back
            browser.click("#resume")
            wait_until(lambda: page.read("log").startswith("POST /refresh → 406"))
            assert "session has ended" in page.read("notice")
            page.refusals.append("/refresh")
            browser.script("log.replaceChildren()")
            browser.command("POST", "/cookie", cookie=cookie)


def test_a_reload_continues_the_session_and_asks_nothing_without_one(browser, visit):
    with visit() as page:
        page.signed_in()
        browser.command("POST", "/refresh")
        page.verdict("Good")
        assert page.read("log").startswith("POST /refresh → 200 After the reload")
        browser.click("#logout")
        wait_until(lambda: browser.read("[type=submit]") == "Sign in")
        paths = {url[len(page.origin) :] for url in browser.requests()}
        assert paths == {"/", "/login", "/refresh", "/explain", "/logout"}
        browser.command("POST", "/refresh")
        assert browser.requests() == [page.origin + "/"]


def test_two_tabs_share_a_session_also_while_tokens_rotate(browser, visit):
    with visit(rotate_refresh=True) as page:
        page.signed_in()
        first = browser.command("GET", "/window")
        browser.command("POST", "/window", handle=browser.command("POST", "/window/new", type="tab")["handle"])
        try:
            browser.go(page.origin + "/")
            browser.click("#resume")
            page.verdict("Good")
        finally:
            browser.command("DELETE", "/window")
            browser.command("POST", "/window", handle=first)
        browser.click("#refresh")
        wait_until(lambda: page.read("log").startswith("POST /refresh → 200 By button"))


def test_a_browser_that_refuses_the_cookie_is_told_why_and_what_to_set(browser, visit):
    with visit(host="page.test") as page:  # plain HTTP, and not localhost, where the demo user is not let in
        page.app.accounts.add_user("admin", "admin of page.test")
        page.sign_in("admin of page.test")
        page.verdict("Good")
        wait_until(lambda: "TLS_CERT" in page.read("notice"))
        assert "COOKIE_SECURE=off" in page.read("notice") and page.read("who") == "Signed in as admin"
        page.refusals.append("/refresh")


def test_refusals_are_said_in_a_sentence(browser, visit):
    with visit(login_max_failures=1, unauthorized_status=401) as page:
        page.sign_in("wrong")
        wait_until(lambda: page.read("notice") == "Invalid credentials (401)")
        browser.script("document.querySelector('form').reset()")
        page.sign_in("wrong")
        wait_until(lambda: "Too many failed logins" in page.read("notice"))
        assert "(429, try again in 30 seconds)" in page.read("notice")
        page.refusals += ["/login", "/login"]


def test_a_part_lights_up_with_its_source(browser, visit):
    with visit() as page:
        page.signed_in()
        for part in PARTS:
            source = f"#mirror [data-part={part}]"
            before = browser.script(BACKGROUND, source)
            for place in (f".part[data-part={part}]", f"#trace [data-part={part}]", source):
                browser.hover("h1")
                assert browser.script(BACKGROUND, source) == before
                browser.hover(place)
                assert browser.script(BACKGROUND, source) != before, place
        browser.hover("h1")
        browser.type("#token", LEFT)  # as the caret moves
        assert browser.script("return document.body.dataset.lit") == "signature"


def test_the_keyboard_alone_does_it_all_and_every_control_has_a_name(browser, visit):
    with visit() as page:
        browser.press(TAB, "admin", TAB, "admin123", ENTER)
        page.verdict("Good")
        focused = []
        while not focused or focused[-1] != "payload":
            browser.press(TAB)
            focused.append(browser.script("return document.activeElement.id"))
        assert focused == ["automatic", "refresh", "logout", "token", "header", "payload"]
        for name in [*focused, "left"]:
            assert browser.read("#" + name, "computedlabel"), name
        assert browser.read("#trace [role=img]", "computedlabel") == "passed"


def test_nothing_runs_over_the_edge(browser, visit):
    with visit() as page:
        page.signed_in()
        try:
            for width in (320, 390, 800, 1280):
                browser.look(width)
                assert browser.script("return document.documentElement.scrollWidth") == width
                assert browser.script(OVERFLOWING) == []
        finally:
            browser.devtools("Emulation.clearDeviceMetricsOverride")
