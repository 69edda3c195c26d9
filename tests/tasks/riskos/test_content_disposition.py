import base64
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tasks.riskos.content_disposition import names_other_evaluation

OWN_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
OTHER_ID = "ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def percent(text: str, charset: str = "ascii") -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(charset))


def encoded_word(text: str, charset: str, named: str | None = None) -> str:
    return f"=?{named or charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


def bare(eval_id: str) -> str:
    return eval_id.replace("-", "")


FORMS: dict[str, Callable[[str], str]] = {
    "a plain name": lambda each: f"attachment; filename={each}_document.zip",
    "upper case": lambda each: f"attachment; filename={each.upper()}_document.zip",
    "no hyphens": lambda each: f"attachment; filename={bare(each)}.zip",
    "no hyphens, digits next to it": lambda each: f"attachment; filename=doc_{bare(each)}_document.zip",
    "no hyphens, no gap before it": lambda each: f"attachment; filename=doc{bare(each)}.zip",
    "no hyphens, no gap after it": lambda each: f"attachment; filename={bare(each)}document.zip",
    "one hyphen": lambda each: f"attachment; filename={bare(each)[:8]}-{bare(each)[8:]}.zip",
    "underscores": lambda each: f"attachment; filename={each.replace('-', '_')}_document.zip",
    "spaces": lambda each: f'attachment; filename="{each.replace("-", " ")}.zip"',
    "braces": lambda each: f'attachment; filename="{{{each}}}.zip"',
    "typographic hyphens": lambda each: f"attachment; filename={each.replace('-', chr(0x2011))}.zip",
    "an extended name": lambda each: f"attachment; filename=bundle.zip; filename*=UTF-8''{bare(each).upper()}.zip",
    "an extended name with a language": lambda each: f"attachment; filename*=utf-8'en'{percent(each)}",
    "an extended name in UTF-16": lambda each: f"attachment; filename*=utf-16''{percent(each, 'utf-16')}",
    "an extended name in EBCDIC": lambda each: f"attachment; filename*=cp037''{percent(each, 'cp037')}",
    "an extended name in UTF-7": lambda each: f"attachment; filename*=utf-7''{each.replace('-', '+AC0-')}",
    "an extended name in an unknown charset": lambda each: f"attachment; filename*=no-such''{each}",
    "an extended name in an absurd charset": lambda each: f"attachment; filename*=idna''{each}%ff",
    "continuations": lambda each: f"attachment; filename*0={each[:20]}; filename*1={each[20:]}.zip",
    "continuations out of order": lambda each: f"attachment; FILENAME*1={each[20:]}; filename*0={each[:20]}",
    "extended continuations": lambda each: (
        f"attachment; filename*0*=UTF-8''{each[:9]}; filename*1={each[9:20]}; filename*2*={percent(each[20:])}.zip"
    ),
    "an encoded word": lambda each: f'attachment; filename="{encoded_word(each, "utf-8")}"',
    "an encoded word in UTF-16": lambda each: f'attachment; filename="{encoded_word(each, "utf-16")}"',
    "an encoded word in an unknown charset": lambda each: (
        f'attachment; filename="{encoded_word(each, "ascii", "none")}"'
    ),
    "an encoded word with a language": lambda each: f'attachment; filename="{encoded_word(each, "ascii", "utf-8*en")}"',
    "an encoded word without quotes": lambda each: f"attachment; filename=={'?utf-8?Q?'}{each.replace('-', '=2D')}?=",
    "two encoded words": lambda each: f'attachment; filename="=?utf-8?Q?{each[:20]}?= =?utf-8?Q?{each[20:]}?="',
    "an encoded word in percents": lambda each: f"attachment; filename*=UTF-8''{quote(encoded_word(each, 'utf-8'))}",
    "percents in a plain name": lambda each: f'attachment; filename="{each.replace("-", "%2D")}.zip"',
    "percents in percents": lambda each: f'attachment; filename="{each.replace("-", "%252D")}.zip"',
    "escapes": lambda each: f'attachment; filename="{"".join(chr(92) + digit for digit in each)}.zip"',
    "another parameter": lambda each: f"attachment; filename=bundle.zip; name={each}",
    "the first of two names": lambda each: f"attachment; filename={each}.zip; filename=bundle.zip",
    "no parameter": lambda each: each,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_names_other_evaluation_finds_another_id_in_every_form_but_not_its_own(form: Callable[[str], str]) -> None:
    assert names_other_evaluation(form(OTHER_ID), OWN_ID)
    assert not names_other_evaluation(form(OWN_ID), OWN_ID)


@pytest.mark.parametrize("between", ["_", "", " ", "-document-"])
def test_names_other_evaluation_finds_another_id_next_to_its_own(between: str) -> None:
    assert names_other_evaluation(f'attachment; filename="{OWN_ID}{between}{OTHER_ID}.zip"', OWN_ID)
    assert names_other_evaluation(f'attachment; filename="{bare(OTHER_ID)}{between}{OWN_ID}.zip"', OWN_ID)
    assert names_other_evaluation(f"attachment; filename={OWN_ID}.zip; filename*=UTF-8''{bare(OTHER_ID)}.zip", OWN_ID)


@pytest.mark.parametrize(
    "disposition",
    [
        "",
        "attachment",
        ";;;=;",
        "attachment; filename=bundle.zip",
        f"attachment; filename={'ab' * 32}.zip",
        f"attachment; filename={'ab' * 20}.zip",
        "attachment; filename=2026-01-31_12-00-00.000_bundle.zip",
        "attachment; filename=0b54a4d4-6e5b.zip",
        "attachment; filename=b\udcfcndel.zip",
    ],
)
def test_names_other_evaluation_is_false_when_there_is_no_id(disposition: str) -> None:
    assert not names_other_evaluation(disposition, OWN_ID)


@pytest.mark.parametrize(
    "part", ["=?utf-8?Q?", "%25", "f-", "a;", "\\%", "0-", '"', "=?a?b?", ";filename*1*=punycode''%61"]
)
def test_names_other_evaluation_is_false_for_a_long_header_of_repeated_parts(part: str) -> None:
    padding = part * (8_000 // len(part))
    assert not names_other_evaluation(f"attachment; filename={padding}", OWN_ID)
