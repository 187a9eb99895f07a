"""Files that start asyncexport every night: for systemd, cron, Kubernetes and Airflow.

It imports nothing of the program. Paths and options come in as values (`cli.deploy` collects them), text goes out.

deployment   what the files have in common: the command, its paths, the time of day
systemd      a service and a timer
cron         a line for a crontab
kubernetes   a CronJob and the volume for its archives
airflow      a DAG
templates    fills in the templates

`assets` has the templates.
"""

from asyncexport.deploy.airflow import airflow_files
from asyncexport.deploy.cron import cron_files
from asyncexport.deploy.deployment import ENVIRONMENT_FILE, Deployment, PrintedFile
from asyncexport.deploy.kubernetes import kubernetes_files
from asyncexport.deploy.systemd import systemd_files

__all__ = [
    "ENVIRONMENT_FILE",
    "Deployment",
    "PrintedFile",
    "airflow_files",
    "cron_files",
    "kubernetes_files",
    "systemd_files",
]
