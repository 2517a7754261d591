"""The attack book: eighteen attacks, each performed on a naive twin and on this server.

Alice has an account. Mallory has one too, and wants Alice's. An attack is a function of one side: it does to it what
Mallory would do and returns what was Seen there; so both sides meet exactly the same attack. Its docstring is what the
demo tells. `python3 tests/attacks` is the demo, tests/test_attacks.py the test.

This server runs with the settings that `server.py init` writes. With the tutorial's defaults there is no rotation: a
stolen refresh token (attack 10) is good until it expires.
"""

import base64
import hashlib
import hmac
import itertools
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import minijwt
import naive_twin
import server
import serverkit

del sys.modules["naive_twin"]  # so that it looks again at whoever asks for it next

ALICE, MALLORY = ("alice", "sunshine"), ("mallory", "mischief-maker")
TWIN_USERS = {name: naive_twin.slow_hash(password) for name, password in (ALICE, MALLORY)}
COOKIE = "__Host-jwt"  # on both sides
HEADER = {"alg": "HS256", "typ": "JWT"}
DAY = 86_400  # seconds
# What a password costs where its cost is the point: a fifth of the real cost. Elsewhere it costs nearly nothing.
MILD = "scrypt$16384$8$1" if server.COST == server.SCRYPT else "pbkdf2$120000"


# ---- Two sides


class Side:
    """A server as its clients see it."""

    address = "203.0.113.9"  # of the client

    def post(self, path, body=b"", **fields):
        client = server.parse_address(self.address)
        return self.send(serverkit.request("POST", path, body, **fields)._replace(address=client))

    def login(self, username, password, **fields):
        body = f"username={percent(username)}&password={percent(password)}".encode()
        return self.post("/login", body, content_type=serverkit.FORM, **fields)

    def enter(self, user):
        """Log in; return the access token and the refresh token."""
        response = self.login(*user)
        return serverkit.body(response)["accessToken"], refresh_of(response)

    def refresh(self, token, **fields):
        return self.post("/refresh", cookie=f"{COOKIE}={token}", **fields)

    def logout(self, token, **fields):
        return self.post("/logout", cookie=f"{COOKIE}={token}", **fields)

    def me(self, token):
        return self.send(serverkit.request("GET", "/me", authorization=f"Bearer {token}"))


class Twin(Side):
    def __init__(self):
        self.clock = serverkit.Clock()
        self.server = naive_twin.Server(self.clock, TWIN_USERS)
        self.send, self.write, self.log = self.server.respond, naive_twin.write, self.server.log
        self.key, self.state = naive_twin.SECRET, (self.server, "is_denied")

    def refuses_to_start(self, **settings):
        return ""  # it starts with anything


class Ours(Side):
    def __init__(self, cost):
        self.clock, self.log = serverkit.Clock(), []
        settings = server.read_settings(server.parse_dotenv(server.HARDENED.format(**new_secrets())), dotenv="")
        store = serverkit.new_store(self.clock)
        self.app = server.App(settings, store, self.clock, cost=cost)
        self.key, self.state = settings.refresh_secrets[0], (store, "look_up")
        for user in (ALICE, MALLORY):
            self.app.accounts.add_user(*user)

    def send(self, request):
        response = server.respond(self.app, request)
        self.log += [server.log_line(self.clock(), event) for event in response.events]
        return response

    def write(self, response):
        return server.render(response, serverkit.request(), True, serverkit.NOW)

    def refuses_to_start(self, **settings):
        """Return the sentence with which it refuses these settings."""
        given = {f"{name.upper()}_TOKEN_SECRET": secret for name, secret in new_secrets().items()}
        try:
            server.check_exposure(server.read_settings({**given, **settings}, dotenv=""), any_user=True)
        except server.SettingsError as error:
            return str(error)
        return ""


class Seen(NamedTuple):
    """What an attack has seen on one side."""

    sent: str
    answer: str
    fell: bool  # the attack succeeded


class Outcome(NamedTuple):
    """What an attack has seen on both."""

    sent: str
    twin: str
    ours: str
    twin_fell: bool
    we_fell: bool


