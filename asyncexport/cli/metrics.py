"""`metrics`: print the metrics of an output directory, or alert rules for them."""

from typing import Annotated

import typer

from asyncexport.cli.options import Directory, Sets, read_asked
from asyncexport.cli.session import Session
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.summary import Summary
from asyncexport.errors import ExportError

AlertRules = Annotated[
    bool, typer.Option("--alert-rules", help="Print alert rules for Prometheus instead, as a rule file.")
]


def metrics(
    ctx: typer.Context, *, alert_rules: AlertRules = False, directory: Directory = None, sets: Sets = None
) -> Summary:
    """Print metrics.

    Reads the ledger and changes nothing; works during a run. The metrics have Prometheus' text format and need one more
    library: pip install 'asyncexport[metrics]'. If the ledger cannot be read, the metrics say so and the exit code is
    7.

    With [metrics] textfile, each run writes them to a file for node_exporter; with [metrics] listen, they are served
    over HTTP during runs.
    """
    session: Session = ctx.obj
    if alert_rules:
        from asyncexport.monitor.alert_rules import ALERT_RULES

        session.say(ALERT_RULES.rstrip("\n"))
        session.record("alert_rules", text=ALERT_RULES)
        return session.summary(Exit.DONE)
    from asyncexport.run.metrics import read_metrics

    asked = read_asked(session, directory=directory, sets=sets)
    faults: list[ExportError] = []
    text = read_metrics(asked.settings, unreadable=faults.append).decode()
    session.say(text.rstrip("\n"))
    session.record("metrics", text=text)
    if not faults:
        return session.summary(Exit.DONE)
    return session.summary(exit_of(faults[0]), error=faults[0])
