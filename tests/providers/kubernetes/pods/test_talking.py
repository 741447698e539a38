"""Commands, logs and figures: what is asked of the cluster, and what its answers mean."""

import json
from asyncio import StreamWriter
from decimal import Decimal
from typing import Any

import pytest
from tests.providers.kubernetes.scripted import document, serve, status

from skep.model.errors import Unsupported
from skep.model.host import ExecSpec
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import exec as commands
from skep.providers.kubernetes.pods import logs, usage
from skep.providers.kubernetes.pods.usage import Meter, Used


def test_a_command_is_run_as_it_is_unless_a_shell_must_prepare_something() -> None:
    plain = commands.command(ExecSpec(args=("ls", "-l")))
    prepared = commands.command(ExecSpec(args=("ls",), environment={"A": "it's"}, working_dir="/a b"))

    assert plain == ["ls", "-l"]
    assert prepared[:2] == ["/bin/sh", "-c"]
    assert "cd '/a b'" in prepared[2]
    assert """export A='it'"'"'s'""" in prepared[2]
    assert prepared[3:] == ["sh", "ls"]


def test_another_user_is_refused() -> None:
    with pytest.raises(Unsupported, match="user of the container"):
        commands.command(ExecSpec(args=("id",), user="0"))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"status": "Success"}, 0),
        ({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}}, 42),
        ({"status": "Failure", "message": 'exec: "x": executable file not found in $PATH'}, 127),
        ({"status": "Failure", "message": "exec: permission denied"}, 126),
        ({"status": "Failure", "message": "container not running"}, "container not running"),
    ],
)
def test_the_status_channel_tells_how_a_command_ended(said: dict[str, Any], code: int | str) -> None:
    assert commands.exit_code(json.loads(json.dumps(said))) == code


def test_lines_have_the_time_and_may_be_empty() -> None:
    line, empty = logs.parsed("2026-01-01T00:00:00.123456789Z a b"), logs.parsed("2026-01-01T00:00:00Z ")
    nothing = logs.parsed('rpc error: code = NotFound desc = "x": not found')

    assert line
    assert empty
    assert nothing is None
    assert (line.time, line.text) == ("2026-01-01T00:00:00.123456789Z", "a b")
    assert empty.text == ""


async def test_lines_are_asked_for_by_the_second_and_cut_by_the_nanosecond() -> None:
    body = b"2026-01-01T00:00:00.100Z early\n2026-01-01T00:00:00.300Z late\n"

    def answer(writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with serve(answer) as server, Cluster(server.config(), "i") as cluster:
        found = [
            line.text
            async for line in logs.lines(cluster, "n", "p", since="2026-01-01T00:00:00.200Z", tail=5)
        ]

    assert found == ["late"]
    assert server.asked == [
        (
            "GET /api/v1/namespaces/n/pods/p/log",
            {
                "container": "main",
                "timestamps": "true",
                "tailLines": "5",
                "sinceTime": "2026-01-01T00:00:00Z",
            },
        )
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("250m", "0.25"), ("12345678n", "0.012345678"), ("64Mi", "67108864"), ("3", "3"), ("1k", "1000")],
)
def test_quantities(text: str, value: str) -> None:
    assert str(usage.quantity(text).normalize()) == str(Decimal(value).normalize())


def test_figures_are_of_the_container_itself() -> None:
    pods = {"podRef": {"namespace": "n", "name": "p"}}
    main = {"name": "main", "cpu": {"usageCoreNanoSeconds": 2 * 10**9}, "memory": {"workingSetBytes": 7}}

    found = usage.of_summary({"pods": [pods | {"containers": [main, {"name": "copy"}]}, pods]})

    assert found == {("n", "p"): Used(memory=7, cpu_seconds=2.0)}


async def test_rates_are_summed_up_from_look_to_look_and_one_request_serves_all() -> None:
    groups = {"groups": [{"versions": [{"groupVersion": "metrics.k8s.io/v1beta1"}]}]}
    measured = {
        "metadata": {"namespace": "n", "name": "p"},
        "containers": [{"name": "main", "usage": {"cpu": "500m", "memory": "1Mi"}}],
    }
    now = 100.0
    look = document({"items": [measured]})
    async with serve(document(groups), look, look) as server, Cluster(server.config(), "i") as cluster:
        meter = Meter(cluster, lambda: now)
        first = await meter.usage("n", "p", "node", 5)
        again = await meter.usage("n", "p", "node", 5)
        now = 110.0
        later = await meter.usage("n", "p", "node", 5)

    assert (first.cpu_seconds, again, later.cpu_seconds) == (0.0, first, 5.0)
    assert (later.memory, later.memory_limit) == (2**20, 5)
    assert len(server.asked) == 3


async def test_where_nobody_measures_that_is_said() -> None:
    none = document({"groups": []})
    denied = document(status(403, "nodes/proxy is forbidden"), 403)
    async with serve(none, denied) as server, Cluster(server.config(), "i") as cluster:
        with pytest.raises(Unsupported, match="does not measure"):
            await Meter(cluster).usage("n", "p", "node-1", None)

    assert server.asked[1][0] == "GET /api/v1/nodes/node-1/proxy/stats/summary"