class Attack(NamedTuple):
    title: str
    text: str
    perform: Callable[[Side], Seen]
    stopped_by: tuple  # of parts of lines, each found once in minijwt.py and server.py together
    because: str  # stands in our answer: this line has stopped it, and no accident
    read: str
    cost: Any


ATTACKS = []


def attack(*stopped_by, because, read, cost=serverkit.CHEAP):
    """Put a function into the book. The first line of its docstring is the title."""

    def register(function):
        title, _, text = function.__doc__.partition(".\n")
        ATTACKS.append(Attack(title, " ".join(text.split()), function, stopped_by, because, read, cost))
        return function

    return register


def perform(attack):
    """Perform `attack` on both sides."""
    try:
        twin, ours = attack.perform(Twin()), attack.perform(Ours(attack.cost))
    finally:
        while serverkit.stores:
            serverkit.stores.pop().close()
    return Outcome(twin.sent, twin.answer, ours.answer, twin.fell, ours.fell)


def place_of(fragment):
    """Return the file and the number of the one line that holds `fragment`."""
    files = [Path(module.__file__) for module in (minijwt, server)]
    lines = [(file.name, *pair) for file in files for pair in enumerate(file.read_text("utf-8").splitlines(), 1)]
    ((file, number),) = [(file, number) for file, number, line in lines if fragment in line]
    return file, number


# ---- Mallory's tools


def new_secrets():
    return {name: minijwt.base64url_encode(os.urandom(32)).decode() for name in ("access", "refresh")}


def percent(text):
    """A value for a form, every byte of it escaped."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def claims_of(token):
    """What a token says: anybody can read it."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def unsigned(header, claims):
    """Header, dot and payload: anybody can write them."""
    return ".".join(minijwt.base64url_encode(json.dumps(part).encode()).decode() for part in (header, claims))


def signature(signing_input, key):
    return minijwt.base64url_encode(hmac.digest(key, signing_input.encode(), "sha256")).decode()


def signed(header, claims, key):
    return unsigned(header, claims) + "." + signature(unsigned(header, claims), key)


def as_alice(token):
    """The claims of `token`, with Alice's name."""
    return {**claims_of(token), "username": "alice"}


def refresh_of(response):
    """The refresh token that an answer sets; "" if it sets none."""
    values = [value for name, value in response.fields if name == "Set-Cookie" and value.startswith(COOKIE + "=")]
    return values[0].partition(";")[0].partition("=")[2] if values else ""


def says(*responses):
    """Answers in a few words."""
    said = []
    for response in responses:
        body = json.loads(response.body or b"{}")
        words = body.get("code") or body.get("message") or ""
        if "accessToken" in body:
            words = "an access token for " + claims_of(body["accessToken"])["username"]
        elif "username" in body:
            words = "welcome " + body["username"]
        elif "code" not in body:
            words += "".join(f" (its log: {event.fields['result']})" for event in getattr(response, "events", ()))
        said.append(f"{response.status} {words}".strip())
    return f"each time {said[0]}" if len(said) > 1 and len(set(said)) == 1 else "; ".join(said)


def is_for(name, response):
    """Whether an answer takes whoever reads it for `name`."""
    return response.status == 200 and says(response).endswith(" " + name)


def between(side, action):
    """Arrange that `action` happens once: after the side has next looked up a token, and before it goes on."""
    owner, name = side.state
    look = getattr(owner, name)

    def slow_look(*arguments):
        delattr(owner, name)  # the class's own method shows again
        found = look(*arguments)
        action()
        return found

    setattr(owner, name, slow_look)


def hashes(action):
    """Return how many passwords `action` hashes, whichever way, and how many milliseconds it takes."""
    with ExitStack() as stack:
        names = [name for name in ("scrypt", "pbkdf2_hmac") if hasattr(hashlib, name)]
        spies = [mock.patch.object(hashlib, name, wraps=getattr(hashlib, name)) for name in names]
        counters = [stack.enter_context(spy) for spy in spies]
        begun = time.perf_counter()
        action()
        milliseconds = (time.perf_counter() - begun) * 1000
    return sum(counter.call_count for counter in counters), milliseconds


