"""A toy corpus: seven kinds of sentences, an article of them each."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOY = [
    ("The army said its troops had taken the town.", "party", False, "official_claim"),
    ("The ministry denied that the bridge was hit.", "party", True, "official_claim"),
    ("The United Nations counted forty dead.", "outside", False, "third_party_assessment"),
    ("An economist expects prices to rise.", "expert", False, "third_party_assessment"),
    ("Analysts doubted the figure.", "expert", True, "expert_skepticism"),
    ("The market opened at nine.", "none", False, "other"),
    ("A resident wept.", "private", False, "other"),
]


def toy_rows(name: str, articles: int) -> list[dict[str, object]]:
    return [
        {
            "article_id": f"{name}-{article}",
            "position": position + 1,
            "title": f"Story {article}",
            "text": f"{text[:-1]} {article}.",
            "voice": voice,
            "doubt": doubt,
            "label": label,
        }
        for article in range(articles)
        for position, (text, voice, doubt, label) in enumerate(TOY[article % 3 :] + TOY)
    ]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
