"""Candidates for IDs: accepted, corrected or refused."""

from uuid import UUID

import pytest

from scripts.ids.candidate import BadCandidate, is_id, parse_candidate
from tasks.errors import BadEvalId


def test_parse_candidate_returns_the_canonical_id(eval_id: str) -> None:
    assert parse_candidate(eval_id.upper()) == eval_id


def test_a_bad_candidate_keeps_its_reason() -> None:
    with pytest.raises(BadEvalId, match="is not a valid evaluation ID: it is longer than 1 MiB") as refused:
        parse_candidate(BadCandidate("x" * 1000, "it is longer than 1 MiB"))
    assert len(refused.value.shown) < 100


def test_is_id_ignores_ascii_blanks_around_an_id(eval_id: str) -> None:
    assert is_id(f" {eval_id}\t")
    assert not is_id(f"\u00a0{eval_id}")
    assert not is_id(UUID(eval_id).hex)


@pytest.mark.parametrize("form", ['="{}"', "{{{}}}", '="{{{}}}"', '= "{}"', "{{ {} }}", '="{} "'])
def test_an_id_in_braces_or_in_a_formula_is_accepted(eval_id: str, form: str) -> None:
    assert is_id(form.format(eval_id))
    assert parse_candidate(form.format(eval_id.upper())) == eval_id


@pytest.mark.parametrize("form", ['="{}', "{{{}", "{}}}", '{{="{}"}}', '"{}"', '={}"', "{{{{{}}}}}", "({})"])
def test_an_id_with_unmatched_braces_or_quotes_is_refused(eval_id: str, form: str) -> None:
    with pytest.raises(BadEvalId) as refused:
        parse_candidate(form.format(eval_id))
    assert refused.value.shown == form.format(eval_id)
