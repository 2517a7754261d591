"""Time `encode` and `decode` of minijwt, of its peers, and of the HMAC that nobody can avoid.

    python3 library.py DIRECTORY-OF-MINIJWT REPEATS     prints {"name": {"encode": seconds, "decode": seconds}} as JSON

Runs in a process of its own, because the peers live in a virtual environment. All do the same work: sign the three
claims of an access token with the same 32 bytes; verify that token and its claims against the clock.
"""

from __future__ import annotations

import hmac
import json
import sys
import time
from collections.abc import Callable
from timeit import Timer
from typing import Any

KEY = b"bench-UrO4u0Wv3LJbTq1mYx8dQeHk7s"  # 32 bytes of base64url, as `keygen` writes them
NOW = int(time.time())
CLAIMS = {"username": "admin", "iat": NOW, "exp": NOW + 600}
SLICE = 0.02  # seconds that one timing lasts: long against the clock's grain, short against a neighbour's burst

Calls = dict[str, Callable[[], Any]]  # "encode" and "decode", without arguments


def bare_hmac(token: str) -> Calls:
    """Return the one call that every library must make: the HMAC of the signing input."""
    signing_input = token.rpartition(".")[0].encode()
    digest = lambda: hmac.digest(KEY, signing_input, "sha256")  # noqa: E731
    return {"encode": digest, "decode": digest}


def minijwt_calls(token: str) -> Calls:
    """Return minijwt's calls."""
    import minijwt

    return {
        "encode": lambda: minijwt.encode(CLAIMS, KEY),
        "decode": lambda: minijwt.decode(token, KEY, algorithms=["HS256"]),
    }


def pyjwt_calls(token: str) -> Calls:
    """Return PyJWT's calls, as its documentation writes them."""
    import jwt

    return {
        "encode": lambda: jwt.encode(CLAIMS, KEY, algorithm="HS256"),
        "decode": lambda: jwt.decode(token, KEY, algorithms=["HS256"]),
    }


def joserfc_calls(token: str) -> Calls:
    """Return joserfc's calls; the key is imported and the registry built once, as a server would."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    key, registry = OctKey.import_key(KEY), jwt.JWTClaimsRegistry()

    def decode() -> object:
        claims = jwt.decode(token, key, algorithms=["HS256"]).claims
        registry.validate(claims)  # decode alone looks at no claim
        return claims

    return {"encode": lambda: jwt.encode({"alg": "HS256"}, CLAIMS, key), "decode": decode}


CONTESTANTS = {"hmac": bare_hmac, "minijwt": minijwt_calls, "pyjwt": pyjwt_calls, "joserfc": joserfc_calls}


def importable(token: str) -> dict[str, Calls]:
    """Return the calls of every contestant that is installed, having seen that they do what they should."""
    found = {}
    for name, calls_for in CONTESTANTS.items():
        try:
            found[name] = calls_for(token)
        except ImportError:
            continue
        if name != "hmac" and (found[name]["decode"](), len(found[name]["encode"]())) != (CLAIMS, len(token)):
            raise SystemExit(f"{name} does not make or read the same token: there is nothing to compare")
    return found


def best_times(contestants: dict[str, Calls], repeats: int) -> dict[str, dict[str, float]]:
    """Return the least seconds of one call, of `repeats` timings. Contestants take turns, so noise hits all alike."""
    timers = {(name, verb): Timer(call) for name, calls in contestants.items() for verb, call in calls.items()}
    loops = {which: max(1, int(SLICE / (timer.timeit(200) / 200))) for which, timer in timers.items()}
    best: dict[str, dict[str, float]] = {name: {} for name in contestants}
    for _ in range(repeats):
        for (name, verb), timer in timers.items():
            seconds = timer.timeit(loops[name, verb]) / loops[name, verb]
            best[name][verb] = min(seconds, best[name].get(verb, seconds))
    return best


def main(directory: str, repeats: str) -> None:
    """Print the times as JSON."""
    sys.path.insert(0, directory)
    import minijwt

    token = minijwt.encode(CLAIMS, KEY)
    print(json.dumps(best_times(importable(token), int(repeats))))


if __name__ == "__main__":
    main(*sys.argv[1:])
