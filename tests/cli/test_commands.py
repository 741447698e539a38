"""The commands against a server: what they print, and how they end."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from tests.cli.conftest import Skep, command

from skep.cli.follow import plain_line
from skep.model.host import LogLine
from skep.model.images import RegistryCredentials
from skep.model.views.runs import RunEventView
from skep.streams import pump

GOLDEN = Path(__file__).parent / "golden"

TABLES = {
    "ps": ["ps"],
    "apps": ["apps"],
    "show": ["show", "shop"],
    "releases": ["releases", "shop"],
    "releases-show": ["releases", "show", "shop", "1"],
    "diff": ["diff", "shop", "3"],
    "rollout-status": ["rollout", "status", "shop"],
    "app-move": ["app", "move", "shop", "--to-zone", "far", "--plan"],
    "stats": ["stats"],
    "image-ls": ["image", "ls"],
    "disk-ls": ["disk", "ls"],
    "net-ls": ["net", "ls"],
    "net-ports": ["net", "ports"],
    "net-map": ["net", "map"],
    "net-show": ["net", "show", "default"],
    "net-shares": ["net", "shares"],
    "net-egress-ls": ["net", "egress", "ls"],
    "net-group-ls": ["net", "group", "ls"],
    "net-group-show": ["net", "group", "show", "db"],
    "host-ls": ["host", "ls"],
    "host-show": ["host", "show", "host1"],
    "zone-ls": ["zone", "ls"],
    "bus-ls": ["bus", "ls"],
    "pool-ls": ["pool", "ls"],
    "run-ls": ["run", "ls"],
    "run-show": ["run", "show", "00000000000000000002"],
}

COMPOSE = """\
services:
  web:
    build: web
    ports: ["8080:80"]
    deploy: {replicas: 2}
  db:
    image: db:1
    volumes: ["data:/data"]
volumes:
  data: {}
