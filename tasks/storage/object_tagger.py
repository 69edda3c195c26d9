"""Set the tags of objects with separate requests, for S3-compatible stores that refuse tags in a PUT."""

import asyncio
from collections.abc import Mapping
from typing import Any

from obstore.store import S3Store

from tasks.errors import Fault, StorageError
from tasks.storage.s3_fault import fault_of_code


class ObjectTagger:
    """A client for the tags of existing objects.

    Args:
        client: boto3's client of S3, because obstore cannot set tags without a write.
        archive: obstore's client of the archive.
    """

    def __init__(self, client: Any, archive: S3Store) -> None:
        self._client, self._bucket = client, archive.config["bucket"]
        self._prefix = f"{archive.prefix}/" if archive.prefix else ""

    async def put(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace the tags of an object.

        Raises:
            StorageError: S3 refused the request or did not answer.
        """
        await asyncio.to_thread(self._put, key, [{"Key": name, "Value": value} for name, value in tags.items()])

    def _put(self, key: str, tags: list[dict[str, str]]) -> None:
        from botocore import exceptions as foreign  # noqa: PLC0415  # only with DOCV_S3_TAGS=after_put

        try:
            self._client.put_object_tagging(Bucket=self._bucket, Key=self._prefix + key, Tagging={"TagSet": tags})
        except foreign.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "no code")
            what = f"S3 refuses it ({code}); it needs s3:PutObjectTagging"
            raise StorageError("tag", what, fault_of_code(code)) from None
        except (
            foreign.EndpointConnectionError,
            foreign.ConnectTimeoutError,
            foreign.ProxyConnectionError,
            foreign.SSLError,
            foreign.NoCredentialsError,
            foreign.CredentialRetrievalError,
        ) as error:
            raise StorageError("tag", type(error).__name__, Fault.MACHINE) from None
        except foreign.BotoCoreError as error:
            raise StorageError("tag", type(error).__name__) from None
