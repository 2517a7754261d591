"""The attack book. Each attack is performed on a naive twin, on this server, and on this server without one line.

An attack is a function of one side: it does what Mallory would do, and returns what was Seen. Its name is the name of
the attack; its docstring is what the demo tells. Beside it stand the line that stops it, the edit that removes that
line, what goes wrong then, and a test that goes red.

`python3 tests/attacks` is the demo, tests/test_attacks.py the test, copies.py makes the edits.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import serverkit
from sides import (
    ADMIN, ALICE, COOKIE, DAY, HEADER, LETTERS, MALLORY, MILD, SSO_KEY, Seen, Side, as_alice, between, claims_of,
    hashes, is_for, refresh_of, says, segment, signature, signed, sso_signed, stopwatch, unsigned,
)  # fmt: skip


class Edit(NamedTuple):
    """How a line of defence is removed; `old` is found once in `file`."""

    file: str
    old: str
    new: str


class Attack(NamedTuple):
    name: str
    title: str
    text: str
    perform: Callable[[Side], Seen]
    edit: Edit
    wrong: str  # what goes wrong without the line
    test: str  # goes red without the line
    read: str
    cost: Any  # of passwords


ATTACKS = []


def attack(file, old, new, *, wrong, test, read, cost=serverkit.CHEAP):
    """Put a function into the book. The first line of its docstring is the title."""

    def register(function):
        name = function.__name__.replace("_", " ")
        title, _, text = function.__doc__.partition(".\n")
        edit = Edit(file, old, new)
        ATTACKS.append(Attack(name, title, " ".join(text.split()), function, edit, wrong, test, read, cost))
        return function

    return register


def perform(attack, kind):
    """Perform `attack` on one kind of side."""
    try:
        return attack.perform(kind(attack.cost))
    finally:
        while serverkit.stores:
            serverkit.stores.pop().close()


# ---- The token

CHECK = "if not hmac.compare_digest(sign(signing_input, key), signature_segment):"


@attack(
    "minijwt.py",
    CHECK,
    "if False:",
    wrong="any visitor is any user",
    test="test_every_bit_of_the_signature_counts",
    read="RFC 7515 §5.2; RFC 8725 §3.3",
)
def changed_claims(side):
    """The name in the token is changed.

    A token is signed, not encrypted: it can be read without the key. Mallory takes her own access token apart, writes
    alice where it says mallory, and leaves the signature as it was. The twin's /me verifies the signature. Its old
    /v1/me, which an app still uses, only decodes the token. This server computes the signature again, from the bytes
    that have arrived; it is another one, and not one claim is read.
    """
    access, _ = side.enter(MALLORY)
    header, _, old_signature = access.split(".")
    token = f"{header}.{segment(as_alice(access))}.{old_signature}"
    responses = [side.me(token), side.me(token, "/v1/me")]
    sent = 'GET /me with "username": "alice" and the old signature; then GET /v1/me, the old address'
    return Seen(sent, says(*responses), is_for("alice", *responses))


@attack(
    "minijwt.py",
    CHECK,
    f"if signature_segment and{CHECK[2:]}",
    wrong="a token without a signature is good",
    test="test_only_the_holder_of_a_proper_key_signs",
    read="RFC 7515 §7.1; RFC 8725 §2.1",
)
def stripped_signature(side):
    """The signature is left out.

    Mallory writes a token for Alice by hand, header and payload, and ends it there. The twin compares the signature if
    there is one. There is none, so nothing is compared, and nothing is wrong. This server always compares: a token has
    exactly two dots, and an empty signature is a wrong one.
    """
    access, _ = side.enter(MALLORY)
    token = unsigned(HEADER, as_alice(access))
    responses = [side.me(token), side.me(token + ".")]
    sent = "GET /me with HEADER.PAYLOAD; then with HEADER.PAYLOAD and a dot"
    return Seen(sent, says(*responses), is_for("alice", *responses))


@attack(
    "minijwt.py",
    "    check_algorithm(read_header(header_segment), algorithms)",
    '    if read_header(header_segment)["alg"].lower() == "none":\n'
    '        return read_json(base64url_decode(payload_segment), "payload")',
    wrong="a token that says `none` needs no signature",
    test="test_the_only_algorithm_is_hs256_and_the_caller_must_allow_it",
    read="RFC 7518 §3.6; RFC 7515 §4.1.1 (case matters); RFC 8725 §3.1",
)
def algorithm_none(side):
    """The algorithm is "none".

    The header of a token says how it was signed, and the standard has a word for "not at all": none. Mallory writes a
    token for Alice that says so. The twin refuses the word none. But then it looks the algorithm up in capital letters,
    where None, nOnE and NONE are all the same. Here a header says HS256 or is refused; and the signature is HMAC-SHA256
    whatever it says. So the edit does what the first libraries did: it lets the header choose.
    """
    access, _ = side.enter(MALLORY)
    words = ["".join(letters) for letters in itertools.product("nN", "oO", "nN", "eE")]
    responses = [side.me(unsigned({"alg": word}, as_alice(access)) + ".") for word in words]
    passed = sum(is_for("alice", response) for response in responses)
    return Seen(
        'GET /me with {"alg": "none"}, {"alg": "nonE"} and so on to {"alg": "NONE"}, unsigned',
        f"{passed} of {len(words)} spellings pass; to NONE: {says(responses[-1])}",
        passed > 0,
    )


@attack(
    "minijwt.py",
    "if _is_published(key):",
    "if False:",
    wrong="a public key is taken for the secret, and all have it",
    test="test_what_is_no_secret_neither_signs_nor_verifies_nor_explains",
    read="RFC 8725 §2.1 and §3.1",
)
def key_confusion(side):
    """The public key becomes the secret: RS256 is called HS256.

    A company's single sign-on signs with RS256: a private key signs, and a public key, which all may have, verifies.
    The header names the algorithm, and the twin obeys. So Mallory signs with HS256, which has one key for both, and
    takes the text of the public key for it. The twin verifies with the key that it has: the same text. This server
    knows HS256 only. But its operator may set the public key as its secret; so a key that looks public is refused.
    """
    side = side.start(ALICE, MALLORY, ACCESS_TOKEN_SECRET=SSO_KEY.decode())
    access, _ = side.enter(MALLORY)
    forged = signed({**HEADER, "kid": "sso.pem"}, as_alice(access), SSO_KEY)
    response = side.me(forged)
    sent = "GET /me with an RS256 token of the single sign-on; then with HS256, signed with its public key"
    return Seen(sent, says(side.me(sso_signed(claims_of(access))), response) + side.refusal, is_for("alice", response))


@attack(
    "minijwt.py",
    CHECK,
    "if sign(signing_input, key) != signature_segment:",
    wrong="the time of an answer tells the signature, letter by letter",
    test="test_signatures_are_compared_in_constant_time",
    read="CWE-208 (observable timing discrepancy)",
)
def timed_comparison(side):
    """The time of a comparison tells the signature.

    The operator != stops at the first byte that is wrong: the more bytes are right, the longer it takes. Mallory tries
    one value after the other at the first place, keeps the one that takes longest, and goes on to the second. Her
    stopwatch here is perfect: it counts the bytes that are compared. Over a network she needs millions of tries, and
    patience. hmac.compare_digest looks at every byte, whatever it finds, and there is nothing to measure.
    """
    access, _ = side.enter(MALLORY)
    text, known, tries = unsigned(HEADER, as_alice(access)), b"", 0

    def forged(start):
        return f"{text}.{side.spell(start.ljust(side.length, side.units[0])).decode()}"

    with stopwatch(side) as measure:
        while len(known) < side.length:
            for unit in side.units:
                tries += 1
                if measure(forged(known + unit)) > len(known):
                    known += unit
                    break
            else:
                break  # all take the same time
    response = side.me(forged(known))
    answer = f"after {tries:,} tries {len(known)} of {side.length} places are known: {says(response)}"
    return Seen("GET /me with a token for alice and one signature after the other", answer, is_for("alice", response))


WORDS = """123456 access admin auth changeme default demo dev hello jwt jwtsecret key letmein login master mysecret
    myjwtsecret node password private qwerty refresh root secret secretkey shhhh supersecret test token
    your-256-bit-secret""".split()
ENDINGS = ["", *map(str, range(1000))]


@attack(
    "server.py",
    "access < least,",
    "False,",
    wrong="one token is enough to guess the secret",
    test="test_a_risk_is_a_warning_in_private_and_a_refusal_in_the_open",
    read="RFC 7518 §3.2; RFC 8725 §2.2 and §3.5",
)
def weak_secret(side):
    """The secret is in the dictionary.

    With one token its secret can be guessed at home, where no server counts the guesses. Mallory takes her own, thirty
    words that stand in tutorials, and the numbers up to 999 behind them. The twin's secret is a word and three digits.
    From now on she signs what she likes, and no log shows it. This server, where other machines can reach it, does not
    start with less than 32 bytes. To try half of all keys of that length takes many times the age of the universe.
    """
    side = side.start(ALICE, MALLORY, HOST="0.0.0.0", ACCESS_TOKEN_SECRET="secret123")
    access, _ = side.enter(MALLORY)
    signing_input, _, wanted = access.rpartition(".")
    found, guesses, begun = None, 0, time.perf_counter()
    for guesses, (ending, word) in enumerate(itertools.product(ENDINGS, WORDS), 1):
        if signature(signing_input, (word + ending).encode()) == wanted:
            found = word + ending
            break
    rate = round(guesses / (time.perf_counter() - begun), -4)
    sent = f"nothing; guessed at home, {len(WORDS)} words with {len(ENDINGS):,} endings each"
    if found:
        response = side.me(signed(HEADER, as_alice(access), found.encode()))
        answer = f'"{found}" is guess {guesses:,}, at about {rate:,.0f} a second; with it: {says(response)}'
        return Seen(sent, answer, is_for("alice", response))
    power = math.log10(2**255 / rate / 1e6 / (365 * DAY))
    answer = f"none of {guesses:,} guesses is right; a million such machines would take 10^{power:.0f} years"
    return Seen(sent, answer + side.refusal, False)


@attack(
    "minijwt.py",
    "    check_signature(signing_input, signature_segment, key)\n",
    '    if kid := read_header(header_segment).get("kid"):\n'
    '        with open(kid, "rb") as file:\n'
    "            key = file.read()\n"
    "    check_signature(signing_input, signature_segment, key)\n",
    wrong="the token chooses the key that verifies it",
    test="test_a_header_says_and_never_chooses",
    read="RFC 7515 §4.1.4; RFC 8725 §3.10",
)
def key_id_as_path(side):
    """The token names its own key, and the key is a file.

    A header may carry a kid, the name of the key, so that a server with several finds the right one. The twin takes it
    for the name of a file. Mallory climbs from the directory of keys to the root and down to /dev/null, which is empty
    on every Unix, and signs with the empty key. Where keys are in a database, the same hole is an SQL injection. This
    server follows kid nowhere: its key is an argument. So this edit adds a line, where the others take one away.
    """
    access, _ = side.enter(MALLORY)
    header = {**HEADER, "kid": "../" * 20 + "dev/null"}
    response = side.me(signed(header, as_alice(access), b""))
    sent = 'GET /me with {"kid": "../../ and so on ../dev/null"}, signed with the empty key'
    return Seen(sent, says(response), is_for("alice", response))


@attack(
    "minijwt.py",
    'if "crit" in header:',
    "if False:",
    wrong="a condition of the issuer is passed over",
    test="test_a_header_says_and_never_chooses",
    read="RFC 7515 §4.1.11",
)
def critical_extension(side):
    """A critical condition is passed over.

    An issuer may write a condition into the header and list it under crit: a reader that does not understand it must
    refuse the token. A gateway, which shares the server's key, has issued a token for Alice that is good on one
    connection only. Mallory has copied it and sends it on another. Nothing is forged; the signature is right. The twin
    has never heard of the condition. This server understands no extension, so it refuses every token with crit.
    """
    access, _ = side.enter(ALICE)
    assert is_for("alice", side.me(signed(HEADER, claims_of(access), side.access_key)))
    header = {**HEADER, "crit": ["connection"], "connection": "the number of Alice's"}
    response = side.me(signed(header, claims_of(access), side.access_key))
    sent = 'GET /me with {"crit": ["connection"], "connection": "..."}, rightly signed'
    return Seen(sent, says(response), is_for("alice", response))


@attack(
    "minijwt.py",
    "if len(members) != len(pairs):",
    "if False:",
    wrong="of two claims with one name, two programs believe different ones",
    test="test_json_is_strict_in_the_header_and_in_the_payload",
    read="RFC 7519 §4; RFC 8259 §4",
)
def repeated_claim(side):
    """A claim is there twice.

    Another program shares the key. It looks its users up and writes their tokens by hand, with the name in quotes.
    Mallory has chosen a name with quotes in it. So her token has two claims called username, rightly signed: the first
    is hers, the second is Alice's. RFC 8259 does not say which one counts. The twin, as most programs do, takes the
    last. This server refuses a name that is there twice.
    """
    access, _ = side.enter(MALLORY)
    claims = claims_of(access)
    name = 'mallory", "username": "alice'
    payload = f'{{"username": "{name}", "iat": {claims["iat"]}, "exp": {claims["exp"]}}}'
    response = side.me(signed(HEADER, payload.encode(), side.access_key))
    sent = f'GET /me with {{"username": "{name}", ...}}, rightly signed'
    return Seen(sent, says(response), is_for("alice", response))


@attack(
    "minijwt.py",
    "if not self.now - self.leeway < exp:",
    "if False:",
    wrong="a token that was stolen once is good for ever",
    test="test_times_are_numbers_and_end_on_the_second",
    read="RFC 7519 §4.1.4",
)
def expired_token(side):
    """An expired token is used.

    Alice has logged in at the library and gone home. Two days later Mallory finds her cookie in a backup of that
    computer. It was good for one day. The twin looks at the end of access tokens only; a refresh token, its author
    thinks, is deleted by the browser in time. Mallory is no browser. This server has one function that reads tokens,
    of either kind, and it always comes past this line.
    """
    _, refresh = side.enter(ALICE)
    side.clock.now += 2 * DAY
    response = side.refresh(refresh)
    return Seen("POST /refresh with Alice's cookie of two days ago", says(response), is_for("alice", response))


@attack(
    "server.py",
    "if {*map(minijwt.hmac_key, settings.access_secrets)} & {*map(minijwt.hmac_key, settings.refresh_secrets)}:",
    "if False:",
    wrong="with one secret for both, an access token in the cookie is a refresh token",
    test="test_settings_that_are_wrong_together_are_refused",
    read="RFC 8725 §2.8 and §3.12",
)
def other_kind_of_token(side):
    """An access token is used as a refresh token.

    Access tokens travel: to other services, into their logs and error reports. That is why they end after ten minutes.
    The twin signs both kinds with one secret, and nothing in them says which is which. Mallory finds an access token
    in a log and puts it into the cookie, again and again: ten minutes become for ever. This server has a secret for
    each kind, so a token of the other kind is a forgery. With one secret for both it does not start: the tutorial's
    refresh tokens, which it takes, look like access tokens.
    """
    one = "one secret for both, and a long one"
    side = side.start(ACCESS_TOKEN_SECRET=one, REFRESH_TOKEN_SECRET=one)
    access, _ = side.enter(ALICE if side.refusal else ADMIN)
    response = side.refresh(access)
    sent = "POST /refresh with an access token in the cookie"
    return Seen(sent, says(response) + side.refusal, response.status == 200)


# ---- The session


@attack(
    "minijwt.py",
    CHECK,
    'if not hmac.compare_digest(hmac_sha256(key, signing_input), a2b_base64(signature_segment.translate(_FROM_URL) + b"==")):',
    wrong="a token that was logged out is good again in another spelling",
    test="test_a_token_has_one_spelling",
    read="RFC 4648 §3.3 and §3.5; RFC 7515 §2",
)
def respelled_token(side):
    """A token that was logged out is spelled another way.

    The signature covers the text of header and payload: change a letter there, and it is wrong. But it does not cover
    itself. Its 32 bytes take 43 letters, and two bits of the last letter mean nothing; a lenient decoder skips padding
    and punctuation too. So the same signature can be spelled in many ways. The twin keeps a list of the texts of
    tokens that were logged out, and the new text is not in it. This server, too, can recognise a token of the
    tutorial's own app only by its text. So it compares the signature as it is spelled: a token has one text.
    """
    side = side.start()
    now = side.clock()
    revoked = signed(HEADER, {"username": "admin", "iat": now, "exp": now + DAY}, side.refresh_key)
    assert side.logout(revoked).status == 204 and not is_for("admin", side.refresh(revoked))
    last = revoked[-1]
    spellings = [revoked[:-1] + LETTERS[LETTERS.index(last) ^ 1], revoked + "=", revoked[:-1] + "!" + last]
    responses = [side.refresh(token) for token in spellings]
    sent = "POST /refresh with the last letter turned into its neighbour; with = behind it; with ! before it"
    return Seen(sent, says(*responses), is_for("admin", *responses))


@attack(
    "server.py",
    "if presented.generation == newest - 1 and ",
    "if presented.generation < newest or ",
    wrong="a stolen refresh token is never noticed",
    test="test_a_grandparent_is_theft_even_at_once",
    read="RFC 9700 §4.14.2",
)
def replayed_token(side):
    """A stolen refresh token is used twice.

    Both servers rotate: a refresh token is used once, and exchanged for the next. Mallory has copied Alice's and is
    first. A minute later Alice comes with the same token. The twin refuses it, since it has been used; Alice logs in
    again, and Mallory renews her line of tokens for ever. But a token that comes twice is held by two people, and one
    of them is a thief. This server cannot tell which one, so it ends the session for both, and its log says so.
    """
    _, refresh = side.enter(ALICE)
    stolen = side.refresh(refresh)
    side.clock.now += 60
    owner, thief = side.refresh(refresh), side.refresh(refresh_of(stolen))
    return Seen(
        "POST /refresh by Mallory; a minute later, with the same token, by Alice; then by Mallory with the next",
        f"to Alice: {says(owner)}; to Mallory: {says(thief)}",
        is_for("alice", thief),
    )


@attack(
    "server.py",
    "GRACE_SECONDS = 30.0",
    "GRACE_SECONDS = 0.0",
    wrong="an honest user with two tabs is logged out",
    test="test_the_parent_gets_the_same_successor_within_30_seconds_and_later_it_is_theft",
    read="RFC 9700 §4.14.2",
)
def two_tabs(side):
    """Two tabs race.

    This one needs no Mallory, only two tabs that wake up together and refresh with one token. The twin reads its list
    and then writes into it. If the second tab comes in between, the token is used twice, and two lines of tokens live
    on: a thief can race like that too. Here the next token follows from the last one: the next number, and all else
    the same. So both tabs get the same bytes, at once and for 30 seconds. Without these seconds the slower tab, or a
    phone that lost the answer in a tunnel, would be taken for a thief, and an honest user logged out.
    """
    _, refresh = side.enter(ALICE)
    racing = []
    between(side, lambda: racing.append(side.refresh(refresh)))
    racing.append(side.refresh(refresh))
    lines = sum(side.refresh(token).status == 200 for token in {refresh_of(response) for response in racing})

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
        f"{', the same bytes' * same}; after 31 s: {says(late)}",
        lines != 1 or not same or late.status == 200,
    )


@attack(
    "server.py",
    "self._newest_of_each(tokens, None)",
    "self._newest_of_each(tokens, self._clock())",
    wrong="a logout ends nothing, and says that it did",
    test="test_a_good_signature_is_enough_to_end_a_session_whatever_the_clock_says",
    read="RFC 7519 §4.1.6",
)
def clock_behind(side):
    """A logout meets a clock that is behind.

    There are two machines, and the clock of one is a minute behind. Alice logs in at the first and logs out at the
    second. To that one her token comes from the future. The twin takes it for forged, has nothing to end, and says
    204: done. Mallory's copy of the token lives on. To end a session this server asks for a good signature and for
    nothing else, whatever the clocks say.
    """
    _, refresh = side.enter(ALICE)
    side.clock.now -= 60
    logout = side.logout(refresh)
    side.clock.now += 60
    response = side.refresh(refresh)
    sent = "POST /logout a minute before the token was made; then POST /refresh with a copy"
    return Seen(sent, says(logout, response), is_for("alice", response))


# ---- The browser

EVIL = {"origin": "https://evil.example", "host": "login.example", "sec_fetch_site": "cross-site"}
OLD_BROWSER = {"origin": "https://evil.example", "host": "login.example"}
NEIGHBOUR = {"origin": "https://blog.login.example", "host": "login.example", "sec_fetch_site": "same-site"}
HOME = {"origin": "https://login.example", "host": "login.example", "sec_fetch_site": "same-origin"}


@attack(
    "server.py",
    "if not same and origin not in app.settings.allowed_origins:",
    "if False:",
    wrong="any page that a user visits logs that user out, or in as another user",
    test="test_a_post_from_a_page_of_another_site_is_refused",
    read="RFC 6265 §8.2; W3C Fetch Metadata; OWASP cheat sheet on CSRF",
)
def forged_request(side):
    """A page of another site presses the buttons.

    A browser adds the cookies of a host to every request to it, whatever page has caused the request. Alice visits a
    page of Mallory's, and on it forms send themselves off, to /refresh and /logout. The twin sees Alice's cookie and
    obeys. Another form logs her in as Mallory; what she enters from then on, Mallory can read. But a browser also says
    where a request comes from, in Sec-Fetch-Site and in Origin, and no page can change that. This server looks there
    first.
    """
    _, refresh = side.enter(ALICE)
    forged = [side.refresh(refresh, **EVIL), side.logout(refresh, **EVIL), side.login(*MALLORY, **EVIL)]
    others = [side.logout(refresh, **NEIGHBOUR), side.login(*MALLORY, **OLD_BROWSER)]
    assert side.login(*ALICE, **HOME).status == side.login(*ALICE).status == 200  # a program sends neither field
    return Seen(
        "POST /refresh and /logout with Alice's cookie and /login with Mallory's password, from https://evil.example",
        f"{says(*forged)}; afterwards to Alice: {says(side.refresh(refresh, **HOME))}",
        any(response.status in (200, 204) for response in (*forged, *others)),
    )


@attack(
    "server.py",
    r'key.strip(b" \t") == wanted',
    'key.decode("latin-1").strip() == name',
    wrong="a neighbour's cookie logs a user in as the neighbour",
    test="test_our_cookie_is_found_among_strangers",
    read="RFC 6265 §8.6; RFC 6265bis §4.1.3 (name prefixes)",
)
def planted_cookie(side):
    """A neighbour plants a cookie.

    Another host of the same domain can set cookies for all of it. Names that begin with __Host- are an exception:
    browsers take them only from the very host they are for. So Mallory, who has the blog next door, puts a no-break
    space before the name. To the browser that is another name. But the twin trims it with strip(), which takes away
    all the white space of Unicode; so Alice works in Mallory's account. This server trims space and tab only.
    """
    (_, refresh), (_, planted) = side.enter(ALICE), side.enter(MALLORY)
    alone = side.post("/refresh", cookie=f"\xa0{COOKIE}={planted}")
    beside = side.refresh(f"{refresh}; \xa0{COOKIE}={planted}")
    sent = rf"POST /refresh with a cookie called \xa0{COOKIE}; then with Alice's and with that one"
    return Seen(sent, says(alone, beside), is_for("mallory", alone) or not is_for("alice", beside))


@attack(
    "server.py",
    "; HttpOnly{secure}",
    "{secure}",
    wrong="a script on the page carries the refresh token away",
    test="test_the_cookie_is_as_the_settings_say",
    read="RFC 6265 §4.1.2.6; OWASP cheat sheet on session management",
)
def script_reads_cookie(side):
    """A script reads the refresh token.

    A comment, an advertisement or a package brings a script of Mallory's into the page. It reads document.cookie and
    sends it home. The twin's own script looks whether the cookie is there, so every script can. Now Mallory is Alice,
    on a computer of her own, for as long as she likes. A cookie with HttpOnly goes to the server and is shown to no
    script. The script is not harmless then: while Alice has the page open, it can act in her name. But it cannot carry
    the token away.
    """
    cookies = [value for name, value in side.login(*ALICE).fields if name == "Set-Cookie"]
    shown = "; ".join(value.partition(";")[0] for value in cookies if "; HttpOnly;" not in value)
    answer = f'document.cookie is "{shown[:24]}{"..." * bool(shown)}"'
    return Seen("nothing; a script in the page reads document.cookie", answer, shown != "")


# ---- The login form


@attack(
    "server.py",
    "if good and not local:",
    "if False:",
    wrong="any page that a user of this machine visits logs in with the demo password",
    test="test_the_demo_user_is_let_in_by_a_local_request_only",
    read="CWE-350 (reliance on reverse DNS resolution); CWE-1392 (default credentials)",
)
def repointed_name(side):
    """A web page reaches the server on this machine.

    The demo user's password stands in README, but the server can be reached from this machine only. Mallory's page is
    shown by a browser on this machine. Its name, evil.example, has meanwhile been pointed at 127.0.0.1, so to the
    browser the server is evil.example: the same origin, and the page may read all answers. The twin does not look at
    the name. This server lets the demo user in by a name that always means this machine.
    """
    side = side.start()
    there = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec_fetch_site": "same-origin"}
    assert is_for("admin", side.login(*ADMIN))
    response = side.login(*ADMIN, **there)
    return Seen("POST /login as admin, with Host: evil.example:8000", says(response), is_for("admin", response))


@attack(
    "server.py",
    "good = check_password(password, standing.password or dummy_password(self._cost))",
    "good = bool(standing.password) and check_password(password, standing.password)",
    wrong="the time of an answer tells which names exist",
    test="test_an_unknown_user_and_a_wrong_password_get_the_same_answer_for_the_same_work",
    read="CWE-208 (observable timing discrepancy); OWASP cheat sheet on authentication",
    cost=MILD,
)
def user_enumeration(side):
    """The time of an answer tells which names exist.

    Both servers answer a wrong password and an unknown name in the same words. But to hash a password is slow on
    purpose, and the twin does it only if it has one to compare with: an unknown name is answered at once. A list of
    users is where guessing and phishing begin; of a clinic, the list is the damage. For an unknown name this server
    does the same work. What counts here is the number of hashes; the milliseconds are for show.
    """
    known, slow = hashes(lambda: side.login("alice", "a wrong guess"))
    unknown, fast = hashes(lambda: side.login("zoe", "a wrong guess"))
    answer = f"hashes: {known} for alice, {unknown} for zoe; {slow:.1f} ms and {fast:.1f} ms"
    return Seen("POST /login with a wrong password, as alice and as zoe", answer, (known, unknown) != (1, 1))


PASSWORDS = """12345678 password 123456789 iloveyou princess football baseball superman 11111111 password1 qwertyuiop
    trustno1 sunshine""".split()


@attack(
    "server.py",
    "if limit and (wait :=",
    "if False and (wait :=",
    wrong="a list of common passwords is tried to its end",
    test="test_after_ten_failures_waits_grow_from_30_s_to_an_hour",
    read="CWE-307 (excessive authentication attempts)",
)
def password_guessing(side):
    """Passwords are guessed, one after the other.

    Alice's password is long enough, and on every list of leaked ones. Mallory sends the list, and the twin answers as
    often as it is asked. After ten failures of one account from one address this server makes that address wait, from
    30 seconds up to an hour; until then even the right password is not looked at. Alice, at another address, is not
    locked out. But a thousand addresses have ten guesses each: a bad password stays a bad one.
    """
    last = [side.login("alice", password) for password in PASSWORDS][-1]
    side.address = "198.51.100.7"
    assert is_for("alice", side.login(*ALICE))
    sent = f"POST /login as alice with {len(PASSWORDS)} passwords that many people have; the last is right"
    return Seen(sent, f"to the last: {says(last)}", is_for("alice", last))


@attack(
    "server.py",
    "if not (value.isascii() and value.isprintable()):",
    "if False:",
    wrong="a value with a line end adds a field to the answer",
    test="test_no_field_can_split_an_answer",
    read="RFC 9110 §5.5; CWE-113 (response splitting)",
)
def header_injection(side):
    """A user name ends the header line.

    In HTTP a header field ends with two characters, CR and LF. Mallory's user name contains both, and behind them a
    field of her own. The twin remembers the last user name in a cookie and writes it as it came; so it writes
    Mallory's field too. With a form on her page she has Alice's browser send that name, and sets there what cookie she
    likes. In this server no user name gets into a header. Should one get there some day by mistake: every answer is
    written in one place, which refuses control characters.
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
    "server.py",
    '.encode("unicode_escape").decode("ascii")',
    "",
    wrong="a value with a line end adds a line to the log",
    test="test_whatever_a_value_is_its_line_is_one_line_of_ascii_with_one_field",
    read="CWE-117 (neutralization for logs); OWASP cheat sheet on logging",
)
def log_injection(side):
    """A value writes a line of the log.

    Mallory's user name contains a line end, and behind it what looks like the next line of the log: Alice logs in, and
    all is well. The twin writes it as it came. From then on no reader can tell which lines are the server's; so a
    break-in is hidden, or a colleague framed. This server writes values in ASCII, escaped, so that a line stays a line.
    A name that no user has is logged as unknown; so Mallory tries Origin too, with the line end NEL, which HTTP allows.
    """
    side.enter(MALLORY)
    forged = side.log.pop().replace("mallory", "alice")  # as it would look
    side.login(f"zoe\n{forged}", "whatever")
    side.login("zoe", "whatever", origin=f"https://e\x85{forged}")
    lines = "\n".join(side.log).splitlines()
    answer = f"{len(lines)} lines after 2 requests: " + " | ".join(lines)
    sent = r"POST /login with the user name zoe\n and a line that the log would have for alice; then as Origin"
    return Seen(sent, answer, len(lines) != 2)
