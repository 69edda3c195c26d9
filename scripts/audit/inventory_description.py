"""Read the manifest.json of an S3 Inventory report: its bucket, its data files, and their columns.

S3 User Guide, "Locating your inventory list": ``manifest.json`` is in a folder named by the time of the report. Its
data files are in a sibling folder ``data``, and the manifest lists their full keys.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from scripts.ids.errors import BadSource
from scripts.ids.s3 import is_s3

_PARQUET_COLUMN = re.compile(r"(?:required|optional)\s+\w+\s+(\w+)")


class DataFile(BaseModel):
    """One file of the report."""

    key: str
    md5: str = Field(alias="MD5checksum", pattern=r"^[0-9a-fA-F]{32}$")


class Description(BaseModel):
    """The manifest.json of a report."""

    bucket: str = Field(alias="sourceBucket")
    format: Literal["CSV", "Parquet"] = Field(alias="fileFormat")
    columns_: str = Field(alias="fileSchema")
    files: tuple[DataFile, ...]

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns, in order."""
        if self.format == "Parquet":
            return _PARQUET_COLUMN.findall(self.columns_)
        return [name.strip() for name in self.columns_.split(",")]


def read_description(data: bytes) -> Description:
    """Return a parsed manifest.json.

    Raises:
        BadSource: it is not from S3 Inventory, or its data files are neither CSV nor Parquet.
    """
    try:
        return Description.model_validate_json(data)
    except ValidationError as error:
        if any(problem["type"] == "literal_error" for problem in error.errors()):
            raise BadSource("its format is not supported: expected CSV or Parquet") from None
        raise BadSource("it is not a valid manifest.json of an S3 Inventory report") from None


def find_data_file(file: DataFile, source: str) -> str:
    """Return the URL or path of a data file: in the bucket of the manifest, or near the manifest on this machine.

    Raises:
        BadSource: the file is missing on this machine.
    """
    if is_s3(source):
        bucket = source.removeprefix("s3://").partition("/")[0]
        return f"s3://{bucket}/{file.key}"
    name, folder = PurePosixPath(file.key).name, Path(source).parent
    for path in (folder / name, folder / "data" / name, folder.parent / "data" / name):
        if path.is_file():
            return str(path)
    raise BadSource(f"its data file {name} is missing; expected next to the manifest, or in a folder data there")
