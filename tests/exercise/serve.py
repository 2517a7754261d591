"""The server with your own file in the place of minijwt:  python3 tests/exercise/serve.py path/to/yours.py [stage]

It signs and verifies every token with the functions of your file, and says so on standard error, with the line. What your
file does not have (Key, explain, the command line) is minijwt's. `stage` is where you started, if not at the first.
"""

import functools
import os
import sys
import tempfile
import traceback
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import loader  # noqa: E402

import minijwt  # noqa: E402

SAYS = "* "  # before each line about the student's file


def told(function, verb):
    """Return `function`, which says on standard error what it has done, and raises minijwt's errors for yours."""

    def say(file, line, what):
        # sys.stderr is the server's log, which writes when it has time.
        print(f"{SAYS}{Path(file).name}, line {line}: {what}", file=sys.__stderr__, flush=True)

    @functools.wraps(function)
    def call(*arguments, **named):
        try:
            result = function(*arguments, **named)
        except Exception as error:
            place, kind = traceback.extract_tb(error.__traceback__)[-1], type(error).__name__
            say(place.filename, place.lineno, f"{place.name} raised {kind}")
            if issubclass(getattr(minijwt, kind, int), minijwt.PyJWTError):
                raise getattr(minijwt, kind)(str(error)) from error
            raise
        claims, code = result if isinstance(result, dict) else arguments[0], function.__code__
        say(code.co_filename, code.co_firstlineno, f"{function.__name__} {verb} a token with {', '.join(claims)}")
        return result

    return call


def in_place_of_minijwt(module):
    """Return a module like minijwt, which signs and verifies with the functions of `module`."""
    twin = types.ModuleType("minijwt")
    vars(twin).update({name: thing for name, thing in vars(minijwt).items() if not name.startswith("__")})
    twin.__version__ = minijwt.__version__
    encode, decode = told(module.encode, "signed"), told(module.decode, "believed")

    def decode_with(jwt, key, algorithms=("HS256",), options=None, **expected):
        if options:  # PyJWT's options are no part of the exercise; the server needs them to log out
            return minijwt.decode(jwt, key, algorithms, options, **expected)
        return decode(jwt, key.secret, algorithms, **expected)

    twin.encode = lambda payload, key: encode(payload, key.secret)
    twin.decode = decode_with
    twin.base64url_encode, twin.base64url_decode = module.base64url_encode, module.base64url_decode
    return twin


def main(argv):
    if not argv:
        sys.exit("exercise: which file is yours? python3 tests/exercise/serve.py mine.py")
    module = loader.load(Path(argv[0]).resolve(), int((argv[1:] or ["1"])[0]))
    sys.modules["minijwt"] = in_place_of_minijwt(module)
    import server

    with tempfile.TemporaryDirectory() as empty:  # where no .env takes the page and the demo user away
        os.chdir(empty)
        status = server.main([])
        os.chdir(HERE)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
