"""Shows people and programs what an output directory holds: the status page, and metrics for Prometheus.

It imports only `core`. What it shows comes in as values; `run` and `cli` read them. Nothing is imported here,
since every run needs some of these modules and none needs all.

page              the status page: one self-contained HTML file, made from a report
page_data         the data that the page's script draws, in a compact form
page_days         rows per day, and what a weekday usually has
page_text         the parts of the page that need no script: the verdict, the figures, what is missing
live_changes      what became of bundles during a run, for pages that are open
live_page         the status page during a run
dashboard_server  serves the status page during a run
web_server        what the servers of the page and the metrics have in common
metrics           the metrics in Prometheus' text format
metrics_server    serves the metrics over HTTP during a run
alert_rules       alert rules for these metrics
files             replaces a file atomically

`assets` has the page's HTML, its style and its script, and the alert rules.
"""
