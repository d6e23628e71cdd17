import json

from crefjax.io.files import read_json_lines


def test_lines_of_json_end_where_they_were_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == []
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2}\n{"ste')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
