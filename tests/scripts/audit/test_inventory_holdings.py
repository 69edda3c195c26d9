import random

import pytest

from scripts.archive_access.evaluation_rows import EvaluationRow
from scripts.audit import inventory_holdings
from scripts.audit.inventory_holdings import open_holdings
from scripts.audit.inventory_objects import InventoryObject
from scripts.ids.errors import BadSource
from tests.archives import eval_ids
from tests.scripts.audit.conftest import BUCKET
from worker.config.settings import Settings, SettingsError

IDS = eval_ids(4)
ROOT = "the ärchive/sandbox"


def listed(*keys: tuple[str, int]) -> list[InventoryObject]:
    return [InventoryObject(BUCKET, key, size) for key, size in keys]


OBJECTS = listed(
    (f"{ROOT}/{IDS[0]}/manifest.json", 900),
    (f"{ROOT}/{IDS[0]}/selfie/{'a' * 64}.jpg", 20),
    (f"{ROOT}/{IDS[0]}/document_front/{'b' * 64}.jpg", 300),
    (f"{ROOT}/{IDS[0]}/revisions/1.json", 900),
    (f"{ROOT}/{IDS[1]}/manifest.json", 900),
    (f"{ROOT}/{IDS[2]}/selfie/{'a' * 64}.jpg", 20),
    (f"the ärchive/production/{IDS[3]}/manifest.json", 900),
    (f"sandbox/{IDS[3]}/manifest.json", 900),
    (f"{ROOT}/{IDS[3].upper()}/manifest.json", 900),
    (f"{ROOT}/{IDS[3]}/selfie/manifest.json/manifest.json", 1),
)
ROWS = [
    EvaluationRow(IDS[0], "present", 2, 320, f"sandbox/{IDS[0]}/manifest.json", disposed=None),
    EvaluationRow(IDS[1], "present", 0, 0, f"sandbox/{IDS[1]}/manifest.json", disposed=None),
    EvaluationRow(IDS[2], "missing", 1, 20, disposed=None),
    EvaluationRow(IDS[3], "missing", 1, 1, disposed=None),
]


@pytest.mark.parametrize("at_once", [1, 2, 20_000])
def test_an_evaluation_is_present_when_its_manifest_is_listed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(inventory_holdings, "_AT_ONCE", at_once)
    shuffled = random.sample(OBJECTS, len(OBJECTS))
    with open_holdings(shuffled, settings) as known:
        assert known.rows(IDS) == ROWS
    assert list((settings.private_dir / "spool").iterdir()) == []
    assert ROWS[0].is_ok
    assert not ROWS[2].is_damaged


def test_an_inventory_of_another_bucket_is_refused(settings: Settings) -> None:
    with (
        pytest.raises(BadSource, match="lists the bucket another"),
        open_holdings([InventoryObject("another", "x", 1)], settings),
    ):
        pass


def test_an_inventory_is_refused_when_the_archive_is_a_folder() -> None:
    with pytest.raises(SettingsError, match="names a folder"), open_holdings([], Settings()):
        pass
