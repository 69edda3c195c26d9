import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadEvalId
from tasks.model.evaluation import Evaluation, parse_eval_id, printable_id

ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
SHA256 = "9f" * 32


@pytest.mark.parametrize("text", [ID, ID.upper(), ID.title(), str(UUID(int=0)), "f" * 8 + "-ffff" * 3 + "-" + "f" * 12])
def test_parse_eval_id_returns_lower_case(text: str) -> None:
    assert parse_eval_id(text) == text.lower()


@given(st.uuids())
def test_parse_eval_id_accepts_every_uuid(uuid: UUID) -> None:
    assert parse_eval_id(str(uuid)) == str(uuid)
    assert parse_eval_id(str(uuid).upper()) == str(uuid)


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fA-F٠-٩０-９-]{36}", fullmatch=True))  # noqa: RUF001  # digits of other scripts
def test_parse_eval_id_accepts_only_the_canonical_form(text: str) -> None:
    try:
        parsed = parse_eval_id(text)
    except BadEvalId:
        return
    assert parsed == str(UUID(parsed)) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{" + ID + "}", id="braces"),
        pytest.param("urn:uuid:" + ID, id="urn"),
        pytest.param(ID.replace("-", ""), id="no hyphens"),
        pytest.param(ID.replace("-", "_"), id="underscores"),
        pytest.param(" " + ID, id="blank before"),
        pytest.param(ID + " ", id="blank after"),
        pytest.param(ID + "\n", id="newline at the end"),
        pytest.param(ID[:-1] + "\n", id="newline as the last character"),
        pytest.param("\ufeff" + ID, id="byte order mark"),
        pytest.param(ID + "\0", id="NUL at the end"),
        pytest.param(ID[:-1] + "\0", id="NUL inside"),
        pytest.param(ID[:-1], id="too short"),
        pytest.param(ID + "0", id="too long"),
        pytest.param("g" + ID[1:], id="not a hex digit"),
        pytest.param("\uff10" + ID[1:], id="full-width digit"),
        pytest.param("\u0660" + ID[1:], id="Arabic digit"),
        pytest.param("\u0430" + ID[1:], id="Cyrillic a"),
        pytest.param("\u212a" + ID[1:], id="Kelvin sign"),
        pytest.param("\u0130" + ID[1:], id="a letter whose lower case is longer"),
        pytest.param(ID[:8] + "\u2010" + ID[9:], id="typographic hyphen"),
        pytest.param("-" + ID[:8] + ID[9:], id="hyphen in the wrong place"),
        pytest.param("../" + ID[3:], id="path"),
        pytest.param("\ud800" + ID[1:], id="half a surrogate pair"),
    ],
)
def test_parse_eval_id_refuses_a_text_that_is_not_an_id(text: str) -> None:
    with pytest.raises(BadEvalId) as caught:
        parse_eval_id(text)
    assert caught.value.why
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "name"), [(None, "NoneType"), (ID.encode(), "bytes"), (7, "int"), (UUID(ID), "UUID"), ([ID], "list")]
)
def test_parse_eval_id_refuses_other_types_without_repeating_the_value(value: object, name: str) -> None:
    with pytest.raises(BadEvalId) as caught:
        parse_eval_id(value)  # type: ignore[arg-type]
    assert caught.value.shown == f"<{name}>"
    assert ID not in str(caught.value)


def test_parse_eval_id_refuses_ten_megabytes_quickly_and_shortens_them() -> None:
    text = "0b54a4d4-" * 1_200_000
    before = time.process_time()
    for _ in range(100):
        with pytest.raises(BadEvalId) as caught:
            parse_eval_id(text)
    assert time.process_time() - before < 1.0, "each call examines only the beginning of the text"
    assert "10800000 characters" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", [f" {ID}", f"{ID}\n", f"\t{ID}\r\n", f"\u00a0{ID}"])
def test_parse_eval_id_reports_blanks_around_an_id(text: str) -> None:
    with pytest.raises(BadEvalId, match="spaces around it"):
        parse_eval_id(text)


def test_parse_eval_id_reports_an_empty_text() -> None:
    with pytest.raises(BadEvalId, match="it is empty"):
        parse_eval_id("")


@given(st.text())
def test_printable_id_returns_one_printable_line(text: str) -> None:
    clean = printable_id(text)
    assert clean.isprintable()
    assert len(clean) < 80


def test_printable_id_returns_a_short_harmless_text_unchanged() -> None:
    assert printable_id("Größe 7") == "Größe 7"


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x1b", "\u202e", "\u2028", "\ud800", "\x85"])
def test_printable_id_replaces_characters_that_could_fool_a_terminal(char: str) -> None:
    assert printable_id(f"a{char}b") == "a\ufffdb"


def test_printable_id_shortens_a_text_to_48_characters() -> None:
    assert printable_id("x" * 48) == "x" * 48
    assert printable_id("x" * 49) == "x" * 48 + "… (49 characters)"


def test_the_keys_of_an_evaluation_follow_the_archive_format() -> None:
    evaluation = Evaluation(ID, "production")
    assert evaluation.manifest_key == f"production/{ID}/manifest.json"
    assert evaluation.revision_key(3) == f"production/{ID}/revisions/3.json"
    assert evaluation.document_key("selfie", SHA256, "jpg") == f"production/{ID}/selfie/{SHA256}.jpg"
    assert evaluation.quarantine_key(SHA256) == f"quarantine/production/{ID}/{SHA256}.zip"


@pytest.mark.parametrize("base", ["https://riskos.example", "https://riskos.example/"])
def test_the_url_of_an_evaluation_has_no_double_slash(base: str) -> None:
    assert Evaluation(ID, "sandbox").url(base) == f"https://riskos.example/api/evaluation/{ID}/documents"
