"""The page in real browsers: what a person sees and does, what the console says, whom the browser talks to."""

import json
import os
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import minijwt
import pytest
import server
from serverkit import ACCESS, NOW, TOP, Clock, Running, build, wait_until
from webdriver import BACKSPACE, CONTROL, ENGINES, ENTER, LEFT, TAB

PARTS = ("header", "payload", "signature")
PAINTED = "return performance.getEntriesByType('paint').length"
SIGN_IN = "const [form] = document.forms; [form[0].value, form[1].value] = arguments; form.requestSubmit()"
CHECKS = """return Array.from(document.querySelectorAll("#trace li"), row =>
    [row.className, row.children[1].textContent, row.children[2].textContent])"""
SEGMENTS = """return Array.from(document.querySelectorAll("#mirror span"), each =>
    [each.dataset.part, each.textContent]).filter(each => each[0])"""
MARKED = "return Array.from(document.querySelectorAll('mark'), each => each.textContent).join('')"
BACKGROUND = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
OVERFLOWING = """return Array.from(document.querySelectorAll("body *")).filter(each => (each.scrollWidth >
    each.clientWidth + 1 || each.matches("textarea") && each.scrollHeight > each.clientHeight + 1) &&
    getComputedStyle(each).display !== "inline").map(each => each.outerHTML)"""
ATTACK = """const buttons = Array.from(document.querySelectorAll("#attacks button"));
    buttons.find(each => each.textContent === arguments[0]).click()"""
SLIDE = """const slider = document.getElementById("shift");
    slider.value = arguments[0]; slider.dispatchEvent(new Event("input"))"""
COPY = """const field = document.createElement("textarea");
    [field.id, field.value] = ["copied", arguments[0]];
    document.body.append(field)"""
ROWS = "return Array.from(document.querySelectorAll('#log summary'), each => each.textContent)"
OPEN = "document.querySelectorAll('#log details').forEach(each => each.open = true)"
OPENED = "return Array.from(document.querySelectorAll('#log [open] pre'), each => each.textContent)"
CLOCK = "const now = arguments[0]; (window.wrappedJSObject ?? window).performance.now = () => now"
FOCUSED = """const {id, tagName, textContent} = document.activeElement;
    return id || (tagName === "BUTTON" ? textContent : tagName)"""
NOTICE = """const notice = document.getElementById("notice"), {borderLeftColor} = getComputedStyle(notice);
    return [getComputedStyle(notice, "::before").content, borderLeftColor]"""
SHARE = "return document.getElementById('judgement').offsetHeight / innerHeight"
IN_SIGHT = """const element = document.getElementById(arguments[0]), box = element.getBoundingClientRect();
    return [box.top + 2, box.bottom - 2].map(y => document.elementFromPoint(box.left + 9, y) === element)"""
AXE = Path(os.environ.get("AXE") or TOP / "node_modules" / "axe-core" / "axe.min.js")


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.__name__)
def browser(request):
    if request.param.missing():
        pytest.skip(request.param.missing())
    browser = request.param()
    yield browser
    browser.close()