# ---- The token


@attack(
    "if not hmac.compare_digest(sign(signing_input, key), signature_segment):",
    because="invalid_signature",
    read="RFC 7515 §5.2; RFC 8725 §3.3",
)
def changed_claims(side):
    """The name in the token is changed.

    A token is signed, not encrypted: everybody can read it. Mallory logs in as herself and takes her access token
    apart. Where it says mallory she writes alice, and she leaves the signature as it was. The twin's /me reads the
    claims and does not check the signature: it was right, after all, when the token was made. The same mistake is to
    call a library's decode where its verify was needed. With it, anybody can be anybody. This server computes the
    signature again, over what has arrived. The two differ, and not one claim is read.
    """
    access, _ = side.enter(MALLORY)
    assert is_for("mallory", side.me(access))
    header, _, old_signature = access.split(".")
    payload = unsigned({}, as_alice(access)).split(".")[1]
    response = side.me(f"{header}.{payload}.{old_signature}")
    return Seen('GET /me with "username": "alice" and the old signature', says(response), is_for("alice", response))


@attack("if dots != 2:", because="decode_error", read="RFC 7515 §7.1; RFC 8725 §2.1")
def stripped_signature(side):
    """The signature is left out.

    Now Mallory writes a refresh token for Alice by hand, header and payload, and ends it before the second dot. The
    twin compares the signature if there is one. There is none, so nothing is compared, and nothing is wrong. Whoever
    can type can be anybody. For this server a token has exactly two dots. And a third part that is there but empty is
    simply a wrong signature.
    """
    _, refresh = side.enter(MALLORY)
    token = unsigned(HEADER, as_alice(refresh))
    responses = [side.refresh(token), side.refresh(token + ".")]
    return Seen(
        "POST /refresh with HEADER.PAYLOAD in the cookie; then with HEADER.PAYLOAD and a dot",
        says(*responses),
        any(is_for("alice", response) for response in responses),
    )


@attack(
    'if header.get("alg") != ALGORITHM or ALGORITHM not in algorithms:',
    because="invalid_algorithm",
    read="RFC 7518 §3.6; RFC 7515 §4.1.1 (case matters); RFC 8725 §3.1",
)
def algorithm_none(side):
    """The algorithm is "none", in any case.

    The header of a token says how it was signed, and the standard has a word for "not at all": none. Mallory writes a
    token for Alice that says so, with an empty signature. The twin's author has read of that and refuses the word
    none. But then the twin looks the algorithm up in capital letters, where None, NONE and nOnE are all the same. Of
    sixteen spellings it refuses one. Real systems have been caught twice: first by the word, then, once mended, by its
    capitals. Here the header may say HS256 or be refused. It never chooses.
    """
    _, refresh = side.enter(MALLORY)
    words = ["".join(letters) for letters in itertools.product("nN", "oO", "nN", "eE")]
    responses = [side.refresh(unsigned({"alg": word}, as_alice(refresh)) + ".") for word in words]
    passed = sum(is_for("alice", response) for response in responses)
    return Seen(
        'POST /refresh with {"alg": "none"}, {"alg": "nonE"}, and so on to {"alg": "NONE"}, unsigned',
        f"{passed} of {len(words)} spellings pass; to NONE: {says(responses[-1])}",
        passed > 0,
    )


WORDS = """123456 access admin auth changeme default demo dev hello jwt jwtsecret key letmein login master mysecret
    myjwtsecret node password private qwerty refresh root secret secretkey shhhh supersecret test token
    your-256-bit-secret""".split()
ENDINGS = ["", *map(str, range(1000))]


