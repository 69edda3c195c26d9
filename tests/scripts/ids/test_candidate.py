"""Candidates for IDs: accepted, corrected or refused."""

from uuid import UUID

import pytest

from scripts.ids.candidate import BadCandidate, is_id, parse_candidate
from tasks.errors import BadEvalId


def test_an_id_is_made_canonical(eval_id: str) -> None:
    assert parse_candidate(eval_id.upper()) == eval_id


def test_a_line_that_is_flawed_keeps_its_own_reason() -> None:
    with pytest.raises(BadEvalId, match="is not a valid evaluation ID: it is longer than 1 MiB") as refused:
        parse_candidate(BadCandidate("x" * 1000, "it is longer than 1 MiB"))
    assert len(refused.value.shown) < 100


def test_blanks_around_an_id_in_a_file_do_not_hide_it(eval_id: str) -> None:
    assert is_id(f" {eval_id}\t")
    assert not is_id(f"\u00a0{eval_id}")
    assert not is_id(UUID(eval_id).hex)


@pytest.mark.parametrize("form", ['="{}"', "{{{}}}", '="{{{}}}"', '= "{}"', "{{ {} }}", '="{} "'])
def test_an_id_in_braces_or_in_a_formula_is_read(eval_id: str, form: str) -> None:
    assert is_id(form.format(eval_id))
    assert parse_candidate(form.format(eval_id.upper())) == eval_id


@pytest.mark.parametrize("form", ['="{}', "{{{}", "{}}}", '{{="{}"}}', '"{}"', '={}"', "{{{{{}}}}}", "({})"])
def test_half_a_pair_is_not_taken_off_and_the_text_is_shown_as_it_was(eval_id: str, form: str) -> None:
    with pytest.raises(BadEvalId) as refused:
        parse_candidate(form.format(eval_id))
    assert refused.value.shown == form.format(eval_id)
