"""Store: one contract for MemoryStore and SQLiteStore. What is SQLite's alone stands in the file of its room."""

import inspect
import itertools

import pytest
import server
import serverkit
from serverkit import NOW, Clock, new_store
from sessionkit import DAY, WEEK, in_threads

FAR = NOW + DAY
VERBS = [name for name in vars(server.Store) if not name.startswith("_")]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "SQLite"])
def store(request, monkeypatch, clock):
    monkeypatch.setattr(serverkit, "kinds", [request.param])
    return new_store(clock)


def told(store, name="ann", sid="s", expires=FAR):
    """What the store says about a user and a session; where nothing is known, falsehood has several forms."""
    said = store.look_up(name, sid, expires)
    return said._replace(any_user=bool(said.any_user), rotated=said.rotated or 0.0, ended=bool(said.ended))


def session(store, sid="s", expires=FAR):
    said = told(store, sid=sid, expires=expires)
    return said.generation, said.rotated, said.ended


def done(store, verb, *arguments):
    """Call a verb as the write lane does."""
    (result,) = store.batch([lambda: getattr(store, verb)(*arguments)])
    return result


def in_racing_threads(store, count, function):
    def one(number):
        result = function(number)
        store.close()
        return result

    return in_threads(count, one)


@pytest.mark.parametrize("kind", [server.MemoryStore, server.SQLiteStore])
def test_both_stores_have_every_verb_with_the_parameters_of_the_protocol(kind):
    assert len(VERBS) >= 15
    for name in VERBS:
        wanted, found = (inspect.signature(getattr(each, name)) for each in (server.Store, kind))
        assert str(found.parameters) == str(wanted.parameters), name
    assert kind.inline_reads is True


# -- users


def test_of_an_empty_store_nothing_is_known(store):
    assert store.user_names() == []
    assert told(store) == (None, None, False, 0, None, 0.0, False)


def test_a_user_is_added_once_and_the_first_one_stays(store):
    assert store.add_user("ann", "p", "e") is True
    assert store.add_user("ann", "other", "other") is False
    assert told(store)[:3] == ("p", "e", True)
    assert told(store, "bob")[:3] == (None, None, True)


def test_names_are_listed_in_the_order_of_their_characters(store):
    names = ["", "A", "B", "a", "ab", "b", "\xe4", "\u738b", "\uffee", "\U0001f600"]
    for name in names[::-1]:
        assert store.add_user(name, "p", "e")
    assert store.user_names() == names


def test_a_changed_password_comes_with_another_epoch(store):
    assert store.change_password("ann", "q", "f") is False
    store.add_user("ann", "p", "e")
    store.add_user("bob", "p", "e")
    assert store.change_password("ann", "q", "f") is True
    assert (told(store, "ann")[:2], told(store, "bob")[:2]) == (("q", "f"), ("p", "e"))


def test_a_password_can_be_changed_only_if_the_old_one_is_still_there(store):
    store.add_user("ann", "p", "e")
    assert store.change_password("ann", "q", "f", "p") is True
    assert store.change_password("ann", "r", "g", "p") is False
    assert told(store)[:2] == ("q", "f")
    assert store.change_password("bob", "q", "f", "p") is False
    assert store.user_names() == ["ann"]


def test_a_rehash_keeps_the_epoch_and_undoes_no_change(store):
    store.add_user("ann", "p", "e")
    store.rehash("ann", "p", "stronger")
    assert told(store)[:2] == ("stronger", "e")
    store.rehash("ann", "p", "late")
    store.rehash("bob", "p", "nobody's")
    assert told(store)[:2] == ("stronger", "e") and store.user_names() == ["ann"]


def test_a_new_epoch_leaves_the_password(store):
    assert store.replace_epoch("ann", "f") is False
    store.add_user("ann", "p", "e")
    assert store.replace_epoch("ann", "f") is True
    assert told(store)[:2] == ("p", "f")


def test_a_removed_user_is_gone_and_can_be_added_again(store):
    assert store.remove_user("ann") is False
    store.add_user("ann", "p", "e")
    assert store.remove_user("ann") is True
    assert told(store)[:3] == (None, None, False)
    assert store.remove_user("ann") is False
    assert store.add_user("ann", "q", "f") is True