class Visit:
    """The page of one server in the browser, and what a person does there."""

    def __init__(self, browser, host, clock, **changes):
        if not browser.keeps_secure_cookies:  # what the page then says to set
            changes = {"cookie_secure": False, "cookie_samesite": "Lax", **changes}
        self.browser, self.log = browser, []
        self.app = build(clock, log=self.log, access_log=True, **changes)
        self.running = Running(self.app)
        self.origin = f"http://{host}:{self.running.address[1]}"
        self.refusals = []  # the paths of answers 4xx, each of which the browser reports in the console; /me aside

    def restart(self, **changes):
        """Start another server at the same address, which was stopped."""
        self.app = build(time.time, **changes)
        self.running = Running(self.app, server.listen("127.0.0.1", self.running.address[1]))

    def paths(self):
        """What was asked of the server, in order."""
        return [event.fields["path"] for event in self.log if "status" in event.fields and "path" in event.fields]

    def read(self, name):
        return self.browser.read("#" + name)

    def has(self, name, text):
        wait_until(lambda: text in self.read(name))

    def rows(self):
        """Return what the log says, newest first, without the exchanges in it."""
        return self.browser.script(ROWS)

    def exchanges(self, text):
        """Open the newest row of the log that holds `text`; return the requests and answers in it."""
        number = [text in row for row in self.rows()].index(True) + 1
        summary = f"#log > :nth-child({number}) summary"
        assert self.browser.script(OPENED) == [], "until then they are hidden"
        self.browser.click(summary)
        opened = self.browser.script(OPENED)
        self.browser.click(summary)
        return opened

    def token(self):
        return self.browser.read("#token", "property/value")

    def sign_in(self, password="admin123", username="admin"):
        self.browser.script(SIGN_IN, username, password)

    def signed_in(self, **credentials):
        self.sign_in(**credentials)
        self.verdict("Good")
        self.has("log", "POST /refresh → 200 To try the cookie")
        return self

    def attack(self, name):
        self.browser.script(ATTACK, name)

    def paste(self, text):
        """Copy `text` from a field of our own, and paste it behind the token."""
        self.browser.script(COPY, text)
        self.browser.type("#copied", CONTROL, "a", "c")
        self.browser.script("document.getElementById('copied').remove()")
        self.browser.type("#token", CONTROL, "v")

    def signed_out(self):
        wait_until(lambda: self.browser.script("return document.body.dataset.session") == "off")

    def restore(self):
        self.browser.click("#restore")
        self.verdict("Good")

    def verdict(self, text):
        """Wait until the server's verdict holds `text`; return the checks as (state, name, section)."""
        self.has("verdict", text)
        return [tuple(check) for check in self.browser.script(CHECKS)]

    def failed(self, text="Refused"):
        """Wait for that verdict; return name and section of the one check that failed."""
        (failed,) = [check[1:] for check in self.verdict(text) if check[0] == "failed"]
        return failed


@pytest.fixture
def visit(browser):
    """A function that starts a server and goes to its page. At the end: nothing unexpected in the console, and no
    request to anybody else, where the browser tells."""

    @contextmanager
    def visit(clock=time.time, host="localhost", **changes):
        visit = Visit(browser, host, clock, **changes)
        try:
            browser.go(visit.origin + "/")
            browser.command("DELETE", "/cookie")
            browser.console(), browser.requests(), visit.log.clear()
            browser.go(visit.origin + "/")
            wait_until(lambda: browser.script(PAINTED))  # until then Chromium drops what is typed
            yield visit
            browser.go("about:blank")
        finally:
            visit.running.stop()
        for message in browser.console():
            path, _, text = message.removeprefix(visit.origin).partition(" - ")
            assert text.startswith("Failed to load resource"), message
            if path != "/me" and "ERR_CONNECTION_REFUSED" not in text:
                visit.refusals.remove(path)
        assert visit.refusals == [] or not browser.logs
        for url in browser.requests():
            assert url.startswith(visit.origin + "/") or url == "about:blank", url

    return visit


# -- signing in, and the session


def test_a_first_visit_asks_for_the_page_and_nothing_else(browser, visit):
    with visit() as page:
        assert page.paths() == ["/"], "no icon either"
        if browser.logs:
            assert browser.requests() == [page.origin + "/"]
        assert page.read("who") == page.read("verdict") == page.read("notice") == ""
        assert "localStorage" in browser.read("main") and page.read("log").startswith("GET / → 200")


def test_one_click_signs_in_as_the_demo_user_or_says_why_not(browser, visit):
    with visit() as page:
        browser.click("#demo")
        page.verdict("Good")
        assert page.read("who") == "Signed in as admin"
    with visit() as page:
        page.app.accounts.add_user("ann", "a password of ann")
        browser.click("#demo")
        page.has("notice", "the demo user is there only while the server has no other user")
        assert "POST /login → 406 Invalid credentials" in page.read("log")
        page.refusals.append("/login")


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
        checks = page.verdict("Good")
        assert {state for state, *_ in checks} == {"passed"}
        assert not {"nbf", "iss", "sub", "aud", "jti"} & {name for _, name, _ in checks}, "this server writes none"
        assert browser.script("return document.cookie") == "" and 'document.cookie = ""' in page.read("log")
        (cookie,) = browser.command("GET", "/cookie")
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == ("jwt", True, browser.keeps_secure_cookies)
        assert browser.script("return localStorage.length + sessionStorage.length") == 0
        first = page.read("countdown")
        assert first.startswith("access token: expires in 9:5") or first == "access token: expires in 10:00"
        wait_until(lambda: page.read("countdown") != first)


