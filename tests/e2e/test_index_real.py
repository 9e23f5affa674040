"""A folder of files, indexed by the packaged MiniLM and searched from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acclimate.cli.main import main

pytestmark = pytest.mark.real


def test_a_folder_is_found_by_meaning_and_by_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs, run = tmp_path / "docs", str(tmp_path / "run")
    docs.mkdir()
    paragraphs = [
        "Sow winter wheat from late September to the middle of October, once the nights are cool.",
        "Keep potatoes in a dark and dry cellar, and they last until spring.",
        "Nets over cabbage keep butterflies away from the leaves.",
        "Prune apple trees in February, on a day without frost.",
    ]
    (docs / "crops.md").write_text("\n\n".join(paragraphs))
    (docs / "zh.html").write_text("<title>小麦</title><p>小麦锈病在潮湿的春天蔓延。</p>", encoding="utf-8")
    main(["index", run, str(docs), "--chunk-tokens", "20", "--chunk-overlap", "0"])
    assert "5 documents; 2 read, 5 new or changed" in capsys.readouterr().out

    def search(query: str, *flags: str) -> list[dict[str, Any]]:
        main(["search", run, query, "--json", *flags])
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["hits"]
        return found

    first = search("when is cereal planted before the cold season", "--mode", "dense")[0]
    assert first["text"] == paragraphs[0] and first["parent"] == "crops.md"
    assert search("fruit tree cutting")[0]["text"] == paragraphs[3]
    assert [hit["parent"] for hit in search("小麦", "--mode", "lexical")] == ["zh.html"]
    assert search("小麦", "--filter", 'title = "小麦"')[0]["metadata"] == {"title": "小麦"}
    main(["index", run, str(docs)])
    assert "5 documents; 2 read, 5 unchanged" in capsys.readouterr().out, "the run remembers how it cuts"
    main(["index", run, str(docs), "--chunk-tokens", "none"])
    assert "2 documents; 2 read, 2 new or changed, 5 chunks of before removed" in capsys.readouterr().out