@attack(
    "if len(key) < MIN_KEY_BYTES:",
    "f\"ACCESS_TOKEN_SECRET, or its OLD, has only {access} of {least} bytes: it can be guessed\": access < least,",
    because="it can be guessed",
    read="RFC 7518 §3.2; RFC 8725 §2.2 and §3.5",
)
def weak_secret(side):
    """The secret is in the dictionary.

    Whoever has one token can guess its secret at home, where nobody counts the guesses. Mallory takes her own token,
    thirty words that stand in everybody's tutorial, and the numbers up to 999 to put behind them. The twin's secret is
    a word and three digits. From now on Mallory signs what she likes, for every user there is, and no log shows it.
    Against 32 random bytes her computer, and a million like it, would need many times the age of the universe. So
    `init` writes random secrets, the library warns of a short one, and a server that other machines can reach does not
    start with one.
    """
    _, refresh = side.enter(MALLORY)
    signing_input, _, wanted = refresh.rpartition(".")
    found, guesses, begun = None, 0, time.perf_counter()
    for guesses, (ending, word) in enumerate(itertools.product(ENDINGS, WORDS), 1):
        if signature(signing_input, (word + ending).encode()) == wanted:
            found = word + ending
            break
    rate = round(guesses / (time.perf_counter() - begun), -4)
    speed = f"about {rate:,.0f} guesses a second"
    sent = f"nothing; guessed at home, on one core: {len(WORDS)} words with {len(ENDINGS):,} endings each"
    refusal = side.refuses_to_start(HOST="0.0.0.0", ACCESS_TOKEN_SECRET="secret123")
    if found:
        response = side.refresh(signed(HEADER, as_alice(refresh), found.encode()))
        answer = f'"{found}" is guess {guesses:,}, at {speed}; with it: {says(response)}'
        return Seen(sent, answer, is_for("alice", response))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        minijwt.encode({}, "secret123")
    assert [warning.category for warning in caught] == [minijwt.InsecureKeyLengthWarning]
    power = math.log10(2**255 / rate / 1e6 / (365 * DAY))
    answer = f"none of {guesses:,} guesses is right, at {speed}; for half of all keys, 2^255, a million such cores take"
    answer += f' 10^{power:.0f} years. And to start in the open with "secret123" it refuses: {refusal}'
    return Seen(sent, answer, refusal == "")


@attack(
    'key_bytes(key, checks["enforce_minimum_key_length"])',
    because="invalid_signature",
    read="RFC 7515 §4.1.4; RFC 8725 §3.10",
)
def key_id_as_path(side):
    """The token names its own key, and the key is a file.

    A header may carry a kid, the name of the key, so that a server with several finds the right one. The twin takes
    the name for the name of a file. Mallory needs a file whose content she knows. She climbs from the directory of
    keys to the root, and down to /dev/null, which is empty on every Unix machine, and signs with the empty key. Where
    keys are looked up in a database, the same hole is an SQL injection. This server follows kid nowhere. Its key is an
    argument, and its owner has set it.
    """
    _, refresh = side.enter(MALLORY)
    header = {**HEADER, "kid": "../" * 20 + "dev/null"}
    response = side.refresh(signed(header, as_alice(refresh), b""))
    sent = 'POST /refresh with {"kid": "../../ and so on ../dev/null"}, signed with the empty key'
    return Seen(sent, says(response), is_for("alice", response))


@attack('if "crit" in header:', because="decode_error", read="RFC 7515 §4.1.11")
def critical_extension(side):
    """A critical condition is passed over.

    Whoever issues a token may write a condition into its header and list it under crit, for critical. It means: who
    does not understand this must refuse the token. Suppose that a gateway, which shares the server's key, has issued
    one for Alice that is good on one connection only. Mallory has got hold of it and sends it on another. Nothing is
    forged; the signature is right. The twin has never heard of the condition and passes over it, so it binds none but
    the honest. This server understands no extension at all. So it refuses every token with crit.
    """
    _, refresh = side.enter(ALICE)
    assert is_for("alice", side.refresh(signed(HEADER, claims_of(refresh), side.key)))
    _, refresh = side.enter(ALICE)
    header = {**HEADER, "crit": ["connection"], "connection": "the number of Alice's"}
    response = side.refresh(signed(header, claims_of(refresh), side.key))
    sent = 'POST /refresh with {"crit": ["connection"], "connection": "..."}, rightly signed'
    return Seen(sent, says(response), is_for("alice", response))