def test_a_double_click_on_sign_in_signs_in_once(browser, visit):
    with visit() as page:
        browser.script(SIGN_IN + "; form.requestSubmit()", "admin", "admin123")
        page.verdict("Good")
        page.has("log", "To try the cookie")
        assert page.read("notice") == "" and page.paths().count("/login") == 1


def test_all_that_happened_is_in_the_log_refusals_and_traces_too(browser, visit):
    with visit() as page:
        page.sign_in("wrong")
        page.has("log", "POST /login → 406 Invalid credentials")
        page.signed_in()
        page.attack("be root")
        page.failed()
        said = page.read("log")
        for line in ("GET /me → 401", "GET /explain → 200", "POST /refresh → 200", "POST /login → 200", "→ 406"):
            assert line in said, line
        page.refusals.append("/login")


def test_a_row_of_the_log_opens_to_show_what_went_over_the_wire(browser, visit):
    unseen, kind = "(if there is one, no script can see it)", "Content-Type: application/json; charset=utf-8"
    with visit(Clock(NOW)) as page:
        token = page.signed_in().token()
        page.attack("be root")
        page.failed()
        forged = page.token()
        attacked, refreshed, logged_in = map(page.exchanges, ("be root", "POST /refresh", "POST /login"))
        assert logged_in == [
            "→ POST /login\nContent-Type: application/x-www-form-urlencoded\n"
            f"Cookie: {unseen}\n\nusername=admin&password=…",
            f'← 200 OK\nSet-Cookie: {unseen}\n{kind}\n\n{{"accessToken": "{token}"}}',
        ]
        assert refreshed == [f"→ POST /refresh\nCookie: {unseen}", logged_in[1]]
        assert attacked[0] == f"→ GET /me\nAuthorization: Bearer {forged}", "and no cookie"
        assert attacked[1] == (
            f'← 401 Unauthorized\n{kind}\nWWW-Authenticate: Bearer realm="minijwt", error="invalid_token", '
            'error_description="invalid_signature"\n\n'
            '{"message": "The access token is not good.", "code": "invalid_signature"}'
        )
        assert attacked[2] == f"→ GET /explain\nAuthorization: Bearer {forged}"
        head, _, body = attacked[3].partition("\n\n")
        assert head == f"← 200 OK\n{kind}" and json.loads(body)["steps"][3]["code"] == "invalid_signature"


def test_what_each_attack_got_stays_in_the_log(browser, visit):
    with visit() as page:
        page.signed_in()
        for name, failure, _ in ATTACKS[:3]:
            page.attack(name)
            page.has("log", f"GET /me → 401 GET /explain → 200 {name}: ✗ Refused at “{failure}”")
        said = "".join(page.rows())
        assert [said.count(f"200 {name}: ✗") for name, *_ in ATTACKS[:3]] == [1, 1, 1]


