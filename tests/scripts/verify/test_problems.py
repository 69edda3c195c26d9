from scripts.verify.problems import Difference, Problem


def test_a_forged_key_is_safe_to_print() -> None:
    facts = Difference("", "a\nb\x1b[31m\udcff", Problem.ORPHAN, "").facts()
    assert facts == {"eval_id": "", "key": "a�b�[31m�", "problem": "orphan", "detail": ""}
