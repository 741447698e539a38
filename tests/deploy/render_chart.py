"""Renders a chart as `helm template` does: CHART NAMESPACE VALUES, the last as JSON; answers files by name.

Runs in an environment of its own, where nothing of skep is: scripts/install --kubernetes.
"""

import json
import sys

import helm_python as helm


def main(chart: str, namespace: str, values: str) -> None:
    findings = helm.lint(chart, json.loads(values))
    if findings["errors"]:
        raise SystemExit(f"{chart}: {findings['errors']}")
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(json.loads(values))
        print(json.dumps(loaded.render(json.loads(values), name="skep", namespace=namespace)))


if __name__ == "__main__":
    main(*sys.argv[1:])
