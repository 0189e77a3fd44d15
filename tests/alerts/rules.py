"""The alerts of deploy/prometheus/rules.yaml, with every duration shortened: `for:`, and the windows of expressions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

RULES = Path("deploy/prometheus/rules.yaml")

SCRAPED_EVERY = 15.0
"""Seconds, as docs/operations.md has it; shortened too, so that a window has as many samples as in earnest."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def shortened(rules: dict[str, Any], times: float) -> dict[str, Any]:
    """The same rules as if time went so many times as fast. Only durations change."""

    def shorter(match: re.Match[str]) -> str:
        return f"{max(round(int(match[1]) * UNITS[match[2]] * 1000 / times), 1)}ms"

    def short(rule: dict[str, Any]) -> dict[str, Any]:
        expr = re.sub(r"(?<=\[)(\d+)([smhd])(?=\])", shorter, rule["expr"])
        held = {"for": re.sub(r"^(\d+)([smhd])$", shorter, rule["for"])} if "for" in rule else {}
        return {**rule, "expr": expr, **held}

    return {"groups": [{**group, "rules": [short(each) for each in group["rules"]]} for group in rules["groups"]]}


def longest(rules: dict[str, Any]) -> dict[str, int]:
    """Seconds of the longest duration, by alert."""
    return {
        rule["alert"]: max(int(n) * UNITS[unit] for n, unit in re.findall(r"\b(\d+)([smhd])\b", f"0s {rule}"))
        for group in rules["groups"]
        for rule in group["rules"]
    }


def read_rules() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return found
