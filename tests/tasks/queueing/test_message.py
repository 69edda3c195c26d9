import math
import re

import pytest

from tasks.errors import BadMessage, InvalidInput
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import Queue, Trigger
from tasks.model.outcome import Evidence
from tasks.queueing.message import MAX_BATCH, Message, parse_eval_ids, read_message

FIRST, SECOND = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "1c65b5e5-7f6c-4a4d-8e3b-8d2a1f9c0b21"


def read(queue: object = "live", **arguments: object) -> Message:
    return read_message(queue, (), {"eval_ids": [FIRST]} | arguments)


def test_a_message_needs_only_ids() -> None:
    assert read() == Message(
        eval_ids=(FIRST,), bad=(), queue=Queue.LIVE, accepted=False, refresh=False, trigger=Trigger("message")
    )


def test_a_message_may_have_a_refresh_and_a_run() -> None:
    message = read("backfill", eval_ids=[FIRST, SECOND], refresh=True, run="2026-q3")
    assert message == Message(
        eval_ids=(FIRST, SECOND),
        bad=(),
        queue=Queue.BACKFILL,
        accepted=False,
        refresh=True,
        trigger=Trigger("message", run="2026-q3"),
    )


def test_a_message_may_name_an_account() -> None:
    assert (read().account, read(account="kyb").account) == (None, "kyb")


@pytest.mark.parametrize("account", [7, ["kyb"], {"kyb": 1}, True])
def test_an_account_that_is_not_a_text_is_refused(account: object) -> None:
    with pytest.raises(BadMessage, match="account must be the name of an account, as a text"):
        read(account=account)


@pytest.mark.parametrize("settle", [0, 0.5, 30, 86_400])
def test_a_message_may_have_a_delay(settle: float) -> None:
    assert (read().settle_seconds, read(settle=settle).settle_seconds) == (0.0, settle)


@pytest.mark.parametrize("settle", [-1, 86_401, 10**400, math.nan, math.inf, "30", "30s", True, None, [30]])
def test_a_delay_that_is_not_a_number_of_seconds_is_refused(settle: object) -> None:
    with pytest.raises(BadMessage, match="settle must be a number of seconds from 0 to 86400"):
        read(settle=settle)


def test_a_message_may_have_evidence() -> None:
    facts = {
        FIRST.upper(): {"document_type": "Military ID", "reason_codes": ["I100", "R844"]},
        SECOND: {"document_type": "Passport", "event_at": "2026-01-31T13:00:00+01:00"},
    }
    assert read(eval_ids=[FIRST, SECOND], evidence=facts).facts == {
        FIRST: EvaluationFacts((Evidence.MILITARY_ID, Evidence.UNDER_AGE)),
        SECOND: EvaluationFacts((), 1_769_860_800.0),
    }
    assert read().facts == read(evidence={}).facts == {}
    assert read(evidence={FIRST: {"document_type": None, "reason_codes": None}}).facts == {FIRST: EvaluationFacts()}


SHAPE = "expected IDs of eval_ids, each with an object of document_type, reason_codes and event_at"


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        *((value, SHAPE) for value in (None, [], "text", 7, {FIRST: 7}, {FIRST: None}, {FIRST: {"type": "Military"}})),
        *(
            ({FIRST: {"document_type": value}}, "document_type must be a text")
            for value in (7, ["Military"], "x" * 201)
        ),
        *(
            ({FIRST: {"reason_codes": value}}, "reason_codes must be a list of at most 100 texts")
            for value in ("R844", {"R844": 1}, [844], ["x" * 101], ["R844"] * 101)
        ),
        *(
            ({FIRST: {"event_at": value}}, "event_at must be an RFC 3339 time with a zone")
            for value in ("yesterday", 1_769_860_800, "2026-01-31T12:00:00", "2026-01-31", "9999-12-31T23:59:59Z", "")
        ),
        ({FIRST: {}, SECOND: {}, "no-id": {}}, "2 of its IDs are not in eval_ids"),
        ({FIRST: {}, FIRST.upper(): {}}, "it repeats an evaluation"),
    ],
)
def test_evidence_of_another_shape_is_refused_without_repeating_it(evidence: object, why: str) -> None:
    with pytest.raises(BadMessage, match=f"evidence: {re.escape(why)}") as refused:
        read(evidence=evidence)
    assert "\n" not in str(refused.value)
    assert FIRST not in str(refused.value)


