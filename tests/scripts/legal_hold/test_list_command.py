"""`legal-hold list` prints every matter with its state and the number of its evaluations."""

import json

from tests.scripts.legal_hold.conftest import HoldArchive


def test_list_prints_state_and_counts_of_every_matter(folder: HoldArchive) -> None:
    assert folder.run_ok("legal-hold", "list").stdout == "there are no matters\n"
    ids = [folder.fill() for _ in range(3)]
    for matter in ("one", "two"):
        folder.run_ok("legal-hold", "create", matter, "--reason", "case 17")
        folder.run_ok("legal-hold", "add", matter, *ids)
    folder.run_ok("legal-hold", "release", "two", "--reason", "settled")

    rows = folder.run_ok("legal-hold", "list").stdout.splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["matter", "state", "evaluations"],
        ["one", "open", "3"],
        ["two", "released", "3"],
    ]
    facts = [json.loads(line) for line in folder.run_ok("legal-hold", "list", "--json").stdout.splitlines()]
    assert [(each["matter"], each["state"], each["evaluations"]) for each in facts] == [
        ("one", "open", {"sandbox": 3}),
        ("two", "released", {"sandbox": 3}),
    ]
    assert facts[1]["release_reason"] == "settled"
