"""Scenarios of the simulator: the ID of an evaluation determines how RiskOS answers.

    d0c50402-0000-4000-8000-00000000002a
    ──┬───┬─                ─────┬──────
      │   └ the scenario, here   └ the number of the evaluation
      │     RATE_LIMITED_DATE
      └ "docs": the mark of the simulator

The first two digits of a scenario are its family, as in the sections below. An ID without the mark is
an evaluation with documents, in a layout that the bytes of the ID choose.
"""

import enum
import re
import uuid

_LAYOUT_FAMILY, _BAD_BUNDLE_FAMILY = 0x01, 0x08
_FORM = re.compile(r"d0c5([0-9a-f]{4})-0000-4000-8000-[0-9a-f]{12}")


class Scenario(enum.Enum):
    """How RiskOS behaves when it is asked for one evaluation."""

    # 01: there are documents, and the bundle is laid out in one of the known ways.
    DOCUMENTED = 0x0101
    """The layout of the documentation: front, back and selfie in two folders."""
    EXTENSIONLESS = 0x0102
    """Names without an extension, one with an apostrophe."""
    FLAT = 0x0103
    """The documented names without folders."""
    OLDER_NAMES = 0x0104
    """The names of older evaluations."""
    SECOND_SUBMISSION = 0x0105
    """Front and back were captured twice; the second capture carries a ``_2_``."""
    PASSPORT = 0x0106
    """A passport: the front and the selfie, no back."""
    ATTACHMENTS = 0x0107
    """Front, back, selfie and case attachments of several types."""
    STREAMED = 0x0108
    """Written as a stream: sizes and CRC follow each member in a data descriptor."""
    STORED = 0x0109
    """The members are not compressed."""
    FOLDER_ENTRIES = 0x010A
    """The folders are members too, without content."""
    UNKNOWN_NAMES = 0x010B
    """A document whose name fits no pattern."""
    SAME_BYTES_TWICE = 0x010C
    """Two names with the same content."""

    # 02: there are no documents: status 400 with one of the known bodies.
    NO_DOCUMENTS = 0x0201
    """``message``: the documented shape."""
    NO_DOCUMENTS_NESTED = 0x0202
    """``msg.msg``, with a lower-case "found"."""
    NO_DOCUMENTS_PLAIN_MSG = 0x0203
    """``msg`` as a plain string."""
    NO_DOCUMENTS_LONG = 0x0204
    """``error``, ``code``, ``message``, ``details`` and ``invalid_args``."""
    NO_DOCUMENTS_SHORT = 0x0205
    """``error`` alone."""
    NO_DOCUMENTS_UNSUPPORTED = 0x0206
    """The second known text: the type of document is not supported."""
    NO_DOCUMENTS_MILITARY = 0x0207
    """The evaluation's record says that it was a military ID."""
    NO_DOCUMENTS_MINOR = 0x0208
    """The record has the reason code for persons under 18."""
    NO_DOCV_STEP = 0x0209
    """The record lists other steps than DocV."""
    NOT_COMPLETE = 0x020A
    """The record says that the evaluation has not ended."""

    # 03: other endings.
    NOT_FOUND = 0x0301
    """404: RiskOS does not know the evaluation."""
    REJECTED = 0x0302
    """400 for another reason than missing documents."""

    # 04: the account has to wait once.
    RATE_LIMITED_SECONDS = 0x0401
    """429 with ``Retry-After`` in seconds."""
    RATE_LIMITED_DATE = 0x0402
    """429 with ``Retry-After`` as an HTTP date."""
    RATE_LIMITED_X = 0x0403
    """429 with ``X-Retry-After`` in seconds."""
    RATE_LIMITED_BARE = 0x0404
    """429 that does not say for how long."""
    UNAUTHORIZED_ONCE = 0x0405
    """401 once, then the documents: the key is valid again."""
    FORBIDDEN_ONCE = 0x0406
    """403 once, then the documents."""
    FORBIDDEN_ALWAYS = 0x0407
    """403, every time: the evaluation of another sub-account."""

    # 05: the service fails.
    ERROR_500_ONCE = 0x0501
    """500, then the documents."""
    ERROR_503_TWICE = 0x0502
    """503 two times, then the documents."""
    ERROR_502_ONCE = 0x0503
    """502 with the HTML of a gateway, then the documents."""
    ERROR_504_ONCE = 0x0504
    """504 with the HTML of a gateway, then the documents."""
    ERROR_408_ONCE = 0x0505
    """408, then the documents."""
    ERROR_500_ALWAYS = 0x0506
    """500, every time."""

    # 06: the connection fails.
    CUT_SHORT_ONCE = 0x0601
    """Half of the announced bytes and a closed connection, then the documents."""
    CUT_SHORT_ALWAYS = 0x0602
    """Half of the announced bytes, every time."""
    RESET_ONCE = 0x0603
    """Half of the announced bytes and a reset of the connection, then the documents."""
    SLOW_HEADERS = 0x0604
    """The whole answer, but late."""
    SLOW_BODY = 0x0605
    """The headers come at once, the body slowly in small pieces."""

    # 07: an answer that RiskOS would not give.
    HTML_ONCE = 0x0701
    """A page with status 200, then the documents."""
    HTML_ALWAYS = 0x0702
    """A page with status 200, every time."""
    REDIRECT_ALWAYS = 0x0703
    """302 to another host, which must never receive the key."""
    FOREIGN_FILENAME_ONCE = 0x0704
    """The filename of another evaluation, then the documents."""
    FOREIGN_FILENAME_ALWAYS = 0x0705
    """The filename of another evaluation, every time."""
    GATEWAY_404_ONCE = 0x0706
    """A gateway's 404 without a body, then the documents."""
    GATEWAY_404_ALWAYS = 0x0707
    """A gateway's 404 without a body, every time."""
    GATEWAY_MESSAGE_ALWAYS = 0x0708
    """A gateway's 404 in one of RiskOS's shapes, every time."""
    EMPTY_200_ALWAYS = 0x0709
    """Status 200 without a body, every time."""

    # 08: the bundle arrives whole, but is damaged or unsafe.
    DAMAGED_ONCE = 0x0801
    """A member does not match its CRC, then a sound bundle."""
    DAMAGED_ALWAYS = 0x0802
    """A member does not match its CRC, every time."""
    GARBAGE_ALWAYS = 0x0803
    """Bytes that are not a ZIP, named as one."""
    TRUNCATED_ALWAYS = 0x0804
    """The transfer is complete, the ZIP in it ends in the middle."""
    EMPTY_ALWAYS = 0x0805
    """A sound ZIP without members."""
    OVERLAPPING_ALWAYS = 0x0806
    """Unsafe: two entries of the directory share the bytes of one member."""
    FORGED_SIZE_ALWAYS = 0x0807
    """Unsafe: a member claims to hold two gibibytes."""

    # 09: the documents change.
    CHANGING = 0x0901
    """The documents; from the second successful request on with one more attachment."""

    # 0A: members other than captured documents.
    SECONDARY_DOCUMENTS = 0x0A01
    """A bank statement and a utility bill in a folder of their own; the name of the folder is a guess."""
    EMPTY_FILE = 0x0A02
    """A back without content, which is not a document."""

    @property
    def family(self) -> int:
        """The first two digits, which similar scenarios share."""
        return int(self.value) >> 8

    @property
    def has_damaged_bundle(self) -> bool:
        """Whether the first bundle is damaged or unsafe."""
        return self.family == _BAD_BUNDLE_FAMILY


LAYOUTS = tuple(scenario for scenario in Scenario if scenario.family == _LAYOUT_FAMILY)
"""The scenarios that differ only in the layout of the bundle."""


def eval_id_for(scenario: Scenario, number: int) -> str:
    """Return the ID of the evaluation with this number among those of a scenario.

    Args:
        scenario: the scenario of the evaluation.
        number: 0 to 2**48 - 1.
    """
    return f"d0c5{scenario.value:04x}-0000-4000-8000-{number:012x}"


_CODES = frozenset(scenario.value for scenario in Scenario)


def scenario_of(eval_id: str) -> Scenario:
    """Return the scenario of an evaluation; the bytes of an ID without the mark choose a layout.

    Args:
        eval_id: canonical UUID in lower case.
    """
    marked = _FORM.fullmatch(eval_id)
    if marked and (code := int(marked[1], 16)) in _CODES:
        return Scenario(code)
    return LAYOUTS[uuid.UUID(eval_id).int % len(LAYOUTS)]