"""


@pytest.fixture
def shop(skep: Skep) -> Skep:
    """A project named shop in the directory."""
    (skep.directory / "compose.yaml").write_text(f"name: shop\n{COMPOSE}")
    (skep.directory / "web").mkdir()
    (skep.directory / "web" / "Dockerfile").write_text("FROM debian:bookworm\n")
    return skep


@pytest.fixture
def running(shop: Skep) -> Skep:
    assert shop("apply").returncode == 0
    return shop


def without_ages(text: str) -> str:
    return re.sub(r"(?<![\d.])\d+[smhd]\b", "AGE", text)


def test_a_plan_is_kept_for_its_owner_alone_and_carried_out(shop: Skep) -> None:
    planned = shop("plan", "--out", "shop.plan")
    (shop.directory / "compose.yaml").unlink()

    done = shop("apply", "--plan", "shop.plan")

    assert (planned.returncode, done.returncode) == (0, 0)
    assert (shop.directory / "shop.plan").stat().st_mode & 0o777 == 0o600
    assert sorted(shop.world.apps["shop"].services) == ["db", "web"]


def test_a_stale_plan_is_refused_and_says_what_became_of_the_app(shop: Skep) -> None:
    shop("plan", "--out", "shop.plan")
    file = shop.directory / "shop.plan"
    file.write_text(file.read_text().replace("3.2.01", "3.2.99"))

    done = shop("apply", "--plan", "shop.plan")

    assert done.returncode == 5
    assert "became another" in done.stderr


def test_the_status_of_an_app_names_what_is_not_as_it_should_be(running: Skep) -> None:
    done = running("status", "shop")

    assert done.returncode == 1
    assert "web-0  exited (137)  running    it is started again" in done.stdout
    assert "web has 2 of 2 to 10 replicas by cpu 50%." in done.stderr


def test_what_is_no_plan_is_refused(shop: Skep) -> None:
    done = shop("apply", "--plan", "compose.yaml")

    assert done.returncode == 2
    assert "is no plan" in done.stderr


def test_a_move_is_shown_and_asked_about_before_it_begins(running: Skep) -> None:
    over = ("app", "move", "shop", "--to-zone", "k8s")

    unanswered, done = running(*over), running(*over, "--yes")

    assert unanswered.returncode == 2
    assert "shop: zone-1 -> k8s, as revision 2" in unanswered.stderr
    assert "Give --yes." in unanswered.stderr
    assert done.returncode == 0
    assert "shop has moved." in done.stderr
    assert json.loads(running(*over, "--plan", "-o", "json").stdout)["target"] == ["k8s"]


def test_a_move_is_confirmed_or_taken_back(running: Skep) -> None:
    move = ("app", "move", "shop", "--yes")

    assert running(*move, "--confirm").returncode == 0
    assert running(*move, "--back", "--keep-new-data").returncode == 0
    assert running(*move, "--back", "--keep-new-data", "--drop-new-data").returncode == 2
    assert running(*move, "--confirm", "--back").returncode == 2
    assert running(*move, "--to-zone", "zone-1").returncode == 5


def test_scale_wants_services_with_numbers(running: Skep) -> None:
    assert running("scale", "shop", "web=3").returncode == 0
    assert running("scale", "shop", "web").returncode == 2
    assert running("scale", "shop").returncode == 2
    assert len([one for one in running("ps", "shop").stdout.splitlines() if "web-" in one]) == 3


def test_apply_builds_releases_follows_and_prints_the_urls(shop: Skep) -> None:
    done = shop("apply")

    assert (done.returncode, done.stdout) == (0, "http://127.0.0.1:8080\n")
    assert "Building shop-web:latest" in done.stderr
    assert "✓ web-0.start" in done.stderr
    assert "shop is running: 3 of 3 replicas run." in done.stderr
    assert shop.world.apps["shop"].services["web"].image == "shop-web:latest"  # type: ignore[index]


def test_a_network_has_several_subnets_and_grows(skep: Skep) -> None:
    subnets = ("--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64")
    made = skep("net", "create", "wide", *subnets, "--gateway", "fd00:1::9", "--ipv6")
    lost = skep("net", "create", "wide", *subnets, "--gateway", "10.9.0.1")
    grown = skep("net", "subnet", "add", "wide", "10.2.0.0/24")

    assert made.stderr == "Network wide has 10.1.0.0/24, fd00:1::/64.\n"
    assert (lost.returncode, grown.returncode) == (2, 0)
    assert "10.9.0.1 is in none of the subnets" in lost.stderr


def test_networks_are_made_reserved_from_and_shared(skep: Skep) -> None:
    made = skep("net", "create", "back", "--subnet", "10.1.0.0/24", "--internal")
    assert (made.returncode, made.stderr) == (0, "Network back has 10.1.0.0/24.\n")
    kept = skep("net", "reserve", "back", "10.1.0.10-10.1.0.19", "--for", "printers")
    assert (kept.returncode, kept.stderr) == (0, "10.1.0.10-10.1.0.19 is reserved.\n")
    assert skep("net", "unreserve", "back", "10.128.0.10-10.128.0.19").returncode == 0
    assert skep("net", "unreserve", "back", "10.1.0.5").returncode == 3
    assert "acme may accept it" in skep("net", "share", "back", "--with", "acme").stderr
    assert "external network shop/back" in skep("net", "accept", "shop/back").stderr
    assert "external network theirs" in skep("net", "accept", "shop/back", "--alias", "theirs").stderr
    assert skep("net", "accept", "back").returncode == 2
    assert skep("net", "unshare", "back", "--with", "acme").returncode == 0
    assert skep("net", "leave", "shop/back").returncode == 0


def test_egress_addresses_are_given_assigned_and_taken_back(skep: Skep) -> None:
    given = skep("net", "egress", "add", "zone-1", "203.0.113.12", "--for", "acme")
    assert (given.returncode, given.stderr) == (0, "1 egress address for zone zone-1.\n")
    assigned = skep("net", "egress", "assign", "default", "203.0.113.12")
    assert assigned.stderr == "Network default leaves by 203.0.113.12, on host-1.\n"
    assert skep("net", "egress", "unassign", "default").returncode == 0
    assert skep("net", "egress", "rm", "203.0.113.10").returncode != 0


def test_a_trace_says_where_it_stops_and_fails(running: Skep) -> None:
    done = running("net", "trace", "shop/web-0", "shop/web-1")

    assert done.returncode == 1
    assert "host-2  no      host-2 does not answer" in done.stdout
    assert "shop/web-0 does not reach shop/web-1" in done.stderr


def test_rules_of_security_groups_are_added_and_removed(skep: Skep) -> None:
    assert skep("net", "group", "create", "web").returncode == 0
    added = skep("net", "rule", "add", "web", "--protocol", "tcp", "--port", "80", "--cidr", "192.0.2.0/24")
    (rule,) = skep.world.groups["web"]
    removed = skep("net", "rule", "rm", "web", rule.id)

    assert (rule.protocol, rule.ports, rule.cidr) == ("tcp", "80", "192.0.2.0/24")
    assert f"{rule.id}  ingress    tcp       80     192.0.2.0/24" in added.stdout
    assert (removed.returncode, skep.world.groups["web"]) == (0, [])
    assert skep("net", "group", "rm", "web").returncode == 0
    assert skep("net", "group", "show", "web").returncode == 3


def test_endpoints_are_shown_with_what_was_asked_of_them(shop: Skep) -> None:
    listed, shown, asked = (
        shop("endpoint", *words) for words in (["ls"], ["show", "shop"], ["logs", "shop"])
    )

    assert "http://shop.localhost/  shop  web      1         42        1" in listed.stdout
    assert "http://shop.localhost/  1         42        2    1    0          1    3   web-0" in shown.stdout
    assert "200     3   512    web-0    1         GET shop.localhost/cart" in asked.stdout


def test_a_certificate_is_added_from_files(shop: Skep, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("a certificate")
    (tmp_path / "key.pem").write_text("a key")
    files = ["--certificate", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "key.pem")]

    added = shop("cert", "add", "shop", *files)

    assert "Certificate shop for shop.example.com is there" in added.stderr
    assert "valid until" in shop("cert", "ls").stdout
    assert "is ordered" in shop("cert", "renew", "shop.example.com").stderr
    assert shop("cert", "rm", "shop").returncode == 0
    assert shop("cert", "add", "shop", "--certificate", "none.pem", "--key", "none.pem").returncode == 2


def test_a_job_that_is_done_is_not_missing(shop: Skep) -> None:
    shop.world.finished["shop"] = 1

    done = shop("apply")

    assert "shop is running: 2 of 2 replicas run, 1 has finished." in done.stderr
    assert "2/2" in shop("apps").stdout
    assert "2 of 2 running, 1 has finished" in shop("show", "shop").stdout


def test_housekeeping_is_told_only_when_it_fails() -> None:
    assert plain_line(event("record", "succeeded"), 0.1) == ""
    assert plain_line(event("record", "failed", "no room"), 0.1) == "✗ record failed (0.1s): no room"
    assert plain_line(event("pull", "succeeded"), 0.1) == "✓ pull (0.1s)"


def event(step: str, kind: str, message: str = "") -> RunEventView:
    at = "2026-01-01T00:00:00Z"
    return RunEventView(sequence=1, run="r", step=step, kind=kind, at=at, message=message)


def test_apply_twice_has_nothing_to_do(running: Skep) -> None:
    done = running("apply", "--no-build")

    assert done.returncode == 0
    assert "Nothing to do." in done.stderr


def test_apply_can_be_left_waiting_for_nobody(shop: Skep) -> None:
    done = shop("apply", "--no-wait", "--no-build")

    assert done.returncode == 0
    assert "skep run follow" in done.stderr


def test_apply_that_fails_says_why_and_ends_with_one(shop: Skep) -> None:
    shop.world.fail_with = "apply"

    done = shop("apply")

    assert done.returncode == 1
    assert "error: apply shop: step web-1.start: no such luck" in done.stderr
    assert "skep run show" in done.stderr


def test_the_zone_of_an_app_may_be_said_with_the_command(shop: Skep) -> None:
    assert shop("apply", "--zone", "k8s").returncode == 0

    assert shop.world.apps["shop"].x_skep.zones == ("k8s",)


def test_plan_and_dry_run_change_nothing(shop: Skep) -> None:
    plan, dry = shop("plan"), shop("apply", "--dry-run")

    assert plan.stdout == dry.stdout == (GOLDEN / "plan.txt").read_text()
    assert shop.world.apps == {}
    assert shop.world.uploads == {}


def test_config_prints_what_the_file_comes_to(shop: Skep) -> None:
    done = shop("config", "-p", "other")

    spec = yaml.safe_load(done.stdout)
    assert spec["name"] == "other"
    assert spec["services"]["web"]["replicas"] == 2


def test_a_compose_file_with_errors_names_every_line(skep: Skep) -> None:
    (skep.directory / "compose.yaml").write_text("services:\n  web:\n    imag: x\n    image: [1]\n")

    done = skep("apply")

    assert done.returncode == 2
    assert "compose.yaml:3" in done.stderr
    assert "compose.yaml:4" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_compose_file_is_wrong_usage(skep: Skep) -> None:
    for arguments in (["apply"], ["apply", "nothing.yaml"], ["plan", "-f", "nothing.yaml"]):
        done = skep(*arguments)
        assert done.returncode == 2, done.stderr
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr


def test_tables_in_a_pipe_are_the_golden_ones(running: Skep) -> None:
    """Refresh them with `python -m tests.cli.refresh_golden` and read the difference."""
    for name, arguments in TABLES.items():
        done = running(*arguments)

        assert (done.returncode, done.stderr) == (0, ""), name
        assert without_ages(done.stdout) == (GOLDEN / f"{name}.txt").read_text(), name


def test_everything_that_shows_something_speaks_json_and_yaml(running: Skep) -> None:
    for text in ("ps", "show shop", "whoami", "version", "plan"):
        as_json, as_yaml = running(*text.split(), "-o", "json"), running(*text.split(), "-o", "yaml")
        assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout), text


def test_ps_hides_what_is_meant_to_be_stopped(running: Skep) -> None:
    assert running("stop", "shop").returncode == 0

    assert "web-0" not in running("ps").stdout
    assert "web-0" in running("ps", "--all").stdout


def test_apps_are_stopped_started_restarted_and_removed(running: Skep) -> None:
    for arguments in (["stop", "shop/web"], ["start", "shop"], ["restart", "shop/db"], ["rm", "shop"]):
        assert running(*arguments).returncode == 0, arguments
    assert running("show", "shop").returncode == 3


def test_data_is_not_removed_without_a_yes(running: Skep) -> None:
    refused = running("rm", "shop", "--volumes")

    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert running("rm", "shop", "--volumes", "--yes").returncode == 0


def log_line(second: int, text: str) -> LogLine:
    return LogLine(time=f"2026-01-01T00:00:{second:02d}.0Z", stream="stdout", text=text)


def test_logs_of_an_app_carry_the_replica_and_of_a_replica_do_not(running: Skep) -> None:
    running.world.logs = {"web-0": [log_line(1, "a"), log_line(3, "c")], "web-1": [log_line(2, "b")]}

    assert running("logs", "shop/web").stdout == "web-0 | a\nweb-1 | b\nweb-0 | c\n"
    assert running("logs", "shop/web-0", "--tail", "1").stdout == "c\n"
    assert running("logs", "shop/web-1", "-t").stdout == "2026-01-01T00:00:02.0Z b\n"
    assert running("logs", "shop/nope").returncode == 3
    assert running("logs", "shop/web", "--since", "yesterday").returncode == 2


def test_logs_are_followed_until_interrupted(running: Skep) -> None:
    running.world.logs = {"web-0": [log_line(1, "a")]}
    following = running.start("logs", "-f", "shop/web-0")
    assert following.stdout is not None

    assert following.stdout.readline() == "a\n"
    running.world.logs["web-0"].append(log_line(2, "b"))
    assert following.stdout.readline() == "b\n"
    following.send_signal(2)
    assert following.wait(10) == 130
    following.communicate()


def test_exec_passes_input_output_and_the_exit_code(running: Skep) -> None:
    done = running.process("exec", "shop/web-0", "--", "sh", "-c", "cat; echo err >&2; exit 7", stdin="hello")

    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "err\n")


def test_exec_without_dashes_leaves_options_to_the_command(running: Skep) -> None:
    assert running.process("exec", "shop/db", "sh", "-c", "echo $0", "-o").stdout == "-o\n"


def test_exec_carries_large_output_whole(running: Skep) -> None:
    done = running.process("exec", "shop/db-0", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")

    assert len(done.stdout) == 3_000_000


def test_exec_says_what_is_wrong(running: Skep) -> None:
    assert running.process("exec", "shop", "--", "true").returncode == 2
    assert running.process("exec", "shop/nope", "--", "true").returncode == 3
    running.token = "wrong"
    assert running.process("exec", "shop/db-0", "--", "true").returncode == 4


def test_images_come_and_go(skep: Skep) -> None:
    (skep.directory / "root.tar").write_bytes(b"a tar")

    assert skep("image", "import", "root.tar", "base:1").returncode == 0
    assert skep.world.uploads["base:1"] == b"a tar"
    assert skep("image", "import", "-", "base:2", stdin="piped").returncode == 0
    assert skep.world.uploads["base:2"] == b"piped"
    assert skep("image", "pull", "web:1", "-u", "ann", "--password-stdin", stdin="pw\n").returncode == 0
    for words in ([], ["debian"], ["bookworm"], ["trixie"]):
        assert skep("image", "bootstrap", *words).returncode == 0
    assert {"debian:bookworm", "debian:trixie"} <= skep.world.images.keys()
    assert skep("image", "save", "base:1", "saved.tar").returncode == 0
    assert (skep.directory / "saved.tar").read_text() == "base:1 and its layers"
    assert skep("image", "save", "base:1", "-").stdout == "base:1 and its layers"
    assert skep("image", "save", "none:1", "none.tar").returncode == 3
    assert not list(skep.directory.glob("none.tar*"))
    assert skep("image", "rm", "base:1").returncode == 0
    assert skep("image", "rm", "base:1").returncode == 3
    assert "5.0 MiB" in skep("image", "prune").stderr
    assert skep("image", "import", "nothing.tar").returncode == 2


def test_events_that_keep_a_stream_alive_are_nothing_to_follow(
    skep: Skep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "KEEP_ALIVE", 0.02)
    skep.world.pace = 0.2

    done = skep("image", "pull", "web:1")

    assert (done.returncode, done.stderr.count("✓")) == (0, 1)


def test_tenants_users_and_tokens_come_and_go(skep: Skep) -> None:
    assert skep("tenant", "create", "acme", "--memory", "8g").returncode == 0
    assert skep.world.tenants["acme"].quota.memory == 8 << 30
    assert skep("tenant", "create", "acme").returncode == 5
    assert skep("user", "create", "ann", "--of", "acme", "--role", "viewer").returncode == 0
    assert skep("token", "create", "ci", "--user", "ann", "--expires", "30d").stdout.startswith("skep_")
    assert skep("token", "revoke", "tok-ci").returncode == 0
    assert skep("user", "rm", "ann", "--yes").returncode == 0
    assert skep("tenant", "rm", "acme", "--yes").returncode == 0


def test_disks_and_runs_are_acted_on(running: Skep) -> None:
    assert running("disk", "resize", "shop_data", "2g").returncode == 0
    assert running.world.disks["shop_data"] == 2 << 30
    assert running("disk", "resize", "shop_data", "much").returncode == 2
    assert running("disk", "rm", "shop_data", "--yes").returncode == 0
    assert running("run", "follow", "00000000000000000002").returncode == 0
    assert running("run", "resolve", "00000000000000000002", "web-0.start", "retry").returncode == 0
    assert running("run", "cancel", "00000000000000000002").returncode == 0
    assert running("run", "cancel", "nope").returncode == 3


def test_events_are_followed(skep: Skep) -> None:
    following = skep.start("events", "shop", "-o", "json")
    assert following.stdout is not None

    assert json.loads(following.stdout.readline())["name"] == "web-0"
    following.terminate()
    following.communicate()


def test_failures_end_with_their_code(running: Skep) -> None:
    assert running("show", "nope").returncode == 3
    assert running("net", "rm", "default").returncode == 5
    assert running("nonsense").returncode == 2
    assert running("ps", "--nonsense").returncode == 2
    running.token = "wrong"
    assert running("ps").returncode == 4
    running.token = "viewer-secret"
    assert running("host", "ls").returncode == 4


def test_a_server_that_is_not_there_is_named_with_what_to_do(skep: Skep) -> None:
    skep.url = "http://127.0.0.1:9"

    for arguments in (["ps"], ["events"], ["status"], ["run", "show", "x"]):
        assert skep(*arguments).returncode == 6, arguments
    done = skep("ps")
    assert "skep does not answer at http://127.0.0.1:9" in done.stderr
    assert "skep up" in done.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://[::1", "http://a b"])
def test_a_url_that_is_none_is_no_traceback(skep: Skep, url: str) -> None:
    skep.url = url

    done = skep("ps")

    assert done.returncode in (2, 6)
    assert "Traceback" not in done.stderr


def test_login_is_remembered_and_private(skep: Skep) -> None:
    url = skep.url
    assert skep("login", url, "--token", "wrong").returncode == 4
    skep.extra = {"SKEP_URL": "", "SKEP_TOKEN": ""}

    assert skep("login", url, stdin="member-secret\n").returncode == 0

    path = skep.directory / "home" / ".config" / "skep" / "config.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "User:   member" in skep("whoami").stdout


def test_the_local_admin_token_is_for_the_local_server_only(skep: Skep) -> None:
    (skep.directory / "etc" / "admin.token").write_text("admin-secret\n")
    listen = skep.url.removeprefix("http://")

    skep.extra = {"SKEP_URL": "", "SKEP_TOKEN": "", "SKEP_LISTEN": listen}
    assert "Role:   admin" in skep("whoami").stdout
    skep.extra = {"SKEP_TOKEN": ""}
    assert skep("whoami").returncode == 4


def test_an_admin_acts_in_the_tenant_it_names(skep: Skep) -> None:
    assert "Tenant: acme" in skep("whoami", "--tenant", "acme").stdout


def test_the_version_comes_at_once() -> None:
    def took() -> float:
        began = time.monotonic()
        subprocess.run(command(["--version"]), check=True, capture_output=True)
        return time.monotonic() - began

    assert min(took() for _ in range(5)) < 0.3


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(skep: Skep, shell: str) -> None:
    done = skep.process("completion", shell)

    assert done.returncode == 0
    for word in ("apply", "image", "bootstrap", "--force-recreate", "__complete"):
        assert word in done.stdout


def test_completion_knows_the_apps_and_is_silent_without_a_server(running: Skep) -> None:
    assert "shop" in running.process("__complete", "show", "").stdout
    assert "shop/web-0" in running.process("__complete", "exec", "").stdout
    running.url = "http://127.0.0.1:9"
    silent = running.process("__complete", "show", "")
    assert (silent.returncode, silent.stderr) == (0, "")


def test_a_reader_that_goes_away_is_no_error(running: Skep) -> None:
    running.world.logs = {"web-0": [log_line(1, "x" * 100) for _ in range(20_000)]}
    argv = " ".join([*command(["logs", "shop/web-0"]), "| head -1"])

    done = subprocess.run(
        ["sh", "-c", argv],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=running.environment(),
    )

    assert done.stderr == ""


def test_hosts_are_cordoned_drained_labelled_and_removed(running: Skep) -> None:
    assert "Nothing new is placed on host1" in running("host", "cordon", "host1").stderr
    drained = running("host", "drain", "host1")
    assert "skep run follow run-drain" in drained.stderr
    assert drained.stdout == "shop/db-0 stays: its data disks are on this host\n"
    waited = running("host", "drain", "host1", "--wait")
    assert (waited.returncode, waited.stdout) == (5, drained.stdout)
    assert running("host", "uncordon", "host1").returncode == 0
    assert running("host", "label", "host1", "rack=7", "disk-").returncode == 0
    assert "rack=7" in running("host", "show", "host1").stdout
    assert running("host", "label", "host1", "rack").returncode != 0
    assert running("host", "rm", "host1").returncode != 0
    assert running("host", "rm", "host1", "--lost").returncode == 0
    assert running("host", "rm", "host1", "--fenced").returncode == 0


def test_a_cluster_that_cannot_be_a_zone_is_an_error_that_says_what_to_do(
    running: Skep, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("clusters: []\nusers: [{name: nobody, user: {token: t}}]\n")

    checked = running("cluster", "check", "--kubeconfig", str(file))

    assert checked.returncode == 1
    assert "bind clusterroles" in checked.stdout
    assert "skep cluster rights | kubectl apply -f -" in checked.stderr


def test_a_cluster_is_checked_with_the_content_of_the_files_that_its_kubeconfig_names(
    running: Skep, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text("admin")
    file = tmp_path / "kubeconfig"
    file.write_text("users: [{name: admin, user: {client-key: key.pem}}]\n")
    lacking = tmp_path / "lacking"
    lacking.write_text("users: [{name: admin, user: {client-key: none.pem}}]\n")

    assert running("cluster", "check", "--kubeconfig", str(file)).returncode == 0
    assert "none.pem: No such file" in running("cluster", "check", "--kubeconfig", str(lacking)).stderr
    assert running("cluster", "rights").stdout.startswith("---")


def test_a_cluster_becomes_a_zone_and_the_password_of_its_registry_is_no_argument(
    running: Skep, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("users: [{name: admin, user: {token: t}}]\n")
    words = ("--kubeconfig", str(file), "--registry", "registry.example.com/skep")

    added = running("zone", "add", "k8s", *words, "-u", "ann", "--password-stdin", stdin="s3cret\n")
    registry, credentials = running.world.registries["k8s"]
    shown = running("zone", "show", "k8s")

    assert (added.returncode, registry) == (0, "registry.example.com/skep")
    assert credentials == RegistryCredentials(username="ann", password="s3cret")
    assert "Disks are of class fast." in added.stdout
    assert "s3cret" not in added.stdout + added.stderr + shown.stdout
    assert "https://203.0.113.7:6443" in shown.stdout
    assert running("zone", "set", "k8s", "--kubeconfig", str(file)).returncode == 0
    assert running("zone", "rm", "k8s", "--lost", "--yes").returncode == 0


def test_a_zone_needs_a_region_or_a_cluster_with_a_registry(running: Skep, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("users: [{name: nobody, user: {token: t}}]\n")

    assert "--region" in running("zone", "add", "b").stderr
    assert "--kubeconfig" in running("zone", "add", "b", "--region", "r", "--registry", "x/y").stderr
    assert "--registry" in running("zone", "add", "b", "--kubeconfig", str(file)).stderr
    refused = running("zone", "add", "b", "--kubeconfig", str(file), "--registry", "x.example/y")
    assert "cannot be a zone as it is. Not allowed: bind clusterroles." in refused.stderr
    assert running("zone", "show", "b").returncode != 0


def test_zones_and_pools_come_and_go(running: Skep) -> None:
    assert running("zone", "add", "b", "--region", "north").returncode == 0
    assert "Give --yes." in running("zone", "rm", "b").stderr
    assert running("zone", "rm", "b", "--yes").returncode == 0
    made = running("pool", "add", "gold", "--zone", "b", "--memory-overcommit", "1", "--label", "tier=gold")
    assert made.returncode == 0
    assert running("pool", "set", "gold", "--everybody").returncode == 0
    assert running("pool", "rm", "gold").returncode == 0
    assert running("pool", "rm", "local").returncode != 0
