"""Archive one evaluation with requests, zipfile and boto3, as most programs would."""

import base64
import hashlib
import io
import zipfile
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from requests.adapters import HTTPAdapter

from tests.bench.peers.place import BUCKET, KEY, RISKOS, S3, document_key, manifest, manifest_key


class Archiver:
    """A session of requests and a client of boto3, for one thread or several."""

    def __init__(self, connections: int) -> None:
        self._http = requests.Session()
        self._http.mount(RISKOS, HTTPAdapter(pool_maxsize=connections))
        self._http.headers["Authorization"] = f"Bearer {KEY}"
        self._s3 = boto3.client("s3", endpoint_url=S3, config=Config(max_pool_connections=connections))

    def archive(self, eval_id: str) -> None:
        """Archive an evaluation, unless it is archived already."""
        if self._is_archived(eval_id):
            return
        answer = self._http.get(f"{RISKOS}/api/evaluation/{eval_id}/documents", timeout=60)
        answer.raise_for_status()
        documents = []
        with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
            for name in bundle.namelist():
                content = bundle.read(name)
                digest = hashlib.sha256(content)
                self._put(document_key(eval_id, digest.hexdigest()), content, digest.digest(), IfNoneMatch="*")
                documents.append((name, len(content), digest.hexdigest()))
        bundle_sha256 = hashlib.sha256(answer.content).hexdigest()
        record = manifest(eval_id, len(answer.content), documents, bundle_sha256)
        self._put(manifest_key(eval_id), record, hashlib.sha256(record).digest(), ContentType="application/json")

    def _is_archived(self, eval_id: str) -> bool:
        try:
            self._s3.get_object(Bucket=BUCKET, Key=manifest_key(eval_id))
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return False
        return True

    def _put(self, key: str, data: bytes, digest: bytes, **more: Any) -> None:
        checksum = base64.b64encode(digest).decode()
        self._s3.put_object(
            Bucket=BUCKET, Key=key, Body=data, ChecksumSHA256=checksum, Tagging="environment=production", **more
        )