@attack("if not self.now - self.leeway < exp:", because="expired", read="RFC 7519 §4.1.4")
def expired_token(side):
    """An expired token.

    Alice has logged in at the library and gone home. Two days later Mallory finds her cookie in a backup of that
    computer. It was good for one day. The twin looks only at the end of access tokens; a refresh token, it thinks, is
    deleted by the browser in time. Mallory is no browser. So a token that is stolen once is good for ever. This server
    has one function that reads tokens, of either kind, and it always comes past this line.
    """
    _, refresh = side.enter(ALICE)
    side.clock.now += 2 * DAY
    response = side.refresh(refresh)
    return Seen("POST /refresh with Alice's cookie of two days ago", says(response), is_for("alice", response))


@attack(
    "if {*map(minijwt.hmac_key, settings.access_secrets)} & {*map(minijwt.hmac_key, settings.refresh_secrets)}:",
    because="must all differ",
    read="RFC 8725 §2.8 and §3.12",
)
def other_kind_of_token(side):
    """An access token as a refresh token, and back.

    Access tokens travel: to other services, into their logs and error reports. That is why they end after ten minutes.
    The twin signs both kinds with one secret, and nothing in them says which is which. Mallory finds Alice's access
    token in a log and puts it into the cookie, and /refresh turns ten minutes into as many days as she likes. The
    other way round, a refresh token opens /me for a day. This server has a secret for each kind. A token of the other
    kind is then just a forgery; and with one secret for both the server does not start.
    """
    access, refresh = side.enter(ALICE)
    responses = [side.refresh(access), side.me(refresh)]
    one = "one secret for both, and a long one"
    refusal = side.refuses_to_start(ACCESS_TOKEN_SECRET=one, REFRESH_TOKEN_SECRET=one)
    answer = says(*responses) + f". To start with one secret for both it refuses: {refusal}" * bool(refusal)
    sent = "POST /refresh with an access token in the cookie; GET /me with a refresh token"
    return Seen(sent, answer, 200 in [response.status for response in responses] or refusal == "")


# ---- The session

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@attack(
    "if not hmac.compare_digest(sign(signing_input, key), signature_segment):",
    'raise session.refused("session_ended")',
    because="invalid_signature",
    read="RFC 4648 §3.3 and §3.5; RFC 7515 §2",
)
def respelled_token(side):
    """A revoked token is spelled another way.

    Alice logs out, and the twin writes her refresh token into a list of those that are no longer good. But it decodes
    base64 leniently, as the standard library does. The 32 bytes of a signature take 43 letters, and two bits of the
    last letter mean nothing. Padding and punctuation are skipped. So Mallory, who has a copy, turns the last letter
    into its neighbour: the same bytes, another text, and this text is on no list. This server compares the signature
    as it is spelled, so a token has one spelling. And it keeps no list of texts: it ends the session, by its number.
    """
    _, revoked = side.enter(ALICE)
    _, living = side.enter(ALICE)
    assert side.logout(revoked).status == 204 and side.refresh(revoked).status == 401
    last = revoked[-1]
    spellings = [revoked[:-1] + LETTERS[LETTERS.index(last) ^ 1], revoked + "=", revoked[:-1] + "!" + last]
    responses = [side.refresh(token) for token in spellings]
    fell = 200 in [response.status for response in (*responses, side.refresh(living + "="))]
    sent = "POST /refresh with the last letter turned into its neighbour; with = behind it; with ! before it"
    return Seen(sent, says(*responses), fell)