def test_an_edit_has_one_row_until_there_is_a_pause(browser, visit):
    def judged(act, *arguments):
        asked = page.paths().count("/explain")
        act(*arguments)
        wait_until(lambda: page.paths().count("/explain") > asked)
        page.failed()

    with visit() as page:
        page.signed_in()
        for now, rows in ((10_000, 1), (12_999, 1), (15_999, 2)):  # the last two are three seconds apart
            browser.script(CLOCK, now)
            judged(browser.type, "#payload", LEFT, "x")
            assert len([row for row in page.rows() if "payload edited: ✗" in row]) == rows
        page.restore()
        for now, rows in ((20_000, 1), (22_999, 1), (25_999, 2)):
            browser.script(CLOCK, now)
            judged(browser.script, SLIDE, 640 + now // 1000)
            assert len([row for row in page.rows() if "slider: " in row]) == rows
        assert page.rows()[-1].startswith("POST /login"), "and no other row went"


def test_an_expired_token_turns_red_by_itself_and_a_refresh_mends_it(browser, visit):
    with visit(access_ttl=2) as page:
        browser.script("document.getElementById('automatic').checked = false")
        token = page.signed_in().token()
        assert page.failed("Refused at “exp”") == ("exp", "RFC 7519 §4.1.4")
        assert page.read("countdown") == "access token: expired"
        browser.click("#refresh")
        page.verdict("Good")
        assert page.token() != token
        page.has("log", "POST /refresh → 200 By button: the browser sent the cookie, which brought a new access token")


def test_the_same_token_is_not_called_a_new_one(browser, visit):
    with visit(Clock(NOW)) as page:
        page.signed_in()
        assert "which brought the same access token" in page.read("log")
        page.app.clock.now += 1
        browser.click("#refresh")
        page.has("log", "which brought a new access token")


def test_by_the_servers_clock_a_token_is_refreshed_before_it_expires_and_an_edit_stays(browser, visit):
    with visit(Clock(NOW)) as page:  # years away from the browser's
        token = page.signed_in().token()
        assert page.read("countdown") in ("access token: expires in 10:00", "access token: expires in 9:59", "access token: expires in 9:58")
        page.app.clock.now += 300
        browser.type("#token", BACKSPACE)  # with the answer to this the page learns how late it is
        wait_until(lambda: page.read("countdown") in ("access token: expires in 5:00", "access token: expires in 4:59", "access token: expires in 4:58"))
        page.app.clock.now += 275
        browser.type("#token", BACKSPACE)
        page.has("log", "POST /refresh → 200 In time, by itself")
        browser.type("#token", BACKSPACE)
        assert page.token() == token[:-3]
        assert browser.script(MARKED) == "", "what was not touched is not marked, though there is another token now"
        page.restore()
        assert minijwt.decode(page.token(), ACCESS, now=NOW + 575)["iat"] == NOW + 575


def test_a_clock_that_was_set_back_is_not_a_longer_life(browser, visit):
    with visit(Clock(NOW)) as page:
        page.signed_in()
        page.app.clock.now -= 3_600
        browser.type("#token", BACKSPACE)
        page.has("countdown", "not good yet")
        page.app.clock.now += 3_600
        browser.type("#token", BACKSPACE)
        page.has("countdown", "access token: expires in 9:5")
        browser.script("(window.wrappedJSObject ?? window).Date.now = null")  # the page does not count by it
        before = page.read("countdown")
        wait_until(lambda: page.read("countdown") not in (before, ""))
        assert page.read("countdown").startswith("access token: expires in 9:5")


def test_after_logout_a_refresh_is_refused_and_the_token_is_gone(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        (cookie,) = browser.command("GET", "/cookie")
        browser.click("#logout")
        page.signed_out()
        assert page.rows() == [
            "POST /logout → 204 The session has ended, the cookie is deleted, this log with its tokens too."
        ]
        assert token.split(".")[2] not in browser.script("return document.documentElement.outerHTML")
        assert page.token() == page.read("who") == page.read("verdict") == ""
        assert browser.command("GET", "/cookie") == []
        assert browser.script("return document.activeElement.name") == "username"
        for _ in range(2):  # without the cookie, and with it put back
            browser.click("#resume")
            page.has("log", "POST /refresh → 406")
            page.has("notice", "session has ended")
            assert "The access token" not in page.read("notice")
            page.refusals.append("/refresh")
            browser.script("document.getElementById('log').replaceChildren()")
            cookie = {name: cookie[name] for name in ("name", "value", "path", "secure", "httpOnly", "sameSite")}
            browser.command("POST", "/cookie", cookie=cookie)


def test_a_refused_refresh_keeps_the_token_that_is_still_good(browser, visit):
    with visit(Clock(NOW)) as page:
        token = page.signed_in().token()
        browser.command("DELETE", "/cookie")  # as if logged out in another tab
        browser.click("#refresh")
        page.has("notice", "its session has ended: sign in. The access token expires at ")
        assert page.token() == token and page.read("who") == ""
        page.attack("be root")
        page.failed()
        page.restore()
        page.app.clock.now += 601
        browser.click("#resume")
        wait_until(lambda: page.read("notice").endswith("sign in."))
        page.failed("Refused at “exp”")
        page.signed_in()
        assert page.token() != token, "and one can sign in again"
        page.refusals += ["/refresh", "/refresh"]


def test_a_reload_continues_the_session_and_asks_nothing_without_one(browser, visit):
    with visit() as page:
        page.signed_in()
        browser.script(SLIDE, 660)
        page.failed()
        browser.command("POST", "/refresh")
        page.verdict("Good")
        page.has("log", "POST /refresh → 200 After the reload")
        wait_until(lambda: page.read("verdict").startswith("✓ Good"))
        assert page.read("when") == "now"
        browser.click("#logout")
        page.signed_out()
        assert {*page.paths()} == {"/", "/login", "/refresh", "/explain", "/me", "/logout"}
        page.log.clear()
        browser.command("POST", "/refresh")
        assert page.paths() == ["/"]


@contextmanager
def another_tab(browser):
    first = browser.command("GET", "/window")
    browser.command("POST", "/window", handle=browser.command("POST", "/window/new", type="tab")["handle"])
    try:
        yield
    finally:
        browser.command("DELETE", "/window")
        browser.command("POST", "/window", handle=first)


def test_two_tabs_share_a_session_also_while_tokens_rotate(browser, visit):
    with visit(rotate_refresh=True) as page:
        page.signed_in()
        with another_tab(browser):
            browser.go(page.origin + "/")
            browser.click("#resume")
            page.verdict("Good")
        browser.click("#refresh")
        page.has("log", "POST /refresh → 200 By button")


def test_another_tab_that_signs_in_as_another_user_does_not_go_unsaid(browser, visit):
    with visit() as page:
        for name in ("ann", "bob"):
            page.app.accounts.add_user(name, f"the password of {name}")
        page.signed_in(username="ann", password="the password of ann")
        with another_tab(browser):
            browser.go(page.origin + "/")
            page.signed_in(username="bob", password="the password of bob")
            assert page.read("notice") == ""
        browser.click("#refresh")
        page.has("notice", "You are bob now, not ann")
        assert page.read("who") == "Signed in as bob"


def test_a_browser_that_refuses_the_cookie_is_told_why_and_what_to_set(browser, visit):
    host = "page.test" if browser.keeps_secure_cookies else "localhost"  # plain HTTP, and not a name that is trusted
    with visit(host=host, cookie_secure=True, cookie_samesite="None") as page:
        page.app.accounts.add_user("admin", "admin of this test")
        page.sign_in("admin of this test")
        page.verdict("Good")
        page.has("notice", "TLS_CERT")
        assert "COOKIE_SECURE=off" in page.read("notice") and page.read("who") == "Signed in as admin"
        assert "document.cookie" not in page.read("log"), "that would prove nothing"
        page.attack("guess the key")
        page.has("lesson", "None of" if browser.script("return isSecureContext") else "only over HTTPS")
        page.refusals.append("/refresh")


def test_good_news_looks_otherwise_than_a_refusal_and_not_by_colour_alone(browser, visit):
    with visit() as page:
        page.sign_in("wrong")
        page.has("notice", "Invalid credentials")
        refusal = browser.script(NOTICE)
        page.signed_in()
        browser.click("#logout")
        page.has("notice", "Logged out")
        news = browser.script(NOTICE)
        assert (refusal[0], news[0]) == ('"✗ "', '"✓ "')
        assert len({*refusal, *news}) == 4, "the line beside it has another colour as well"
        page.refusals.append("/login")


def test_refusals_are_said_in_a_sentence(browser, visit):
    with visit(login_max_failures=1, unauthorized_status=401) as page:
        page.sign_in("wrong")
        wait_until(lambda: page.read("notice") == "Invalid credentials")
        page.sign_in("wrong")
        page.has("notice", "Too many failed logins")
        assert "(try again in 30 seconds)" in page.read("notice")
        assert "POST /login → 429" in page.read("log")
        page.refusals += ["/login", "/login"]


def test_a_server_that_comes_back_is_noticed(browser, visit):
    with visit() as page:
        page.signed_in()
        page.running.stop()
        browser.click("#refresh")
        page.has("notice", "The server does not answer.")
        page.has("verdict", "No verdict")
        page.restart(access_secrets=(b"another secret of this restarted server",))
        page.has("notice", "The server answers again.")
        page.has("verdict", "The server has another key: sign in again")


# -- cause and effect


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
                assert page.failed() == failure
                states = [state for state, *_ in page.verdict("Refused")]
                assert {*states[states.index("failed") + 1 :]} == {"skipped"}
                assert browser.script(MARKED), "what was changed is marked"
                page.restore()
            assert page.token() == token


@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844), (667, 375), (320, 568)])
def test_the_verdict_is_in_sight_of_every_edit_and_leaves_room_for_it(browser, visit, width, height):
    with visit() as page:
        page.signed_in()
        browser.resize(width, height)
        try:
            for field in ("token", "header", "payload"):
                browser.type("#" + field, LEFT, "x")
                page.failed()
                for name in ("verdict", "wire"):
                    assert browser.script(IN_SIGHT, name) == [True, True], (field, name)
                assert browser.script(SHARE) <= 0.21
                assert browser.script(IN_SIGHT, field)[0], field
                page.restore()
        finally:
            browser.resize()