# -- sessions


def test_a_session_begins_without_a_row_or_with_one(store):
    assert session(store) == (None, 0.0, False)
    done(store, "add_session", "s", FAR)
    assert session(store) == (0, 0.0, False)


def test_each_generation_is_advanced_once(store):
    assert done(store, "rotate_session", "s", 0, FAR, NOW) is True
    assert session(store) == (1, NOW, False)
    assert done(store, "rotate_session", "s", 0, FAR, NOW + 1) is False
    assert done(store, "rotate_session", "s", 1, FAR, NOW + 2) is True
    assert session(store) == (2, NOW + 2, False)
    assert session(store, "another") == (None, 0.0, False)


def test_a_session_that_was_begun_is_advanced_as_one_without_a_row(store):
    done(store, "add_session", "s", FAR)
    assert done(store, "rotate_session", "s", 0, FAR, NOW) is True
    assert session(store) == (1, NOW, False)


@pytest.mark.parametrize("generation", [1, 2, 7])
def test_a_generation_that_was_never_given_out_is_not_advanced(store, generation):
    assert done(store, "rotate_session", "s", generation, FAR, NOW) is False
    assert session(store) == (None, 0.0, False)
    done(store, "add_session", "s", FAR)
    assert done(store, "rotate_session", "s", generation, FAR, NOW) is False
    assert session(store) == (0, 0.0, False)


def test_a_session_that_has_ended_is_never_advanced(store):
    done(store, "rotate_session", "s", 0, FAR, NOW)
    done(store, "end_session", "s", FAR)
    assert session(store) == (1, NOW, True)
    assert done(store, "rotate_session", "s", 1, FAR, NOW) is False
    done(store, "end_session", "s", FAR)
    assert session(store) == (1, NOW, True)


def test_a_session_without_a_row_can_end(store):
    done(store, "end_session", "s", FAR)
    assert session(store)[2] is True
    assert done(store, "rotate_session", "s", 0, FAR, NOW) is False


# -- what has expired is forgotten, and that this was done is not


def ended(store, ends):
    return [name for name in ends if session(store, name, ends[name])[2]]


def test_only_what_has_expired_is_forgotten_and_in_small_steps(store, clock, monkeypatch):
    monkeypatch.setattr(server, "PRUNE_ROWS", 10)
    ends = {f"{number}": NOW + 10 for number in range(25)}
    store.batch([lambda name=name: store.end_session(name, ends[name]) for name in ends])
    for seconds, left in ((9, 25), (10, 15), (10, 5), (10, 0), (10, 0)):
        clock.now = NOW + seconds
        done(store, "rotate_session", "living", (session(store, "living")[0] or 0), FAR, NOW)
        assert len(ended(store, ends)) == left
        assert told(store).pruned == (NOW + 10 if left < 25 else 0)
    assert session(store, "living")[0] == 5


def test_those_that_ended_first_are_forgotten_first(store, clock, monkeypatch):
    monkeypatch.setattr(server, "PRUNE_ROWS", 1)
    ends = {"late": NOW + 30, "early": NOW + 10, "middle": NOW + 20}
    store.batch([lambda name=name: store.end_session(name, ends[name]) for name in ends])
    clock.now += 100
    for left, pruned in ((["late", "middle"], NOW + 10), (["late"], NOW + 20), ([], NOW + 30)):
        done(store, "end_session", f"living until {pruned}", FAR)
        assert (ended(store, ends), told(store).pruned) == (left, pruned)


def test_the_end_that_was_forgotten_is_remembered_when_the_clock_goes_back(store, clock):
    done(store, "end_session", "s", NOW + WEEK)
    clock.now += 2 * WEEK
    done(store, "end_session", "other", NOW + 3 * WEEK)
    assert (session(store, "s", NOW + WEEK)[0], told(store).pruned) == (None, NOW + WEEK)
    clock.now = NOW
    done(store, "end_session", "again", NOW + DAY)
    clock.now = NOW + DAY
    done(store, "end_session", "another", NOW + WEEK)
    assert (session(store, "again", NOW + DAY)[0], told(store).pruned) == (None, NOW + WEEK), "it never shrinks"