@attack('raise session.refused("reuse_detected")', because="reuse_detected", read="RFC 9700 §4.14.2")
def replayed_token(side):
    """A stolen refresh token is replayed.

    Both servers rotate: a refresh token is used once, and exchanged for the next. Mallory has copied Alice's and is
    first. A minute later Alice comes with the same token. The twin refuses it, since it has been used. Alice is logged
    out, shrugs, and logs in again. Mallory keeps a line of tokens of her own and renews it for ever. But a token that
    comes twice says that two people hold it, and that one of them is a thief. Nobody can tell which. So this server
    ends the session for both and says so in its log. Only Alice has the password to begin another.
    """
    _, refresh = side.enter(ALICE)
    stolen = side.refresh(refresh)
    side.clock.now += 60
    owner, thief = side.refresh(refresh), side.refresh(refresh_of(stolen))
    assert is_for("alice", stolen) and owner.status == 401 and side.login(*ALICE).status == 200
    return Seen(
        "POST /refresh by Mallory; a minute later, with the same token, by Alice; then by Mallory with the next",
        f"to Alice: {says(owner)}; to Mallory: {says(thief)}",
        is_for("alice", thief),
    )


@attack(
    'return {**self.claims, "gen": self.generation + 1}',
    "if session.generation == newest - 1 and abs(now - standing.rotated) <= GRACE_SECONDS:",
    because="1 line of tokens lives",
    read="RFC 9700 §4.14.2",
)
def two_tabs(side):
    """Two tabs race.

    This one needs no Mallory, only two tabs that wake up together and refresh with the same token. The twin first
    reads its list and then writes into it. If the second tab comes in between, the token is used twice, and two lines
    of tokens live on; a thief can race like that too. If it comes a moment later, it is refused, and an honest user is
    logged out. In this server a successor follows from its parent: the next number, and all else the same. So both
    tabs get one successor, byte for byte, at once and for 30 seconds. Nothing is spent twice, and nobody is logged
    out. Whoever brings the old token after that is taken for a thief or a thief's victim, and the session ends.
    """
    _, refresh = side.enter(ALICE)
    racing = []
    between(side, lambda: racing.append(side.refresh(refresh)))
    racing.append(side.refresh(refresh))
    successors = {refresh_of(response) for response in racing}
    lines = sum(side.refresh(token).status == 200 for token in successors)

    _, refresh = side.enter(ALICE)
    first = side.refresh(refresh)
    side.clock.now += 29
    second = side.refresh(refresh)
    side.clock.now += 2
    late = side.refresh(refresh)
    same = refresh_of(first) == refresh_of(second)
    return Seen(
        "POST /refresh with one token, twice at once; then with another, and again 29 and 31 seconds later",
        f"at once: {lines} line{'s' * (lines > 1)} of tokens live{'s' * (lines == 1)}; after 29 s: {says(second)}"
        f"{', the same successor' * same}; after 31 s: {says(late)}",
        lines != 1 or not same or late.status == 200,
    )


# ---- The browser

EVIL = {"origin": "https://evil.example", "host": "login.example", "sec_fetch_site": "cross-site"}
NEIGHBOUR = {"origin": "https://blog.login.example", "host": "login.example", "sec_fetch_site": "same-site"}
HOME = {"origin": "https://login.example", "host": "login.example", "sec_fetch_site": "same-origin"}


@attack(
    'same = site in (b"same-origin", b"none")',
    "if not same and origin not in app.settings.allowed_origins:",
    because="cross_site",
    read="RFC 6265 §8.2; W3C Fetch Metadata; OWASP cheat sheet on CSRF",
)
def forged_request(side):
    """A page of another site presses the buttons.

    A browser adds the cookies of a host to every request to it, whoever caused the request. Alice visits a page of
    Mallory's, and on it two forms send themselves off, to /refresh and to /logout. The twin sees Alice's cookie and
    obeys: her token is exchanged, her session closed. A third form logs her in, as Mallory; whatever she enters from
    then on, Mallory can read. On a bank's forms the same costs money. But a browser also says where a request comes
    from, in Sec-Fetch-Site and in Origin, and no page can change that. This server looks there before it looks at the
    cookie. With SameSite=Strict, which it sets, the cookie would not even come along. But that trusts every host of
    the same domain, and is no help against the third form.
    """
    _, refresh = side.enter(ALICE)
    forged = [side.refresh(refresh, **EVIL), side.logout(refresh, **EVIL), side.login(*MALLORY, **EVIL)]
    old_browser = {name: value for name, value in EVIL.items() if name != "sec_fetch_site"}
    others = [side.logout(refresh, **NEIGHBOUR), side.login(*MALLORY, **old_browser)]
    herself = side.login(*ALICE, **HOME)
    assert herself.status == 200 and side.login(*ALICE).status == 200  # and a program sends neither field
    obeyed = [response for response in (*forged, *others) if response.status in (200, 204)]
    strict = "; SameSite=Strict" in dict(herself.fields)["Set-Cookie"]
    return Seen(
        "POST /refresh and /logout with Alice's cookie and /login with Mallory's password, from https://evil.example",
        f"{says(*forged)}; afterwards to Alice: {says(side.refresh(refresh, **HOME))}",
        obeyed != [] or not strict,
    )


