from scripts.audit.inventory_description import read_description


def test_the_columns_of_both_formats_are_parsed() -> None:
    text = '{"sourceBucket": "b", "fileFormat": "%s", "fileSchema": "%s", "files": []}'
    assert read_description((text % ("CSV", "Bucket, Key, Size")).encode()).columns == ["Bucket", "Key", "Size"]
    schema = "message s3.inventory { required binary bucket (UTF8); optional int64 size; }"
    assert read_description((text % ("Parquet", schema)).encode()).columns == ["bucket", "size"]
