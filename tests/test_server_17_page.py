"""Page: which clients get it, what it may do, and that no other page may use what is there for it."""

import base64
import hashlib
import re
import socket
from html.parser import HTMLParser

import minijwt
import pytest
import server
from serverkit import ACCESS, NOW, answers, build, raw, read_all

pytestmark = pytest.mark.usefixtures("memory")

# -- who gets the page

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

HTML, PLAIN = "text/html; charset=utf-8", "text/plain; charset=utf-8"

ORIGIN = "https://app.example"


def get(app, path="/", *lines, method="GET"):
    """One exchange with the handler: the answer as it is on the wire."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(raw(method, path, b"", *lines))
        server.handler_for(app)(theirs, ("127.0.0.1", 1), None)
        theirs.shutdown(socket.SHUT_WR)
        (answer,) = answers(read_all(ours), heads_only=1 if method == "HEAD" else 0)
    return answer


ACCEPTS = [
    (BROWSER, HTML),
    ("text/html", HTML),
    ("TEXT/HTML", HTML),
    ("application/json , text/html ; q=0.1", HTML),
    ("text/html;level=1;q=0.3", HTML),
    ("text/html;q=0.001", HTML),
    ("", PLAIN),
    ("*/*", PLAIN),
    ("text/*", PLAIN),
    ("text/plain", PLAIN),
    ("application/xhtml+xml", PLAIN),
    ("text/html;q=0", PLAIN),
    ("text/html; q=0.000, */*", PLAIN),
    ("x-text/html", PLAIN),
    ("text/html-x", PLAIN),
    (",;,;;", PLAIN),
]


@pytest.mark.parametrize("accept, kind", ACCEPTS)
def test_only_who_asks_for_html_gets_the_page(accept, kind):
    answer = get(build(), "/", *([f"Accept: {accept}"] if accept else []))
    assert (answer.status, answer["Content-Type"], answer["Vary"]) == (200, kind, "Accept")
    assert (answer.body == b"server running") is (kind == PLAIN)


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_without_page_the_root_is_plain_and_depends_on_nothing(accept):
    answer = get(build(page=False), "/", f"Accept: {accept}")
    assert (answer.status, answer["Content-Type"], answer["Vary"]) == (200, PLAIN, None)
    assert answer.body == b"server running"


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_head_has_the_fields_of_get(accept):
    app, field = build(), f"Accept: {accept}"
    head, whole = get(app, "/", field, method="HEAD"), get(app, "/", field)
    assert (head.status, head.fields, head.body) == (200, whole.fields, b"")
    assert head["Content-Length"] == str(len(whole.body))


def test_two_servers_send_the_very_same_page():
    one = get(build(), "/", f"Accept: {BROWSER}")
    other = get(build(cookie_name="other", access_ttl=7, unauthorized_status=401), "/", f"Accept: {BROWSER}")
    assert one.body == other.body == server.PAGE.encode("utf-8"), "nothing is put into it"


def test_init_switches_it_off():
    assert "\nPAGE=off\n" in server.HARDENED


# -- what the page may do


def test_the_policy_allows_exactly_the_style_and_script_that_are_sent():
    answer = get(build(), "/", f"Accept: {BROWSER}")
    allowed = {}
    for element in (b"style", b"script"):
        (text,) = re.findall(b"<%b>(.*?)</%b>" % (element, element), answer.body, re.DOTALL)
        assert answer.body.count(b"<" + element) == 1
        allowed[element.decode()] = f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    (policy,) = [value for name, value in answer.fields if name == "Content-Security-Policy"]
    assert dict(each.strip().split(" ", 1) for each in policy.split(";")) == {
        "default-src": "'none'", "script-src": allowed["script"], "style-src": allowed["style"],
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/me", "/explain", "/login", "/nothing"])
def test_every_other_answer_may_do_nothing(path):
    answer = get(build(), path)
    policies = [value for name, value in answer.fields if name == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; connect-src 'self'; frame-ancestors 'none'"]


class Attributes(HTMLParser):
    """Collects (element, attribute, value) of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.elements = [], []
        self.feed(page)

    def handle_starttag(self, element, attributes):
        self.elements.append(element)
        self.found += [(element, name, value or "") for name, value in attributes]