@attack(
    r'if equals and key.strip(b" \t") == wanted:',
    because="an access token for alice",
    read="RFC 6265 §8.6; RFC 6265bis §4.1.3 (name prefixes)",
)
def planted_cookie(side):
    """A neighbour plants a cookie.

    Another host of the same domain can set cookies for all of it. Names that begin with __Host- are an exception:
    browsers take them only from the very host they are for. So Mallory, who has the blog next door, puts a no-break
    space before the name. To the browser that is just another name. But the twin trims names with strip(), which for a
    str means all the white space of Unicode; and of two cookies with one name it takes the last. Alice goes on in
    Mallory's account, and Mallory reads what she enters. This server trims space and tab, the two bytes that HTTP
    calls white space, and nothing else.
    """
    (_, refresh), (_, planted) = side.enter(ALICE), side.enter(MALLORY)
    response = side.refresh(f"{refresh}; \xa0{COOKIE}={planted}")
    sent = rf"POST /refresh with two cookies: Alice's, and Mallory's, whose name is \xa0{COOKIE}"
    return Seen(sent, says(response), not is_for("alice", response))


@attack(
    'return "Set-Cookie", f"{value}; HttpOnly{secure}; SameSite={settings.cookie_samesite}"',
    because='document.cookie is ""',
    read="RFC 6265 §4.1.2.6; OWASP cheat sheet on session management",
)
def script_reads_cookie(side):
    """A script reads the refresh token.

    A comment, an advertisement or a package brings a script of Mallory's into the page. It reads document.cookie and
    sends it home. The twin's cookie can be read, because its own script looks whether it is there. Now Mallory is
    Alice, on a computer of her own, for as long as she likes. A cookie with HttpOnly goes to the server and is shown
    to no script. That does not make the script harmless: while Alice has the page open, it can act there in her name.
    But it cannot carry the token away.
    """
    cookies = [value for name, value in side.login(*ALICE).fields if name == "Set-Cookie"]
    shown = "; ".join(value.partition(";")[0] for value in cookies if "; HttpOnly;" not in value)
    answer = f'document.cookie is "{shown[:24]}{"..." * bool(shown)}"'
    return Seen("nothing; a script in the page reads document.cookie", answer, shown != "")


# ---- The login form


@attack(
    "good = check_password(password, standing.password or dummy_password(self._cost))",
    because="1 for nobody",
    read="CWE-208 (observable timing discrepancy); OWASP cheat sheet on authentication",
    cost=MILD,
)
def user_enumeration(side):
    """The time of an answer tells who has an account.

    Both servers answer a wrong password and an unknown name in the same words. But hashing a password is slow on
    purpose, and the twin does it only if there is something to compare with. To an unknown name it answers at once.
    With a stopwatch and some patience that shows from across an ocean. A list of users is where guessing and phishing
    begin; if they are the users of a clinic, the list is the damage. For a name that it does not know, this server
    does the same work, with a hash that nothing matches. What decides here is the number of hashes. The milliseconds
    are for show, at a fifth of what a password costs in earnest.
    """
    (known, slow), (unknown, fast) = [hashes(lambda: side.login(name, "a wrong guess")) for name in ("alice", "nobody")]
    answer = f"hashes: {known} for alice, {unknown} for nobody; {slow:.1f} ms and {fast:.1f} ms"
    return Seen("POST /login with a wrong password, as alice and as nobody", answer, (known, unknown) != (1, 1))


