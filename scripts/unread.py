"""Say why a manifest cannot be read."""

import orjson


def why_unread(data: bytes) -> str:
    """Return in a sentence why bytes are no manifest of ours; nothing of them is in it."""
    try:
        facts = orjson.loads(data)
    except orjson.JSONDecodeError:
        return "the manifest is no JSON"
    version = facts.get("schema") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > 1:
        return f"the manifest is of a newer format ({version}): use a newer docv-archive"
    return "the manifest does not fit its schema, docs/manifest.schema.json"
