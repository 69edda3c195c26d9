"""The documented ACL of Redis allows everything that workers, server and doctor need."""

import re
from pathlib import Path

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.commands import Shell
from tests.faults.cluster import running_cluster
from tests.faults.producer import INTAKE_TOKEN, producing

PAGE = Path(__file__).parents[2] / "docs/planning.md"
PASSWORD = "s3cr3t-w0rd"
RULE = re.compile(r"^redis-cli .* ACL SETUSER docv on '>PASSWORD' (?P<rules>[^#\n]+)$", re.MULTILINE)


async def test_the_documented_acl_allows_every_command(tmp_path: Path) -> None:
    rules = RULE.search(PAGE.read_text("utf-8"))
    assert rules
    live, backfill = (
        [eval_id_for(Scenario.PASSPORT, number + start) for number in range(3)] for start in (1_000, 2_000)
    )
    async with running_cluster(tmp_path / "stage", DOCV_INTAKE_TOKENS=INTAKE_TOKEN) as cluster:
        await cluster.client.execute_command("ACL", "SETUSER", "docv", "on", f">{PASSWORD}", *unquote(rules["rules"]))
        cluster.settings["DOCV_REDIS_URL"] = cluster.redis.url.replace("//", f"//docv:{PASSWORD}@")
        (worker,) = await cluster.start_workers(1)
        await cluster.enqueue(live, run="live")
        (tmp_path / "ids.txt").write_text("\n".join(backfill))
        shell = Shell(tmp_path, cluster.settings)
        finished = await shell.run("backfill", "ids.txt", "--run", "backfill")
        assert finished.code == 0, finished
        await cluster.wait_until_all_ended("live", len(live))
        async with producing(cluster) as producer:
            await producer.wait_until_archived(0, 30)
            assert await producer.is_ready()
        for command in (("status",), ("rate",), ("dead-letters", "list")):
            finished = await shell.run(*command)
            assert finished.code == 0, finished
        found = await shell.run("doctor")
        assert "NOPERM" not in found.out
        assert re.search(r" Redis +version", found.out), found.out
        assert "docv" in {each["user"] for each in await cluster.client.client_list()}
        await cluster.terminate(worker)
        denied = await cluster.client.execute_command("ACL", "LOG")
    assert [(each["object"], each["context"]) for each in map(as_dict, denied)] == []


def unquote(rules: str) -> list[str]:
    return [word.strip("'") for word in rules.split()]


def as_dict(entry: object) -> dict[str, object]:
    assert isinstance(entry, dict | list)
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
