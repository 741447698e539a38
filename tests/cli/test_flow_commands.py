"""Runs, flows, schedules and limits by the command line, on a whole control."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.house import House, housed

from skep.cli.client import Client
from skep.cli.picture import Picture
from skep.cli.settings import Context
from skep.model.views.runs import RunDetail, RunEventView


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def house(shared: House) -> Iterator[House]:
    """The same for all tests; each begins runs of its own, and leaves none under way."""
    token = shared.token
    yield shared
    shared.token = token
    shared("run", "cancel", "--all", "--all-tenants", "--yes")


def test_a_purchase_is_asked_for_approved_and_paid(house: House) -> None:
    run = house.start("errand.buy", "item=lamp")
    house.until(run, "waiting", "ok")

    why = house("run", "why", run).stdout
    assert "approval" in why
    assert "Buy lamp for 40?" in why
    assert "dependency" in why
    assert run in house("run", "ls", "--state", "waiting", "--flow", "errand.buy").stdout
    assert "waiting" in house("run", "show", run).stdout

    answered = house("run", "approve", run, "ok", "--comment", "it is dark")
    assert answered.returncode == 0, answered.stderr
    assert house("run", "follow", run).returncode == 0

    shown = json.loads(house("run", "show", run, "-o", "json").stdout)
    assert shown["run"]["output"] == {"bought": "lamp for 40"}
    assert [step["state"] for step in shown["steps"]] == ["succeeded"] * 3
    assert all(step["queued"] is not None for step in shown["steps"])
    again = house("run", "approve", run, "ok")
    assert again.returncode == 5
    assert "nothing waits" in house("run", "why", run).stderr


def test_a_run_that_once_needed_its_operator_is_followed_to_its_end(house: House) -> None:
    run = house.start("errand.visit", "address=nowhere")
    asking = house("run", "follow", run)

    assert house("run", "resolve", run, "there", "skip").returncode == 0
    followed = house("run", "follow", run)

    assert asking.returncode == 1
    assert f"skep run resolve {run}" in asking.stderr
    assert followed.returncode == 0, followed.stderr
    assert "there resolved: skip by admin" in followed.stderr


def test_a_purchase_that_is_refused_fails_and_can_be_done_again(house: House) -> None:
    run = house.start("errand.buy", "item=desk")
    house.until(run, "waiting", "ok")

    assert house("run", "approve", run, "ok", "--refuse", "--comment", "too dear").returncode == 0
    followed = house("run", "follow", run)
    assert followed.returncode == 1
    assert "too dear" in followed.stderr

    again = house("run", "rerun", run)
    assert again.returncode == 0
    second = again.stdout.strip()
    house.until(second, "waiting", "ok")
    assert f"Again of: {run}" in house("run", "show", second).stdout
    assert house("run", "approve", second, "ok").returncode == 0
    assert house("run", "follow", second).returncode == 0


def test_one_is_held_by_the_lock_of_another_and_why_names_it(house: House) -> None:
    first = house.start("errand.hold", "shelf=a")
    house.until(first, "waiting")
    second = house.start("errand.hold", "shelf=a")

    why = house("run", "why", second)

    assert "lock" in why.stdout
    assert first in why.stdout
    assert "shelf/a" in why.stdout
    assert house("run", "signal", first, "go", "7", "--key", "once").returncode == 0
    assert house("run", "signal", first, "go", "8", "--key", "once").returncode in (0, 5)
    assert house("run", "follow", first).returncode == 0
    assert json.loads(house("run", "show", first, "-o", "json").stdout)["run"]["output"] == {"got": 7}
    house.until(second, "waiting")
    assert house("run", "signal", second, "go", "seven").returncode == 2


def test_many_are_steered_once_somebody_has_seen_how_many(house: House) -> None:
    runs = [house.start("errand.hold", f"shelf={number}") for number in range(3)]
    for run in runs:
        house.until(run, "waiting")

    refused = house("run", "pause", "--flow", "errand.hold")
    assert refused.returncode == 2
    assert "Pause 3 runs?" in refused.stderr
    assert all(run in refused.stderr for run in runs)
    assert "paused" not in house("run", "ls", "--active").stdout

    assert house("run", "pause", "--flow", "errand.hold", "--yes").returncode == 0
    assert house("run", "ls", "--state", "paused").stdout.count("errand.hold") == 3
    assert house("run", "resume", "--all", "--yes").returncode == 0
    some = house("run", "cancel", runs[0], runs[1], "nothing")
    assert some.returncode == 5
    assert "nothing: There is no run 'nothing'" in some.stderr
    assert house("run", "cancel", runs[2]).returncode == 0
    assert house("run", "cancel", "--flow", "errand.none", "--yes").stderr == "There is no such run.\n"
    for run in runs:
        assert house("run", "follow", run).returncode == 1
        assert "cancelled" in house("run", "show", run).stdout
    assert house("run", "retry", runs[0]).returncode == 0
    house.until(runs[0], "run-retried")


@pytest.mark.parametrize("words", [[], ["x", "--all"], ["--state", "sleepy"]])
def test_what_is_meant_must_be_said(house: House, words: list[str]) -> None:
    done = house("run", "cancel", *words, "--yes")

    assert done.returncode == 2
    assert "error" in done.stderr.lower()


def test_the_items_of_a_fan_out_are_counted_or_listed(house: House) -> None:
    addresses = ["here"] * 20 + ["nowhere"] * 2
    run = house.start("errand.post", json.dumps({"addresses": addresses}))
    assert house("run", "follow", run).returncode == 0

    folded, whole = house("run", "show", run).stdout, house("run", "show", run, "--steps").stdout

    assert "letters[3]" not in folded
    assert "20 done, 2 failed" in folded
    assert "letters[21]" in whole
    assert "nobody lives there" in whole


def test_a_run_is_drawn(house: House) -> None:
    run = house.start("errand.buy", "item=rug")
    house.until(run, "waiting", "ok")

    tree = house("run", "graph", run)
    assert [line.split()[1] for line in tree.stdout.splitlines()] == ["price", "ok", "paid"]
    assert "✓ price" in tree.stdout
    assert "◷ ok" in tree.stdout
    assert house("run", "graph", run, "--svg").stdout.startswith("<svg")
    assert "flowchart" in house("run", "graph", run, "--mermaid").stdout
    nodes = json.loads(house("run", "graph", run, "-o", "json").stdout)["nodes"]
    assert [(node["name"], node["kind"], node["state"]) for node in nodes] == [
        ("price", "step", "succeeded"),
        ("ok", "wait", "waiting"),
        ("paid", "step", "pending"),
    ]
    headers = {"Authorization": f"Bearer {house.token}", "Accept": "image/svg+xml"}
    picture = httpx.get(f"{house.url}/v1/runs/{run}/graph", headers=headers)
    assert picture.headers["content-type"].startswith("image/svg+xml")


def test_what_a_run_spent_its_time_on(house: House) -> None:
    run = house.start("errand.buy", "item=bed")
    house.until(run, "waiting", "ok")
    assert house("run", "critical", run).returncode == 5
    assert house("run", "approve", run, "ok").returncode == 0
    assert house("run", "follow", run).returncode == 0

    done = house("run", "critical", run)

    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["price", "ok", "paid"]
    assert "errand.buy took" in done.stderr


def test_flows_are_listed_shown_drawn_and_their_steps_explained(house: House) -> None:
    assert "item: str" in house("flow", "ls").stdout
    assert "waits: approval" in house("flow", "show", "errand.buy").stdout
    assert house("flow", "show", "nothing").returncode == 3
    assert house("flow", "graph", "replica.create", "--svg").stdout.startswith("<svg")
    assert "errands.pay" in house("flow", "steps").stdout
    one = house("flow", "steps", "errands.pay").stdout
    assert one.startswith("errands.pay(item: str, amount: int) → str\n  idempotent, with undo, timeout 5s")
    assert "Nothing is paid twice." in one


def test_documents_are_checked_by_the_steps_of_the_server(house: House) -> None:
    (house.directory / "wrong.yaml").write_text(
        "flow: mine\ninput: {n: int}\nsteps:\n  price: {use: errands.price, with: {item: $input.n}}\n"
        "  pay: {use: errands.pay, with: {item: a, amount: $pride}}\n"
    )
    (house.directory / "right.yaml").write_text(
        "flow: other\nsteps:\n  buy: {flow: errand.buy, with: {item: lamp}}\noutput: {got: $buy.bought}\n"
    )

    wrong, right = house("flow", "check", "wrong.yaml"), house("flow", "check", "right.yaml")

    assert wrong.returncode == 1
    lines = wrong.stdout.splitlines()
    assert lines[0].startswith("wrong.yaml:4: step price: ")
    assert "str" in lines[0]
    assert "int" in lines[0]
    assert lines[1].startswith("wrong.yaml:5: step pay: ")
    assert (right.returncode, right.stderr) == (0, "Right: other.\n")
    assert house("flow", "check", "nothing.yaml").returncode == 2
    assert "price" in house("flow", "graph", "right.yaml").stdout
    assert house("flow", "graph", "wrong.yaml").returncode == 2


def test_the_same_key_answers_the_run_it_began_first(house: House) -> None:
    words = ["flow", "start", "errand.hold", "--input", "shelf=k", "--key", "seven", "--no-wait"]

    first, second = house(*words), house(*words)

    assert first.stdout == second.stdout
    assert house("flow", "start", "errand.hold", "--input", "shelf", "--no-wait").returncode == 2
    wrong = house("flow", "start", "errand.hold", "--input", '{"shelf": 1}', "--no-wait")
    assert wrong.returncode == 2
    assert "'shelf' must be str" in wrong.stderr
    late = house("flow", "start", "errand.hold", "-i", "shelf=l", "--deadline", "2020-01-01T00:00:00")
    assert late.returncode == 2


def test_members_steer_runs_of_their_tenant_and_start_none(house: House) -> None:
    mine = house.start("errand.hold", "shelf=m")
    house.until(mine, "waiting")
    member = house.member("kim")
    house("tenant", "create", "acme")
    stranger = house.member("lee", "acme")

    house.token = stranger
    assert house("run", "why", mine).returncode == 3
    assert house("run", "cancel", mine).returncode == 3
    assert house("run", "signal", mine, "go", "1").returncode == 3
    house.token = member
    assert house("run", "why", mine).returncode == 0
    assert house("run", "pause", mine).returncode == 0
    assert house("run", "rerun", mine).returncode == 4
    assert house("run", "ls", "--all-tenants").returncode == 4
    assert house("flow", "start", "errand.hold", "--input", "shelf=n").returncode == 4
    assert house("bundle", "ls").returncode == 4


def test_schedules_come_go_rest_and_run_at_once(house: House) -> None:
    words = ["schedule", "set", "nightly", "errand.hold", "30 2 * * *", "-i", "shelf=s"]
    made = house(*words, "--timezone", "Europe/Berlin")
    assert made.returncode == 0, made.stderr
    assert house(*words, "--timezone", "Europe/Berlin").returncode == 0

    listed = json.loads(house("schedule", "ls", "-o", "json").stdout)
    assert [(one["name"], one["flow"], one["timezone"]) for one in listed] == [
        ("nightly", "errand.hold", "Europe/Berlin")
    ]
    assert house("schedule", "pause", "nightly").returncode == 0
    assert "paused" in house("schedule", "ls").stdout
    assert house("schedule", "resume", "nightly").returncode == 0
    run = house("schedule", "run", "nightly").stdout.strip()
    house.until(run, "waiting")
    busy = house("schedule", "run", "nightly")
    assert busy.returncode == 5
    assert run in busy.stderr
    assert run in house("run", "ls", "--schedule", "nightly").stdout
    assert house("schedule", "rm", "nightly").returncode == 0
    assert house("schedule", "rm", "nightly").returncode == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x", "errand.hold", "30 25 * * *", "-i", "shelf=s"], "is no cron time"),
        (["x", "errand.hold", "@daily", "-i", "shelf=s", "--timezone", "Mars/City"], "no time zone"),
        (["x", "errand.hold", "@daily"], "'shelf'"),
        (["X", "errand.hold", "@daily", "-i", "shelf=s"], "no name of a schedule"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_with_the_reason(
    house: House, words: list[str], says: str
) -> None:
    done = house("schedule", "set", *words)

    assert done.returncode == 2
    assert says in done.stderr


def test_limits_are_set_seen_and_removed(house: House) -> None:
    house("tenant", "create", "umbrella")
    member = house.member("mo", "umbrella")
    for words in (
        ["step/errands.pay", "--concurrency", "2"],
        ["tenant/umbrella", "--weight", "3"],
        ["tenant/umbrella/builds", "--rate", "10/m", "--burst", "4"],
        ["tenant/*", "--concurrency", "40"],
    ):
        assert house("limit", "set", *words).returncode == 0, words

    listed = house("limit", "ls").stdout
    assert "tenant/umbrella/builds  -        10/m  4" in listed
    house.token = member
    mine = [one["key"] for one in json.loads(house("limit", "ls", "-o", "json").stdout)]
    assert mine == ["tenant/*", "tenant/umbrella", "tenant/umbrella/builds"]
    assert house("limit", "set", "step/errands.pay", "--concurrency", "9").returncode == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["a//b", "--concurrency", "1"], 2),
        (["a", "--concurrency", "-1"], 2),
        (["a"], 2),
        (["a", "--rate", "fast"], 2),
        (["a", "--weight", "2"], 2),
        (["tenant/nobody", "--concurrency", "1"], 3),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(house: House, words: list[str], code: int) -> None:
    assert house("limit", "set", *words).returncode == code
    assert house("limit", "rm", words[0]).returncode == 3


def test_why_names_the_limit_and_who_has_it(house: House) -> None:
    assert house("limit", "set", "flow/errand.buy", "--concurrency", "0").returncode == 0
    run = house.start("errand.buy", "item=sofa")

    why = json.loads(house("run", "why", run, "-o", "json").stdout)

    reasons = {wait["step"]: wait["reasons"][0] for wait in why}
    assert (reasons["price"]["kind"], reasons["price"]["subject"]) == ("limit", "flow/errand.buy")
    assert house("limit", "rm", "flow/errand.buy").returncode == 0
    house.until(run, "waiting", "ok")


def test_metrics_tell_of_runs_and_steps(house: House) -> None:
    run = house.start("errand.post", '{"addresses": ["here"]}')
    assert house("run", "follow", run).returncode == 0

    answer = httpx.get(f"{house.url}/metrics", headers={"Authorization": f"Bearer {house.token}"})

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'skep_flow_runs_started_total{flow="errand.post"}' in answer.text
    assert 'step="errands.deliver"' in answer.text
    assert "skep_flow_loop_lag_seconds" in answer.text


def test_completion_knows_flows_and_runs(house: House) -> None:
    run = house.start("errand.hold", "shelf=c")

    assert "errand.hold" in house("__complete", "flow", "show", "").stdout
    assert run in house("__complete", "run", "why", "").stdout


def test_a_picture_of_a_run_is_redrawn_until_it_ends(house: House) -> None:
    run = house.start("errand.buy", "item=pen")
    house.until(run, "waiting", "ok")
    terminal = house.terminal("run", "graph", run, "--follow")
    try:
        terminal.until("Buy pen for 30?")
        assert house("run", "approve", run, "ok").returncode == 0
        terminal.until("errand.buy: succeeded")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_who_follows_sees_the_items_of_a_fan_out_as_one(house: House) -> None:
    run = house.start("errand.hold", "shelf=f")
    house.until(run, "waiting")
    detail = Client(Context(url=house.url, token=house.token)).get(f"/v1/runs/{run}", RunDetail)
    picture = Picture(detail)

    for step in ("roll", "roll[0]", "roll[1].create", "roll[1].c[7]"):
        at = "2026-01-01T00:00:00Z"
        picture.take(RunEventView(sequence=1, run=run, step=step, kind="started", at=at))

    assert list(picture.groups) == ["go", "roll"]
    assert len(picture.groups["roll"].states) == 4


def test_files_of_flows_may_stand_in_a_directory(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("flow: a\nsteps:\n  b: {flow: b}\n")
    (tmp_path / "b.yaml").write_text("flow: b\nsteps:\n  one: {use: errands.price, with: {item: x}}\n")

    assert house("flow", "check", str(tmp_path)).stderr == "Right: a, b.\n"
