"""One line for each request, and in it nothing of who asked or for what."""

from structlog.testing import capture_logs

from tests.scripts.serve.conftest import INTAKE, Client


async def test_a_line_tells_the_route_and_the_figures(client: Client, eval_id: str) -> None:
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
        "bytes": 234,
    }


async def test_a_method_that_nobody_knows_is_no_part_of_a_line(client: Client) -> None:
    with capture_logs() as logged:
        answer = await client.send("PROPFIND", "/livez", Authorization=f"Bearer {INTAKE}")
    assert answer.status == 405
    assert "PROPFIND" not in str(logged)
    assert logged[0]["method"] == "other"


async def test_what_is_not_there_is_told_as_json(client: Client) -> None:
    answer = await client.send("GET", "/canary", Authorization=f"Bearer {INTAKE}")
    assert (answer.status, set(answer.json)) == (404, {"error"})
    assert "canary" not in answer.json["error"]


async def test_a_probe_leaves_no_line(client: Client) -> None:
    with capture_logs() as logged:
        assert (await client.send("GET", "/livez")).status == 200
    assert logged == []
