"""A Kubernetes CronJob, and the volume for its archives.

1. The key, the configuration file and other variables come from secrets that are made with kubectl: none is printed,
   since the configuration may hold a password of a proxy.
2. Strings are written as JSON, which is valid YAML for any text. In arguments, Kubernetes replaces `$(NAME)`: a second
   dollar prevents that. Names are quoted as well: YAML would read some as a number or as true.
3. kubectl takes `=`, `,` and `"` in `--from-file` for its own; a file with such a path is read from standard input.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path

from asyncexport.deploy.deployment import ENVIRONMENT_FILE, FINAL_CODES, MARGIN_SECONDS, Deployment, PrintedFile
from asyncexport.deploy.templates import filled

CONFIG, DIRECTORY = Path("/etc/asyncexport/asyncexport.toml"), Path("/data/exports")
"""Paths in the container."""

LOAD_DIRECTORY = "load.directory=/data/warehouse"
"""The setting that keeps the load directory on the volume."""

RUN_BYTES = 256 << 20
"""The memory of a run alone."""

KUBECTLS_OWN = '=,"'

ENVIRONMENT_STEP = """
#    kubectl create secret generic {name}-environment --from-env-file={file}
#    That file has lines NAME=value, without quotes: {names}.
#    A file that one of them names needs a mount of its own."""

ENVIRONMENT_SOURCE = """
              envFrom:
                - secretRef: {{ name: {name}-environment, optional: true }}"""

CONFIG_MOUNT = '\n                - { name: config, mountPath: "/etc/asyncexport", readOnly: true }'
CONFIG_VOLUME = "\n            - name: config\n              secret: {{ secretName: {name}-config }}"


def kubernetes_files(deployment: Deployment, *, image: str) -> tuple[PrintedFile, ...]:
    """Return the CronJob and its volume in one file."""
    name, has_config = deployment.name, deployment.config is not None
    if deployment.load_bytes is not None and not any(one.startswith("load.directory=") for one in deployment.sets):
        deployment = replace(deployment, sets=(*deployment.sets, LOAD_DIRECTORY))
    words = deployment.command(
        "nightly", "--success-exit", "9", config=CONFIG if has_config else None, directory=DIRECTORY
    )
    arguments = words[len(deployment.program) :]
    facts = {"name": name, "names": deployment.named_variables, "file": ENVIRONMENT_FILE}
    config_secret = ""
    if deployment.config is not None:
        file = _from_file(CONFIG.name, deployment.config)
        config_secret = f"\n#    kubectl create secret generic {name}-config {file}"
    text = filled(
        "cronjob.template",
        arguments="".join(f"\n                - {json.dumps(word.replace('$', '$$'))}" for word in arguments),
        config_mount=CONFIG_MOUNT if has_config else "",
        config_secret=config_secret,
        config_volume=CONFIG_VOLUME.format(name=name) if has_config else "",
        directory=DIRECTORY.parent,
        environment_secret=ENVIRONMENT_STEP.format(**facts) if deployment.variables else "",
        environment_source=ENVIRONMENT_SOURCE.format(**facts) if deployment.variables else "",
        final_codes=", ".join(map(str, FINAL_CODES)),
        hour=deployment.hour,
        image=json.dumps(image),
        key_file=_from_file("api-key", deployment.key_file),
        memory=f"{(RUN_BYTES + (deployment.load_bytes or 0)) >> 20}Mi",
        minute=deployment.minute,
        most_seconds=round(deployment.max_duration_seconds) + MARGIN_SECONDS,
        name=name,
        stop_seconds=deployment.stop_seconds,
    )
    return (PrintedFile(f"{name}.yaml", text),)


def _from_file(key: str, path: Path) -> str:
    """Return the option that puts a file into a secret under this key (rule 3)."""
    if any(letter in str(path) for letter in KUBECTLS_OWN):
        return f"--from-file={key}=/dev/stdin < {shlex.quote(str(path))}"
    return "--from-file=" + shlex.quote(f"{key}={path}")