def test_a_session_that_was_begun_in_spite_of_a_later_pruned_one_is_known(store, clock):
    clock.now += WEEK
    done(store, "end_session", "old", NOW)
    done(store, "end_session", "other", NOW + 2 * WEEK)
    clock.now = NOW - DAY
    done(store, "add_session", "s", NOW - 1)
    assert session(store, "s", NOW - 1)[0] == 0 and told(store).pruned >= NOW


def test_to_ask_forgets_nothing(store, clock):
    done(store, "end_session", "s", NOW + 10)
    clock.now += WEEK
    for _ in range(3):
        assert session(store, "s", NOW + 10)[2] and told(store).pruned == 0


# -- attempts to log in


def count(store, key=b"k", now=NOW, limit=3):
    return store.count_login_attempt(key, now, limit)


def test_from_the_limit_on_each_attempt_makes_the_next_one_wait(store):
    assert [count(store) for _ in range(5)] == [0, 0, 0, 30, 30]
    now = NOW
    for wait in (30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600):
        assert count(store, now=now) == wait
        now += wait
        assert count(store, now=now - 0.5) == 0.5
        assert count(store, now=now) == 0


def test_to_be_turned_away_is_not_counted(store):
    for _ in range(3):
        count(store)
    assert {count(store, now=NOW + 29) for _ in range(100)} == {1}
    assert count(store, now=NOW + 30) == 0
    assert count(store, now=NOW + 30) == 60


def test_each_key_is_counted_alone_and_can_be_forgiven(store):
    assert [count(store, key) for key in (b"a", b"b") * 4] == [0] * 6 + [30] * 2
    store.clear_login_attempts(b"a")
    store.clear_login_attempts(b"nobody's")
    assert (count(store, b"a"), count(store, b"b")) == (0, 30)
    assert [count(store, b"a") for _ in range(3)] == [0, 0, 30]


def test_attempts_are_forgotten_after_a_day(store):
    assert [count(store) for _ in range(2)] == [0, 0]
    later = NOW + server.FORGET_SECONDS + 1
    assert [count(store, now=later) for _ in range(4)] == [0, 0, 0, 30], "the two of yesterday do not count"


@pytest.mark.parametrize("seconds", [10, 3_600, DAY, WEEK, 20 * 365 * DAY])
@pytest.mark.parametrize("attempts", [3, 10, 20])
def test_after_a_clock_that_goes_back_no_wait_is_longer_than_the_longest(store, attempts, seconds):
    now = NOW
    for _ in range(attempts):
        now += count(store, now=now)
    now -= seconds
    wait = count(store, now=now)
    assert 0 <= wait <= server.LAST_WAIT_SECONDS
    assert wait == 0 or count(store, now=now + wait) == 0


def test_they_are_bounded_and_the_oldest_go_first(store, monkeypatch):
    monkeypatch.setattr(server, "MAX_ATTEMPT_ROWS", 50)
    for _ in range(3):
        count(store, b"first")
    for number in range(200):
        count(store, f"{number}".encode(), NOW + 1 + number / 1_000)
    assert count(store, b"first", NOW + 2) == 0, "it was the oldest"
    assert [count(store, b"199", NOW + 2) for _ in range(3)] == [0, 0, 29 + 1], "it was the youngest"


def test_an_attempt_makes_an_old_key_the_youngest(store, monkeypatch):
    monkeypatch.setattr(server, "MAX_ATTEMPT_ROWS", 50)
    for number in range(200):
        count(store, f"{number}".encode(), NOW + number)
        waits = count(store, b"busy", NOW + number + 0.5)
    assert waits > 0, "it is counted all the time"


def test_a_full_table_counts_after_the_clock_went_back(store, monkeypatch):
    monkeypatch.setattr(server, "MAX_ATTEMPT_ROWS", 50)
    for number in range(100):
        count(store, f"{number}".encode(), NOW + number)
    assert [count(store, now=NOW - 3_600) for _ in range(4)] == [0, 0, 0, 30]