def test_beside_the_verdict_stands_what_the_wire_says(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        asked = f"GET /me  Authorization: Bearer eyJ…{token[-4:]} →"
        page.has("wire", asked + ' 200 {"username": "admin"')
        browser.type("#payload", LEFT, LEFT, "0")
        page.has("wire", asked + ' 401 Bearer realm="minijwt", error="invalid_token"')


ATTACKS = [  # what it is called, where it fails if it does, what is signed or said afterwards
    ("be root", "signature", {"username": "root"}),
    ("live a year", "signature", {"exp": NOW + 365 * 86_400}),
    ("sign nothing", "algorithm", {"username": "root"}),
    ("guess the key", "signature", {"username": "root"}),
    ("steal it", None, {}),
    ("use it after logout", None, {}),
]


def test_each_attack_is_performed_and_only_a_copy_is_good(browser, visit):
    with visit(Clock(NOW)) as page:
        token = page.signed_in().token()
        names = browser.script("return Array.from(document.querySelectorAll('#attacks button'), e => e.textContent)")
        assert sorted(names) == sorted(name for name, *_ in ATTACKS)
        for name, failure, claims in ATTACKS:
            page.attack(name)
            wait_until(lambda: page.read("lesson"))
            if failure:
                assert page.failed()[0] == failure, name
                page.has("wire", "→ 401")
            else:
                page.verdict("Good")
                page.has("wire", "→ 200")
                assert page.token() == token
            shown = json.loads(browser.read("#payload", "property/value"))
            assert shown == {"username": "admin", "iat": NOW, "exp": NOW + 600, **claims}, name
            page.restore()
            assert page.read("lesson") == ""
        assert page.read("who") == "" and browser.command("GET", "/cookie") == [], "logged out"


def test_a_popular_key_is_found_and_forges(browser, visit):
    with visit(access_secrets=(b"changeme",)) as page:
        page.signed_in()
        page.attack("guess the key")
        page.has("lesson", "It is “changeme”")
        page.has("wire", '→ 200 {"username": "root"')
        page.verdict("Good")


SHIFTS = [(-660, "11 min earlier", "iat"), (300, "5 min later", None), (660, "11 min later", "exp")]


def test_the_slider_turns_iat_then_nothing_then_exp_red(browser, visit):
    with visit() as page:
        page.signed_in()
        for seconds, said, failure in SHIFTS:
            browser.script(SLIDE, seconds)
            page.has("verdict", said)
            assert page.read("when") == said
            if failure:
                assert page.failed()[0] == failure
            else:
                page.verdict("Good")
            page.has("wire", f"Explain-Shift: {seconds}")
        browser.type("#payload", LEFT, "x")
        assert page.failed("“signature”")[0] == "signature", "which is judged first, whatever the time"
        page.restore()
        assert page.read("when") == "now"


# -- odd input


PASTED = ["Bearer {}", '"{}"', '{{"accessToken": "{}"}}', "Authorization: Bearer {}\n", "  {}\n"]


def test_a_token_is_found_in_what_is_pasted(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        other = minijwt.encode({"username": "someone"}, b"another key of at least 32 bytes")
        for text in PASTED:
            page.paste(text.format(other))
            assert page.failed()[0] == "signature" and page.token() == other
            page.paste(text.format(token))
            page.verdict("Good")
            assert page.token() == token


def test_what_holds_no_token_is_pasted_as_it_is_and_refused(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        page.paste("not a token")
        assert page.failed() and page.token() == token + "notatoken"


def test_a_blank_in_the_token_leaves_the_caret_where_it_was(browser, visit):
    with visit() as page:
        token = page.signed_in().token()
        browser.type("#token", *[LEFT] * 10, " ", "x")
        page.failed()
        assert page.token() == token[:-10] + "x" + token[-10:]


def test_a_token_that_is_too_long_is_kept_whole_and_refused_in_a_sentence(browser, visit):
    with visit() as page:
        page.signed_in()
        page.paste("a" * 8_000 + "." + "b" * 8_000 + "." + "c" * 10_000)
        page.has("verdict", "Refused unread: too long for a header field")
        assert len(page.token()) == 26_002
        page.restore()
        page.refusals.append("/explain")


def test_a_long_name_widens_nothing_and_no_claim_is_cut_off(browser, visit):
    with visit() as page:
        name = "m" * server.MAX_NAME_BYTES
        page.app.accounts.add_user(name, "a password of this test")
        page.signed_in(username=name, password="a password of this test")
        check_the_edges(browser)
        page.paste(minijwt.encode({"username": name * 9, "words": "a b " * 99}, ACCESS))
        page.has("verdict", "Good")
        browser.script(OPEN)
        check_the_edges(browser)


# -- for every eye, ear and hand


def check_the_edges(browser):
    try:
        for width in (320, 390, 800, 1280):
            browser.resize(width)
            wide = browser.script("return [document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], wide
            wait_until(lambda: browser.script(OVERFLOWING) == [])
    finally:
        browser.resize()


def test_nothing_runs_over_the_edge(browser, visit):
    with visit() as page:
        check_the_edges(browser)
        page.signed_in()
        check_the_edges(browser)


def test_a_part_lights_up_with_its_source(browser, visit):
    def is_lit(source, before, lit):
        return (browser.script(BACKGROUND, source) != before) is lit

    with visit() as page:
        page.signed_in()
        for part in PARTS:
            source = f"#mirror [data-part={part}]"
            browser.hover("h1")
            before = browser.script(BACKGROUND, source)
            for place in (f".part[data-part={part}]", f"#trace [data-part={part}]"):
                browser.hover("h1")
                wait_until(partial(is_lit, source, before, False))
                browser.hover(place)
                wait_until(partial(is_lit, source, before, True))
        browser.hover("h1")
        browser.script("document.getElementById('header').focus()")
        assert browser.script("return document.body.dataset.lit") == "header"


def test_the_keyboard_alone_does_it_all_and_every_control_has_a_name(browser, visit):
    with visit() as page:
        browser.press(TAB, "admin", TAB, "admin123", ENTER)
        page.verdict("Good")
        page.has("log", "To try the cookie")
        browser.script("document.getElementById('who').focus()")
        focused = []
        while not focused or focused[-1] != "payload":
            browser.press(TAB)
            focused.append(browser.script(FOCUSED))
        names = [name for name, *_ in ATTACKS]
        rows = ["SUMMARY"] * len(page.rows())
        order = ["automatic", "refresh", "logout", *rows, "token", "restore"]
        assert rows and focused[: len(order)] == order
        assert sorted(focused) == sorted([*order, *names, "shift", "header", "payload"])
        browser.script("document.querySelector('summary').focus()")
        browser.press(ENTER)
        assert browser.script(OPENED), "a row of the log opens without a mouse too"
        for name in ("automatic", "refresh", "logout", "token", "restore", "shift", "header", "payload", "left"):
            assert browser.read("#" + name, "computedlabel"), name
        assert browser.read("#trace [role=img]", "computedlabel") == "passed"


def test_what_changed_is_marked_in_forced_colours_too(browser, visit):
    if not browser.logs:
        pytest.skip("needs Chromium, which plays forced colours")
    with visit() as page:
        page.signed_in()
        browser.look(1280, forced="active")
        try:
            page.attack("be root")
            page.failed()
            colors = "const {color, backgroundColor} = getComputedStyle(document.querySelector(arguments[0]));"
            colors += "return [color, backgroundColor]"
            mark, letters, field = (browser.script(colors, each) for each in ("mark", "#mirror span", "#token"))
            assert mark != letters and mark[0] != mark[1]
            assert field == ["rgba(0, 0, 0, 0)"] * 2, "the field's own letters do not cover the marked ones"
        finally:
            browser.look_away()


def test_axe_finds_nothing_to_complain_about(browser, visit):
    if not AXE.is_file():
        pytest.skip("needs axe-core: its axe.min.js in node_modules, or named by AXE")

    def complaints():
        run = "axe.run().then(found => arguments[0](found.violations.map(each => [each.id, each.nodes[0].html])))"
        return browser.command("POST", "/execute/async", script=AXE.read_text("utf-8") + run, args=[])

    with visit() as page:
        assert complaints() == []
        page.signed_in()
        assert complaints() == []
        page.attack("sign nothing")
        page.failed()
        browser.script(OPEN)
        assert complaints() == []
        page.attack("use it after logout")
        page.verdict("Good")
        assert complaints() == []