def test_everything_is_in_a_landmark_and_there_is_one_main():
    page = Attributes(server.PAGE)
    assert page.elements.count("main") == page.elements.count("header") == 1
    body = server.PAGE.partition("<body")[2].partition("<script>")[0]
    outside = re.sub(r"<(header|main)>.*?</\1>", "", body, flags=re.DOTALL)
    assert "<" not in outside


def test_it_says_why_there_are_two_tokens_and_why_neither_is_in_local_storage():
    _, _, reason = server.PAGE.partition("<h2>Why two tokens, and why neither in localStorage</h2>")
    reason = reason.partition("</p>")[0]
    for word in ("access token", "refresh token", "HttpOnly", "localStorage", "variable"):
        assert word in reason


def test_the_page_loads_nothing_and_has_no_code_in_attributes():
    page = Attributes(server.PAGE)
    assert not {"a", "base", "embed", "iframe", "img", "link", "object", "source", "svg", "video"} & {*page.elements}
    for element, name, _ in page.found:
        assert name not in {"action", "background", "formaction", "href", "src", "srcset", "style"}, element
        assert not name.startswith("on"), element
    assert not re.search(r"""\w://|["'(=]//|@import|url\(|data:|blob:""", server.PAGE)


def test_the_script_shows_text_and_keeps_no_token():
    for danger in ("HTML", "document.write", "eval(", "Function(", "setAttribute", "import(", "Worker", "WebSocket"):
        assert danger not in server.PAGE.partition("<script>")[2].replace("never as HTML", ""), danger
    script = server.PAGE.partition("<script>")[2]
    assert not re.search(r"(local|session)Storage|indexedDB|caches|cookieStore", script)
    assert re.findall(r"fetch\((.*?)[,)]", server.PAGE) == ["path"]
    paths = set(re.findall(r'ask\("\w+", "(.*?)"', server.PAGE))
    assert paths == {"/", "/login", "/refresh", "/logout", "/explain", "/me"} < set(server.ROUTES)


def test_the_page_speaks_of_the_steps_and_settings_that_there_are():
    names = {step["name"] for step in minijwt.explain("")["steps"]}
    (known,) = re.findall(r"PART_OF = \{(.*?)\}", server.PAGE)
    assert set(re.findall(r"(\w+): ", known)) <= names and "payload" in names
    (unused,) = re.findall(r"UNUSED = \[(.*?)\]", server.PAGE)
    assert set(re.findall(r'"(\w+)"', unused)) < names
    advice = set(re.findall("[A-Z]+_[A-Z]+", re.search(r"const NO_COOKIE = (.*?);\n", server.PAGE, re.DOTALL)[1]))
    assert {"TLS_CERT", "COOKIE_SECURE"} <= advice <= set(server.VARIABLES)
    assert server.DEMO_USERNAME in server.PAGE and server.DEMO_PASSWORD in server.PAGE


def test_every_field_has_a_label_and_every_id_is_there_once():
    page = Attributes(server.PAGE)
    ids = [value for _, name, value in page.found if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, name, value in page.found if name in ("for", "aria-describedby", "aria-labelledby")} <= {*ids}
    assert set(re.findall(r'\$\("(.*?)"\)', server.PAGE)) <= {*ids}
    labelled = {value for _, name, value in page.found if name == "for"}
    assert labelled == {value for element, name, value in page.found if element == "textarea" and name == "id"}