# -- batches and snapshots


def test_a_batch_returns_all_results_in_order_and_each_work_sees_those_before_it(store):
    works = [
        lambda: store.add_user("ann", "p", "e"),
        lambda: store.add_user("ann", "p2", "e2"),
        lambda: store.user_names(),
        lambda: store.rotate_session("s", 0, FAR, NOW),
        lambda: store.rotate_session("s", 0, FAR, NOW),
        lambda: store.look_up("ann", "s", FAR).generation,
        lambda: count(store),
        lambda: store.end_session("s", FAR),
    ]
    assert store.batch(works) == [True, False, ["ann"], True, False, 1, 0, None]
    assert session(store) == (1, NOW, True)
    assert store.batch([]) == []


@pytest.mark.parametrize("several", [False, True])
def test_who_only_reads_can_do_so_and_a_verb_that_may_not_write_there_asks_for_another_thread(store, several):
    store.add_user("ann", "p", "e")
    with store.reading(several):
        assert store.user_names() == ["ann"] and told(store)[:2] == ("p", "e")
        try:
            wrote = store.rotate_session("s", 0, FAR, NOW)
        except server.Redo:
            wrote = False
        assert told(store)[:2] == ("p", "e")
    assert session(store) == ((1, NOW, False) if wrote else (None, 0.0, False))
    assert store.rotate_session("t", 0, FAR, NOW) is True, "and afterwards all is as before"


def test_a_store_that_was_closed_is_opened_again_by_the_next_verb(store):
    store.add_user("ann", "p", "e")
    for _ in range(2):
        store.close()
        assert store.user_names() == ["ann"]


# -- threads

COUNT = 30


def test_of_threads_that_advance_one_generation_one_succeeds(store):
    for generation in range(3):
        found = in_racing_threads(store, COUNT, lambda number: store.rotate_session("s", generation, FAR, NOW))
        assert sorted(found) == [False] * (COUNT - 1) + [True]
    assert session(store) == (3, NOW, False)


def test_however_threads_race_a_session_that_has_ended_stays_so(store):
    for name in "abcde":

        def one(number, name=name):
            if number == COUNT // 2:
                return store.end_session(name, FAR)
            return [store.rotate_session(name, generation, FAR, NOW) for generation in range(3)]

        found = in_racing_threads(store, COUNT, one)
        advanced = [sum(made) for made in zip(*(each for each in found if each))]
        assert set(advanced) <= {0, 1}, "no generation twice"
        generation, _, has_ended = session(store, name)
        assert has_ended and (generation or 0) == sum(advanced)
        assert store.rotate_session(name, generation or 0, FAR, NOW) is False


def test_threads_that_guess_get_no_more_attempts_than_are_allowed(store):
    waits = in_racing_threads(store, COUNT, lambda number: count(store, limit=10))
    assert sorted(waits) == [0] * 10 + [30] * (COUNT - 10)


def test_of_threads_that_add_or_change_one_user_one_succeeds(store):
    found = in_racing_threads(store, COUNT, lambda number: store.add_user("ann", "p", f"{number}"))
    assert sorted(found) == [False] * (COUNT - 1) + [True]
    found = in_racing_threads(store, COUNT, lambda number: store.change_password("ann", f"{number}", "f", "p"))
    assert told(store)[:2] == (str(found.index(True)), "f")
    assert sorted(found) == [False] * (COUNT - 1) + [True]


def test_batches_of_one_thread_and_verbs_of_others_leave_each_other_whole(store):
    numbers = itertools.count()

    def one(number):
        if number % 2:
            return [store.rotate_session(f"{number} {turn}", 0, FAR, NOW) for turn in range(5)]
        names = [f"batch {next(numbers)}" for _ in range(5)]
        return store.batch([lambda name=name: store.rotate_session(name, 0, FAR, NOW) for name in names])

    assert in_racing_threads(store, 10, one) == [[True] * 5] * 10
    assert session(store, "batch 24") == (1, NOW, False)