def test_evidence_about_a_bad_id_is_dropped_with_it() -> None:
    message = read(eval_ids=[FIRST, "no-id"], evidence={"no-id": {"document_type": "Military"}})
    assert (message.facts, len(message.bad)) == ({}, 1)


def test_a_message_of_our_publisher_is_marked_as_accepted() -> None:
    assert read(accepted=True).accepted


def test_a_duplicate_id_in_a_message_counts_once() -> None:
    assert read(eval_ids=[FIRST, SECOND, FIRST.upper()]).eval_ids == (FIRST, SECOND)


def test_the_good_ids_of_a_message_are_kept_if_others_are_bad() -> None:
    message = read(eval_ids=["", FIRST, None, 7, ["x"], {"a": 1}, b"bytes", SECOND])
    assert message.eval_ids == (FIRST, SECOND)
    assert [bad.shown for bad in message.bad] == ["", "<NoneType>", "<int>", "<list>", "<dict>", "<bytes>"]


def test_a_message_with_only_bad_ids_has_no_ids() -> None:
    message = read(eval_ids=["nonsense"])
    assert message.eval_ids == ()
    assert len(message.bad) == 1


@pytest.mark.parametrize("count", [1, MAX_BATCH])
def test_a_message_has_at_most_a_hundred_ids(count: int) -> None:
    eval_ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(count)]
    assert read(eval_ids=eval_ids).eval_ids == tuple(eval_ids)


@pytest.mark.parametrize(
    "eval_ids", [[], [FIRST] * 101, FIRST, None, {FIRST: 1}, (FIRST,), 7], ids=lambda each: type(each).__name__
)
def test_a_message_without_a_valid_list_of_ids_is_refused(eval_ids: object) -> None:
    with pytest.raises(BadMessage, match="list of 1 to 100"):
        read(eval_ids=eval_ids)


def test_a_message_without_ids_is_refused() -> None:
    with pytest.raises(BadMessage, match="eval_ids"):
        read_message("live", (), {})


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(BadMessage, match="keyword arguments"):
        read_message("live", ([FIRST],), {})


def test_unknown_arguments_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadMessage, match="1 unknown argument") as caught:
        read(first_name_of_a_person="Ada")
    assert "person" not in str(caught.value)
    assert "eval_ids" in str(caught.value)


@pytest.mark.parametrize("queue", ["celery", "LIVE", "", None, 7, ["live"]])
def test_a_message_from_an_unknown_queue_is_refused(queue: object) -> None:
    with pytest.raises(BadMessage, match="live, backfill"):
        read(queue)


@pytest.mark.parametrize("flag", ["accepted", "refresh"])
@pytest.mark.parametrize("value", [None, 0, 1, "true", "false", []])
def test_a_flag_that_is_not_a_boolean_is_refused(flag: str, value: object) -> None:
    with pytest.raises(BadMessage, match=f"{flag} must be true or false"):
        read(**{flag: value})


def test_a_message_has_the_name_of_its_run() -> None:
    assert read(run="2026-q3").trigger.run == "2026-q3"


@pytest.mark.parametrize("name", ["", "a b", 7, ["a"]])
def test_a_message_with_a_bad_run_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidInput):
        read(run=name)


def test_ids_are_sorted_into_good_and_bad_in_their_order() -> None:
    good, bad = parse_eval_ids([SECOND, "one", FIRST, SECOND, "two"])
    assert good == (SECOND, FIRST)
    assert [each.shown for each in bad] == ["one", "two"]
