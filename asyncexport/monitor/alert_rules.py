"""Alert rules for Prometheus, as a rule file that can be used as it is or edited."""

from pathlib import Path

ALERT_RULES = (Path(__file__).parent / "assets" / "alert_rules.yml").read_text(encoding="utf-8")
