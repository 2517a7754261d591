"""What the README says is run: its sessions, its Python, its browser client, its tables."""

import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import minijwt
import pytest
import server
import webdriver
from serverkit import LOGIN, TOP, Process, Running, build, found, request
from sessionkit import add_cheaply

README = (TOP / "README.md").read_text("utf-8")
SOURCES = {name: (TOP / name).read_text("utf-8") for name in ("minijwt.py", "server.py")}
MAX_LINES, MAX_LINE_CHARS = 487, 120
SECTIONS = dict(section.split("\n", 1) for section in README.split("\n## "))


def blocks(language, text=README):
    """The blocks of code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(text):
    """The rows of the first table in `text`, each a list of its cells."""
    _, _, *lines = ("\n" + text).split("\n\n| ", 1)[1].partition("\n\n")[0].splitlines()
    return [[cell.strip(" `") for cell in re.split(r" *(?<!\\)\| *", line.strip("| "))] for line in lines]


# ---- Its form


def test_its_lines_are_few_and_short():
    lines = README.splitlines()
    assert len(lines) <= MAX_LINES and [line for line in lines if len(line) > MAX_LINE_CHARS] == []


def test_every_link_leads_somewhere():
    anchors = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in SECTIONS}
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert targets
    for target in targets:
        assert target[1:] in anchors if target.startswith("#") else (TOP / target).is_file(), target


def test_it_is_in_plain_english():
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    assert re.findall(r"\b(?:who|some|no|any|every)(?:ever|body|one)\b", prose, re.IGNORECASE) == []


# ---- Its sessions


def commands(block):
    """A console block as (command, what it prints) pairs."""
    for part in block.split("$ ")[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def matches(expected, printed):
    """`…` stands for anything within a line, and a line of it for any lines."""
    pattern = re.escape("\n" + expected.rstrip("\n") + "\n").replace("\n…\\\n", "\n(?:.*\n)*").replace("…", ".*")
    return re.fullmatch(pattern, "\n" + printed.replace("\r", "").rstrip("\n") + "\n")


def shell(command, directory, **environment):
    command = command.replace("/tmp/", f"{directory}/")
    command = command.replace("python3 ", f"{sys.executable} ").replace(" minijwt.py", f" {TOP / 'minijwt.py'}")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_first_session_is_as_written(tmp_path):
    start, *talks = [list(commands(block)) for block in blocks("console")[:3]]
    ((command, greeting),) = start
    assert command == "python3 server.py"
    with Process(tmp_path) as process:
        here = f"localhost:{process.port}"
        assert process.greeting + "\n" == greeting.replace("localhost:8000", here)
        for command, expected in [pair for talk in talks for pair in talk]:
            printed = shell(command.replace("localhost:8000", here).replace("curl ", "curl -s "), tmp_path)
            assert matches(expected, printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize(("settings", "status"), [({}, 406), ({"COOKIE_SECURE": "off", "COOKIE_SAMESITE": "Lax"}, 200)])
def test_a_python_client_keeps_the_cookie_with_the_settings_that_are_named_and_without_them_does_not(
    tmp_path, settings, status
):
    assert " ".join(f"{name}={value}" for name, value in settings.items()) in README
    with Process(tmp_path, **settings) as process:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        client = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
        url = f"http://localhost:{process.port}"
        client.open(f"{url}/login", LOGIN, timeout=20).close()
        try:
            with client.open(f"{url}/refresh", b"", timeout=20) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):
                assert error.code == status


def test_the_token_session_is_as_written(tmp_path):
    (block,) = [each for each in blocks("console") if "minijwt.py" in each]
    environment = {}
    for command, expected in commands(block):
        if command.startswith("export "):
            name, _, value = command[len("export ") :].partition("=")
            environment[name] = value
            continue
        assert matches(expected, shell(command, tmp_path, **environment)), command


def test_a_token_of_the_server_can_be_explained_as_written(tmp_path):
    """With the secrets that `init` writes, and the token on standard input."""
    subprocess.run([sys.executable, str(TOP / "server.py"), "init"], cwd=tmp_path, check=True, capture_output=True)
    add_cheaply(tmp_path / "minijwt.db", "alice", "correct horse")
    with Process(tmp_path) as process:
        direct, url = urllib.request.build_opener(urllib.request.ProxyHandler({})), f"http://127.0.0.1:{process.port}"
        with direct.open(f"{url}/login", b"username=alice&password=correct+horse", timeout=20) as answer:
            token = json.load(answer)["accessToken"]
    (command,) = re.findall(r"`(python3 minijwt\.py explain --env-file[^`]*)`", README)
    explained = shell(f"echo {token} | {' '.join(command.split())}", tmp_path)
    assert "FAILED" not in explained and "alice" in explained


@pytest.mark.parametrize("section", ["A token, byte by byte", "As a library"])
def test_the_python_blocks_of_a_section_can_be_pasted(section):
    """Pasted as they stand: what is shown after → is printed, and what is said to be raised is the only error."""
    code = "".join(blocks("python", SECTIONS[section]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-q", "-i"], input=code, cwd=TOP, env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.stdout.splitlines() == re.findall("# → (.*)", code) != []
    errors = [line.replace("minijwt.", "") for line in done.stderr.splitlines() if re.match(r"[\w.]+Error: ", line)]
    assert errors == re.findall("# raises (.*)", code) != []


# ---- Make, and a class without it


def test_a_class_can_see_a_token_expire(tmp_path):
    (setting,) = re.findall(r"`(ACCESS_TOKEN_TTL=\w+) python3 server\.py`", SECTIONS["A class of ninety minutes"])
    with Process(tmp_path, **dict([setting.split("=")])) as process:
        direct, url = urllib.request.build_opener(urllib.request.ProxyHandler({})), f"http://127.0.0.1:{process.port}"
        with direct.open(f"{url}/login", LOGIN, timeout=20) as answer:
            claims = json.loads(minijwt.explain(json.load(answer)["accessToken"])["payload"])
    assert claims["exp"] - claims["iat"] == 6


def test_every_target_of_make_that_is_named_is_one():
    targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {*re.findall(r"`make ([a-z-]+)", README), *re.findall(r"(?m)^\$? ?make ([a-z-]+)", README)} <= {*targets}


def test_what_a_class_carries_is_what_the_exercise_and_the_attacks_have_it_read():
    stages = re.sub(r"\n +", " ", (TOP / "tests" / "exercise" / "stages.txt").read_text("utf-8"))
    read = {n for line in stages.splitlines() if line.startswith("read") for n in re.findall(r"RFC (\d+)", line)}
    attacks = re.findall(r"RFC (\d+)", (TOP / "tests" / "attacks" / "book.py").read_text("utf-8"))
    carried = ",".join(re.findall(r"/rfc\{([\d,]+)\}\.txt", SECTIONS["A class of ninety minutes"])).split(",")
    assert read and attacks and {*read, *attacks} <= {*carried}


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_understands_the_list(tmp_path):
    lines = [line for line in blocks("sh", SECTIONS["A class of ninety minutes"])[0].splitlines() if "curl" in line]
    with Running(build()) as running:
        script = "\n".join(lines).replace("https://www.rfc-editor.org", f"http://127.0.0.1:{running.address[1]}")
        subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True, timeout=20)
    assert len([*tmp_path.glob("rfc????.txt")]) == script.count(",") + len(lines)


# ---- The browser client

# A browser's cookie jar, as far as node needs one.
IN_NODE = """
let jar = "";
const bare = fetch;
globalThis.fetch = async (url, options = {}) => {
  const headers = new Headers(options.headers);
  if (jar && options.credentials === "include") headers.set("Cookie", jar);
  const answer = await bare(process.argv[1] + url, { ...options, headers });
  for (const field of answer.headers.getSetCookie()) jar = field.split(";")[0].replace(/=$/, "");
  return answer;
};
"""
# What a page may meet with. `paths` are the requests of each step, and what came of it.
SCENARIO = """
const { log, steps } = { log: [], steps: {} }, real = fetch;
let broken = 0;  // so many refreshes that are answered 503
let leaving = false, overlapped = false;
globalThis.fetch = async (url, options) => {
  log.push(url);
  leaving ||= url === "/logout";
  overlapped ||= leaving && url === "/refresh";
  if (url === "/refresh" && broken-- > 0) return Response.json({ message: "later" }, { status: 503 });
  const answer = await real(url, options);
  leaving &&= url !== "/logout";
  return answer;
};
async function step(name, work) {
  let came;
  try { came = await work(); } catch (error) { came = error.message; }
  steps[name] = [log.splice(0).join(" "), came];
}
const me = async () => (await (await api("/me")).json()).username;
await step("wrong", () => login("admin", "wrong"));
await step("login", () => login("admin", "admin123"));
await step("me", me);
due = 0;
await step("in time, once for all", () => Promise.all([me(), me(), me()]));
token = token.slice(0, -9) + "A" + token.slice(-8, -1) + "A";
await step("once after a 401", me);
due = 0, broken = 1;
await step("no answer, and still good", me);
token = "", due = 0;
await step("after a reload", me);
due = 0;
const late = me().catch(error => error.message);
await step("a logout overtakes no refresh", async () => { await logout(); await late; return token; });
await step("logged out", me);
await login("admin", "admin123");
due = log.length = 0;
await step("no refresh begins during a logout", async () => {
  const out = logout();
  await me().catch(() => {});
  await out;
  return overlapped;
});
"""
EXPECTED = {
    "wrong": ["/login", "Invalid credentials"],
    "login": ["/login", None],
    "me": ["/me", "admin"],
    "in time, once for all": ["/refresh /me /me /me", ["admin"] * 3],
    "once after a 401": ["/me /refresh /me", "admin"],
    "no answer, and still good": ["/refresh /me", "admin"],
    "after a reload": ["/refresh /me", "admin"],
    "logged out": ["/refresh", "Unauthorized"],
    "no refresh begins during a logout": ["/logout /me /refresh", False],
}


def check_steps(steps):
    path, token = steps.pop("a logout overtakes no refresh")
    assert token == "" and path.startswith("/refresh ") and "/logout" in path
    assert steps == EXPECTED


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.skipif(not found("node"), reason="needs node")
def test_the_browser_client_does_in_node_what_is_said(rotate):
    (client,) = blocks("js")
    assert len(client.splitlines()) <= 25 and "localStorage" not in client
    script = f"{IN_NODE}{client}{SCENARIO}console.log(JSON.stringify(steps, (_, value) => value ?? null));"
    with Running(build(rotate_refresh=rotate, cookie_secure=False, cookie_samesite="Lax")) as running:
        command = ["node", "--input-type=module", "--eval", script, f"http://localhost:{running.address[1]}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    check_steps(json.loads(done.stdout))


@pytest.mark.long
@pytest.mark.parametrize("engine", getattr(webdriver, "ENGINES", [webdriver.Browser]))
def test_and_in_a_browser(engine):
    if why_not := (engine if hasattr(engine, "missing") else webdriver).missing():
        pytest.skip(why_not)
    (client,) = blocks("js")
    script = f"return (async () => {{{client}{SCENARIO}return [steps, document.cookie, localStorage.length]}})()"
    browser = engine()
    try:
        app = build(rotate_refresh=True, cookie_secure=False, cookie_samesite="Lax", page=False)
        with Running(app) as running:
            browser.go(f"http://localhost:{running.address[1]}/")
            steps, cookie, stored = browser.script(script)
    finally:
        browser.close()
    assert (cookie, stored) == ("", 0)
    check_steps(steps)


# ---- Its tables


def test_the_table_of_settings_is_complete():
    table = [row[0] for row in rows(SECTIONS["Settings"])]
    assert [name for cell in table for name in re.findall(r"\w+", cell)] == list(server.VARIABLES)


def test_the_defaults_in_the_table_are_the_defaults():
    table = [(re.findall(r"\w+", names), re.split("`, `", values)) for names, values, _ in rows(SECTIONS["Settings"])]
    defaults = {name: text for names, values in table for name, text in zip(names, values)}
    defaults = {name: text for name, text in defaults.items() if text not in ("none", "random")}
    assert len(defaults) > 10
    for variable, text in defaults.items():
        field, parse = server.VARIABLES[variable]
        if variable != "DATABASE":  # memory while there are no secrets
            assert parse(text) == getattr(server.Settings((), ()), field), variable


def test_each_line_of_defence_exists():
    names = re.findall(r"`(\w+_\w+|explain)`", SECTIONS["What it defends"].partition("**What a leak")[0])
    assert "add_cors_headers" in names
    for name in names:
        assert any(re.search(rf"^ *def {name}\b", text, re.MULTILINE) for text in SOURCES.values()), name


def test_every_route_is_in_the_table_of_answers():
    for path, methods in server.ROUTES.items():
        for method in methods:
            assert f"`{method} {path}`" in README


def test_every_status_the_readme_promises_is_given():
    assert server.respond(build(), request("GET", "/nothing")).status == 404
    for path in ("/login/", "/LOGIN"):
        assert server.respond(build(), request("POST", path)).status == 404 and f"`{path}`" in README
    for status in "404 405 400 403 408 411 413 414 417 422 429 431 500 503 505".split():
        assert status in SECTIONS["What it answers"]


def test_every_command_the_readme_shows_is_one():
    (block,) = blocks("sh", SECTIONS["Users"])
    assert re.findall(r"python3 server.py (\w+ \S+|\w+)", block) == ["init", "user add", "user --help"]
    told = ["add", *re.findall(r"\w+", block.partition("--help")[2])]
    command = [sys.executable, str(TOP / "server.py"), "user", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert set(told) == set(re.findall(r"(?m)^    (\w+) ", printed))


def test_the_parts_are_those_of_the_file():
    banners = re.findall(r"^# ==== Part (.*?) =*$", SOURCES["server.py"], re.MULTILINE)
    parts = re.findall(r"^- \*\*(.*?):\*\* ", SECTIONS["Reading it"], re.MULTILINE)
    assert parts == [banner.replace(":", ".", 1) for banner in banners]
