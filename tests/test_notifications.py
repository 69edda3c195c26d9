"""The recipes of docs/notifications.md work as written."""

import fnmatch
import io
import json
import re
import types
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.model.evaluation import Evaluation
from tasks.notifications.notification import run_finished
from tasks.notifications.sender import NotificationSender
from tests.archives import eval_ids
from tests.tasks.notifications.test_notification import COUNTERS

PAGE = (Path(__file__).parents[1] / "docs" / "notifications.md").read_text("utf-8")
JSON = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/notifications.md", "exec"), names)  # noqa: S102  # the test runs the recipe
    return names


def test_the_example_has_the_fields_of_a_notification() -> None:
    assert list(JSON[0]) == list(json.loads(run_finished("2026-q3", COUNTERS).as_json()))


def test_the_recipe_accepts_a_signature_and_refuses_a_changed_body() -> None:
    is_from_docv_archive = run(PYTHON[0])["is_from_docv_archive"]

    secret = "a-secret-of-a-test"  # of this test
    sender = NotificationSender(SecretStr("http://127.0.0.1/"), SecretStr(secret))
    signature = sender._headers("run_finished", b'{"id": 1}')["Docv-Signature"]
    assert is_from_docv_archive(b'{"id": 1}', signature, secret)
    assert not is_from_docv_archive(b'{"id": 2}', signature, secret)


def test_the_event_pattern_matches_only_the_manifest_of_an_evaluation(eval_id: str) -> None:
    evaluation = Evaluation(eval_id, "production")
    [pattern] = [each["wildcard"] for each in JSON[1]["detail"]["object"]["key"]]
    assert fnmatch.fnmatchcase(f"docv/{evaluation.manifest_key}", pattern)
    others = (evaluation.revision_key(1), evaluation.document_key("selfie", "a" * 64, "jpg"), f"quarantine/{eval_id}")
    assert not any(fnmatch.fnmatchcase(f"docv/{key}", pattern) for key in others)


def test_the_lambda_function_sends_every_line_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, sent = eval_ids(10_001), list[Any]()
    file = {"Body": io.BytesIO("\r\n".join(ids).encode()), "ETag": '"an-etag"'}
    names = run(PYTHON[1])
    names["boto3"] = types.SimpleNamespace(client=lambda _: types.SimpleNamespace(get_object=lambda **_: file))
    monkeypatch.setenv("ARCHIVER_URL", "https://archiver.example.com")
    monkeypatch.setenv("ARCHIVER_TOKEN", "a-token")
    monkeypatch.setattr("urllib.request.urlopen", lambda request, **_: sent.append(request) or io.BytesIO(b"{}"))
    names["handler"]({"Records": [{"s3": {"bucket": {"name": "drop"}, "object": {"key": "ids.txt"}}}]}, None)
    assert [json.loads(each.data) for each in sent] == [
        {"eval_ids": ids[:10_000], "queue": "backfill"},
        {"eval_ids": ids[10_000:], "queue": "backfill"},
    ]
    assert [each.get_header("Idempotency-key") for each in sent] == ["an-etag-0", "an-etag-10000"]
