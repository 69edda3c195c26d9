"""The manifest.json of an S3 Inventory report: which bucket it lists, in which files, with which columns.

S3 User Guide, "Locating your inventory list": ``manifest.json`` stands in a folder named by the time of the report; its
data files stand in the folder ``data`` beside that, and are named by their whole key.
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
    """What a report says of itself."""

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
    """Return what a manifest.json says.

    Raises:
        BadSource: it is none of S3 Inventory, or of a format that is not read here.
    """
    try:
        return Description.model_validate_json(data)
    except ValidationError as error:
        if any(problem["type"] == "literal_error" for problem in error.errors()):
            raise BadSource("it is an inventory of another format; CSV and Parquet are read") from None
        raise BadSource("it is no manifest.json of an S3 Inventory report") from None


def locate(file: DataFile, source: str) -> str:
    """Return where a data file is: in the bucket of the manifest, or near it on this machine.

    Raises:
        BadSource: it is not there.
    """
    if is_s3(source):
        bucket = source.removeprefix("s3://").partition("/")[0]
        return f"s3://{bucket}/{file.key}"
    name, folder = PurePosixPath(file.key).name, Path(source).parent
    for path in (folder / name, folder / "data" / name, folder.parent / "data" / name):
        if path.is_file():
            return str(path)
    raise BadSource(f"its data file {name} is missing; expected is it beside the manifest, or in a folder data there")
