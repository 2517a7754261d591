"""Room 2: base64url has one spelling for each string of bytes."""

import pytest
from vectors import ALPHABET, BASE64_FIGURES, WIDE_HEADER, WIDE_PAYLOAD, base64url, of, outcome, token

import minijwt as jwt


@pytest.mark.parametrize("raw, segment", BASE64_FIGURES)
def test_the_figures_of_the_rfcs_hold_both_ways(raw, segment):
    assert jwt.base64url_encode(raw) == segment
    assert jwt.base64url_decode(segment) == raw


@pytest.mark.parametrize("raw, segment", BASE64_FIGURES)
def test_the_figures_of_the_rfcs_hold_for_our_own_signer(raw, segment):
    assert base64url(raw).encode() == segment


def test_every_byte_and_every_length_goes_there_and_back():
    for length in range(258):
        raw = bytes(range(256))[:length] + b"\xff" * (length - 256)
        assert jwt.base64url_encode(raw) == base64url(raw).encode()
        assert jwt.base64url_decode(jwt.base64url_encode(raw)) == raw


def test_of_all_two_letter_segments_one_in_sixteen_stands_for_a_byte():
    def reads(segment):
        try:
            return jwt.base64url_decode(segment)
        except jwt.DecodeError:
            return None

    pairs = {bytes([first, second]): reads(bytes([first, second])) for first in range(128) for second in range(128)}
    read = {segment: raw for segment, raw in pairs.items() if raw is not None}
    assert sorted(read.values()) == [bytes([byte]) for byte in range(256)]
    assert all(chr(letter) in ALPHABET for segment in read for letter in segment)


def test_the_segments_that_get_spoilt_can_show_each_fault():
    for segment in token(WIDE_PAYLOAD, WIDE_HEADER).split("."):
        assert "-" in segment or "_" in segment  # or the other alphabet would not show
        assert len(segment) % 4 in (2, 3)  # or there would be no stray bits


@pytest.mark.parametrize(**of("base64url"))
def test_a_token_has_one_spelling(vector):
    assert outcome(vector) == vector.expected