PASSWORDS = """12345678 password 123456789 iloveyou princess football baseball superman 11111111 password1 qwertyuiop
    trustno1 sunshine""".split()


@attack(
    "if limit and (wait := self._store.count_login_attempt(key, self._clock(), limit)):",
    because="too_many_failures",
    read="CWE-307 (excessive authentication attempts)",
)
def password_guessing(side):
    """Passwords are guessed, one after the other.

    Alice's password is long enough, and on every list of leaked ones. Mallory sends the list, and the twin answers as
    often as it is asked. A slow hash only turns minutes into hours. After ten failures of one account from one address
    this server makes that address wait, from 30 seconds up to an hour; until then even the right password is not
    looked at. An attempt is counted before it is hashed, so guessing in parallel gains nothing. Alice, at another
    address, is not locked out. But whoever has a thousand addresses has ten guesses from each: a bad password stays a
    bad one.
    """
    last = [side.login("alice", password) for password in PASSWORDS][-1]
    side.address = "198.51.100.7"
    assert is_for("alice", side.login(*ALICE))
    sent = f"POST /login as alice with {len(PASSWORDS)} passwords that many people have; the last is right"
    return Seen(sent, f"to the last: {says(last)}", is_for("alice", last))


@attack(
    'raise ValueError("a control character in a header field")',
    because="a control character in a header field",
    read="RFC 9110 §5.5; CWE-113 (response splitting)",
)
def header_injection(side):
    """A user name ends the header line.

    In HTTP a header field ends with two characters, CR and LF. Mallory's user name contains both, and behind them a
    field of her own. The twin remembers the last user name in a cookie and writes it as it came; so it writes
    Mallory's field too. With a form on her page she has Alice's browser send that name, and then sets there what
    cookie she likes: her own session, for instance. In this server no user name gets into a header. And if some day
    one does by mistake: every answer is written in one place, which refuses control characters.
    """
    planted = f"Set-Cookie: {COOKIE}=planted; Secure"
    response = side.login(f"x\r\n{planted}", "whatever")
    written, refusal = side.write(response), ""
    try:  # what an endpoint of some other day might do
        written += side.write(response._replace(fields=(("X-User", f"x\r\n{planted}"),)))
    except ValueError as error:
        refusal = f"; and to write it into a header it refuses: {error}"
    fell = any(line.startswith(planted) for line in written.decode().split("\r\n"))
    answer = f"{says(response)}, {'with' if fell else 'without'} Mallory's field{refusal}"
    return Seen(rf"POST /login with the user name x\r\n{planted}", answer, fell)


@attack(
    '.encode("unicode_escape").decode("ascii").replace(',
    because="user=unknown",
    read="CWE-117 (neutralization for logs); OWASP cheat sheet on logging",
)
def log_injection(side):
    """A user name writes a line of the log.

    This user name contains a line feed, and behind it what looks like the next line of the log: Alice logs in, and all
    is well. The twin writes the name into its log as it came. From then on nobody can tell which lines are the
    server's. That is how a break-in is hidden, or a colleague framed. This server writes values in ASCII, escaped and
    in quotes, so that a line stays a line. And a name that is no user's is logged as unknown, because sooner or later
    somebody types a password into that field.
    """
    side.enter(MALLORY)
    forged = side.log.pop().replace("mallory", "alice")  # as it would look
    side.login(f"nobody\n{forged}", "whatever")
    side.login("nobody", "whatever", origin=f"https://evil.example\n{forged}")  # and what else is logged of a request
    lines = "\n".join(side.log).split("\n")
    answer = f"{len(lines)} lines after 2 requests: " + " | ".join(lines)
    sent = r"POST /login with the user name nobody\n and a line that the log would have for alice; then as Origin"
    return Seen(sent, answer, len(lines) != 2)
