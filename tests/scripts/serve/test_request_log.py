"""Each request is one log line, without the caller and the evaluation."""

from structlog.testing import capture_logs

from tests.scripts.serve.conftest import INTAKE, Client


async def test_a_log_line_has_the_route_and_the_numbers(client: Client, eval_id: str) -> None:
    with capture_logs() as logged:
        await client.send("GET", f"/evaluations/{eval_id}?name=canary", Authorization=f"Bearer {INTAKE}")
    (line,) = (each for each in logged if each["event"] == "request.answered")
    assert line.pop("ms") >= 0
    assert len(line.pop("request_id")) == 16
    assert line == {
        "event": "request.answered",
        "log_level": "info",
        "method": "GET",
        "route": "/evaluations/{eval_id}",
        "status": 404,
        "bytes": 221,
    }


async def test_an_unknown_method_is_not_logged(client: Client) -> None:
    with capture_logs() as logged:
        answer = await client.send("PROPFIND", "/livez", Authorization=f"Bearer {INTAKE}")
    assert answer.status == 405
    assert "PROPFIND" not in str(logged)
    assert logged[0]["method"] == "other"


async def test_a_missing_path_is_answered_as_json(client: Client) -> None:
    answer = await client.send("GET", "/canary", Authorization=f"Bearer {INTAKE}")
    assert (answer.status, set(answer.json)) == (404, {"error"})
    assert "canary" not in answer.json["error"]


async def test_a_probe_is_not_logged(client: Client) -> None:
    with capture_logs() as logged:
        assert (await client.send("GET", "/livez")).status == 200
    assert logged == []