def test_every_colour_is_readable_in_light_and_in_dark():
    def luminance(color):  # WCAG 2.2, "relative luminance"
        parts = [each / 255 / 12.92 if each <= 10 else ((each / 255 + 0.055) / 1.055) ** 2.4 for each in color]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts))

    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    def rgb(digits):
        return [int(digits[at] * 2 if len(digits) == 3 else digits[2 * at : 2 * at + 2], 16) for at in range(3)]

    colors = re.findall(r"--(\w+): light-dark\(#(\w+), #(\w+)\)", server.PAGE)
    colors += re.findall(r"\[data-part=(\w+)\] \{ --hue: light-dark\(#(\w+), #(\w+)\) \}", server.PAGE)
    for theme in (1, 2):
        color = {each[0]: rgb(each[theme]) for each in colors}
        grounds = [color["paper"], color["card"]]
        for hue, share in (("header", 0.14), ("payload", 0.14), ("signature", 0.14), ("bad", 0.12)):
            assert f"var(--{hue if hue == 'bad' else 'hue'}) {share:.0%}" in server.PAGE
            grounds.append([share * one + (1 - share) * other for one, other in zip(color[hue], color["card"])])
        for ground in grounds:
            for name in ("ink", "faint", "good", "bad"):
                assert contrast(color[name], ground) >= 4.5, (theme, name)
        for at, name in enumerate(("header", "payload", "signature")):
            assert all(contrast(color[name], ground) >= 4.5 for ground in (*grounds[:2], grounds[2 + at])), name
        assert contrast(color["card"], color["bad"]) >= 4.5, "the mark on a changed letter"


# -- the trace is for the page alone


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_without_page_there_is_no_trace(method):
    answer = get(build(page=False), "/explain", "Authorization: Bearer a.b.c", method=method)
    assert answer.status == 404 and answer["Allow"] is None


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("page", [True, False])
def test_no_other_origin_may_read_the_trace(method, page):
    app = build(allowed_origins=(ORIGIN,), page=page)
    lines = [f"Origin: {ORIGIN}", "Access-Control-Request-Method: GET", "Authorization: Bearer a.b.c"]
    trace, me = (get(app, path, *lines, method=method) for path in ("/explain", "/me"))
    assert not [name for name, _ in trace.fields if name.startswith("Access-Control")]
    assert me["Access-Control-Allow-Origin"] == ORIGIN


def test_a_token_too_long_for_a_header_is_not_explained():
    line = "Authorization: Bearer " + "a" * (server.MAX_LINE_BYTES - 30)
    assert get(build(), "/explain", line).status == 200
    answer = get(build(), "/explain", line + "a" * 30)
    assert (answer.status, answer.json["code"]) == (431, "head_too_large")
    (most,) = re.findall(r"MAX_CHARS = (\d+);", server.PAGE)
    assert int(most) > server.MAX_LINE_BYTES, "and the page sends enough of it to be told so"


# -- what if it were later?


def explained(app, token, *shifts):
    answer = get(app, "/explain", f"Authorization: Bearer {token}", *(f"Explain-Shift: {each}" for each in shifts))
    return answer, [(step["name"], step["ok"]) for step in answer.json.get("steps", ()) if step["ok"] is not None]


@pytest.mark.parametrize("shift, last", [
    ("-660", ("iat", False)), ("-31", ("iat", False)), ("-30", ("exp", True)), ("0", ("exp", True)),
    ("-0", ("exp", True)), ("599", ("exp", True)), ("600", ("exp", False)), ("999999999", ("exp", False)),
])  # fmt: skip
def test_at_another_time_another_claim_fails(shift, last):
    app = build()
    token = minijwt.encode({"username": "ann", "iat": NOW, "exp": NOW + 600}, ACCESS)
    answer, checks = explained(app, token, shift)
    assert (answer.status, checks[-1], answer.json["valid"]) == (200, last, last[1])
    me = get(app, "/me", f"Authorization: Bearer {token}", f"Explain-Shift: {shift}")
    assert me.status == 200, "nothing else moves"


def test_the_signature_is_judged_before_the_time():
    token = minijwt.encode({"username": "ann", "iat": NOW, "exp": NOW + 600}, b"another key of at least 32 bytes")
    told = [explained(build(), token, *shifts)[0].json for shifts in ((), ("660",), ("-660",))]
    assert told[0] == told[1] == told[2] and told[0]["steps"][3]["code"] == "invalid_signature"


NO_SHIFTS = [("",), ("1.5",), ("+1",), ("1e9",), ("1234567890",), ("now",), ("--1",), ("1", "2"), ("\xb2",)]


@pytest.mark.parametrize("shifts", NO_SHIFTS)
def test_a_shift_that_is_no_number_of_seconds_is_refused(shifts):
    answer, _ = explained(build(), "a.b.c", *shifts)
    assert (answer.status, answer.json["code"]) == (400, "bad_shift")
