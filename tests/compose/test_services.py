"""What a service says, as control will read it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.compose.conftest import Load

from skep.compose import ComposeError
from skep.model.spec import (
    Dependency,
    EndpointSpec,
    Extensions,
    FileMount,
    HealthCheck,
    Mount,
    NetworkAttachment,
    Placement,
    PublishedPort,
    Resources,
    RestartPolicy,
    ServiceSpec,
    Ulimit,
)

Web = Callable[..., ServiceSpec]
Message = Callable[..., str]


@pytest.mark.parametrize(
    ("entry", "ports"),
    [
        ("80", [(80, None, "tcp", "0.0.0.0")]),
        ("'8080:80'", [(80, 8080, "tcp", "0.0.0.0")]),
        ("22:22", [(22, 22, "tcp", "0.0.0.0")]),
        ("127.0.0.1:53:5353/udp", [(5353, 53, "udp", "127.0.0.1")]),
        ("127.0.0.1::80", [(80, None, "tcp", "127.0.0.1")]),
        ("9090-9091:8080-8081", [(8080, 9090, "tcp", "0.0.0.0"), (8081, 9091, "tcp", "0.0.0.0")]),
        ("3000-3001", [(3000, None, "tcp", "0.0.0.0"), (3001, None, "tcp", "0.0.0.0")]),
        ("{target: 80, published: '8080', host_ip: 10.0.0.1}", [(80, 8080, "tcp", "10.0.0.1")]),
        ("{target: '80', published: 8080, protocol: udp, name: x}", [(80, 8080, "udp", "0.0.0.0")]),
    ],
)
def test_ports(web: Web, entry: str, ports: list[tuple[int, int | None, str, str]]) -> None:
    expected = tuple(
        PublishedPort(target=target, published=published, protocol=protocol, host_ip=host)  # type: ignore[arg-type]
        for target, published, protocol, host in ports
    )

    assert web(f"ports: [{entry if entry[0] == '{' else repr(entry.strip(chr(39)))}]").ports == expected


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("99999999999", "65535"),
        ("'99999999999:1'", "65535"),
        ("'70000:80'", "65535"),
        ("'8080-8082:80'", "do not match"),
        ("'9-8:9-8'", "ends before"),
        ("'1-60000'", "at most 1024"),
        ("'80/sctp'", "sctp"),
        ("'[::1]:80:80'", "IPv4"),
        ("'nowhere:80:80'", "no IP address"),
        ("'80:'", "missing"),
        ("{published: 80}", "target"),
        ("{target: 80, published: 8000-9000}", "range to choose from"),
        ("{target: .inf}", "must be a whole number or text"),
    ],
)
def test_ports_that_are_none_are_refused(refused: Message, entry: str, words: str) -> None:
    message = refused(f"ports:\n  - {entry}")

    assert message.startswith("compose.yaml:5: services.web.ports[0]")
    assert words in message


def test_volumes_and_tmpfs(web: Web, home: Path) -> None:
    body = """volumes:
  - data:/data/./x/
  - data:/ro:ro,nocopy
  - /anonymous
  - ./here:/here:ro,z
  - {type: bind, source: ~/there, target: /there, bind: {create_host_path: false}}
  - {type: tmpfs, target: /fast, tmpfs: {size: 64m, mode: 01777}}
tmpfs: /run:size=1m,mode=755"""

    spec = web(body, "volumes: {data: {}}", environment={"HOME": "/home/bee"})

    assert spec.mounts == (
        Mount(type="volume", target="/data/x", source="data"),
        Mount(type="volume", target="/ro", source="data", read_only=True, nocopy=True),
        Mount(type="volume", target="/anonymous"),
        Mount(type="bind", target="/here", source=f"{home}/here", read_only=True, create_host_path=True),
        Mount(type="bind", target="/there", source="/home/bee/there"),
        Mount(type="tmpfs", target="/fast", size=64 << 20, mode=0o1777),
        Mount(type="tmpfs", target="/run", size=1 << 20, mode=0o755),
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("unknown:/x", "'unknown' is not defined"),
        ("a:b:c:d", "too many colons"),
        ("data:relative", "no absolute path"),
        ("data:/", "root"),
        ("data:/x/../..", "root"),
        ("data:/x:wo", "unknown option"),
        ("'C:\\x:/x'", "Windows"),
        ("{type: volume, source: data, target: /x, volume: {subpath: y}}", "subpath is not supported"),
        ("{type: npipe, source: x, target: /x}", "npipe"),
        ("{type: volume}", "target"),
        ("{type: bind, target: /x}", "source"),
    ],
)
def test_volumes_that_cannot_be_mounted_are_refused(refused: Message, entry: str, words: str) -> None:
    assert words in refused(f"volumes: [{entry}]", "volumes: {data: {}}")


def test_two_mounts_at_one_target_are_refused(refused: Message) -> None:
    assert "/x already: services.web.volumes[0]" in refused("volumes: ['/x']\ntmpfs: ['/x/']")
    message = refused(
        "volumes: [/run/secrets/s]\nsecrets: [s]", "secrets: {s: {environment: S}}", environment={"S": "1"}
    )
    assert "'s' is mounted at /run/secrets/s, where something is mounted already" in message


def test_commands_are_split_as_a_shell_would(web: Web) -> None:
    spec = web("command: sh -c 'echo $$HOME' \"a b\"\nentrypoint: []")

    assert spec.command == ("sh", "-c", "echo $HOME", "a b")
    assert spec.entrypoint == ()
    assert web("command: null").command is None


def test_environment_comes_from_files_then_from_the_map_then_from_the_caller(web: Web) -> None:
    body = """env_file: [one.env, {path: missing.env, required: false}, {path: raw.env, format: raw}]
environment: [OWN=own, CALLER, ABSENT, TWO=2]"""
    files = {"one.env": "ONE=1\nTWO=x\nABSENT=file\nREF=$CALLER-$OWN", "raw.env": "RAW='$x'"}

    spec = web(body, files=files, environment={"CALLER": "c"})

    assert spec.environment == {
        "ONE": "1",
        "TWO": "2",
        "REF": "c-own",
        "RAW": "'$x'",
        "OWN": "own",
        "CALLER": "c",
    }


def test_environment_values_are_text_as_compose_prints_them(web: Web) -> None:
    spec = web("environment: {A: 1.50, B: true, C: 0o17, D: yes, E: '', F: 1_000}")

    assert spec.environment == {"A": "1.5", "B": "true", "C": "15", "D": "yes", "E": "", "F": "1000"}


def test_env_files_are_refused_with_their_own_line(refused: Message) -> None:
    assert "bad.env:2: " in refused("env_file: bad.env", files={"bad.env": "A=1\n= 2"})
    assert "cannot read" in refused("env_file: none.env")
    assert "format: must be raw" in refused("env_file: [{path: x, format: yaml}]")


def test_labels_come_from_files_then_from_the_map(web: Web) -> None:
    spec = web("label_file: l\nlabels: [a, b=2, c=3]", files={"l": "c=0\nd=4"})

    assert spec.labels == {"a": "", "b": "2", "c": "3", "d": "4"}


def test_health_checks(web: Web, refused: Message, warned: Message) -> None:
    spec = web("healthcheck: {test: curl x, interval: 1m30s, timeout: 3s, retries: 5, start_interval: 1s}")

    assert spec.healthcheck == HealthCheck(
        test=("CMD-SHELL", "curl x"), interval=90.0, timeout=3.0, retries=5, start_interval=1.0
    )
    assert web("healthcheck: {disable: true}").healthcheck == HealthCheck(test=("NONE",))
    assert web("healthcheck: {test: [NONE]}").healthcheck == HealthCheck(test=("NONE",))
    assert "healthcheck.test: must be" in refused("healthcheck: {test: [curl, x]}")
    assert "no duration" in refused("healthcheck: {test: x, interval: '10'}")
    assert "own times" in warned("healthcheck: {interval: 10s}")


@pytest.mark.parametrize(
    ("body", "policy"),
    [
        ("restart: 'no'", RestartPolicy(condition="no")),
        ("restart: on-failure:5", RestartPolicy(condition="on-failure", max_attempts=5)),
        ("restart: always", RestartPolicy(condition="always")),
        ("deploy: {restart_policy: {condition: none}}", RestartPolicy(condition="no")),
        (
            "restart: always\ndeploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3}}",
            RestartPolicy(condition="on-failure", delay=5.0, max_attempts=3),
        ),
        ("hostname: x", RestartPolicy()),
    ],
)
def test_restart_policies(web: Web, body: str, policy: RestartPolicy) -> None:
    assert web(body).restart == policy


def test_a_job_that_others_wait_for_is_not_restarted(load: Load) -> None:
    project = load(
        "services: {job: {image: x}, web: {image: x, depends_on: "
        "{job: {condition: service_completed_successfully}}}}"
    )

    assert project.services["job"].spec.restart == RestartPolicy(condition="no")
    assert project.services["web"].spec.restart == RestartPolicy()


def test_resources_have_an_older_and_a_newer_place(web: Web, refused: Message) -> None:
    limits = "limits: {cpus: '0.5', memory: 64M, pids: 50}"
    newer = f"deploy: {{replicas: 3, resources: {{{limits}, reservations: {{memory: 8m}}}}}}"
    older = "scale: 3\ncpus: 0.5\nmem_limit: 64m\npids_limit: 50\nmem_reservation: 8m"
    resources = Resources(cpus=0.5, memory=64 << 20, pids=50, memory_reservation=8 << 20)

    assert web(newer).resources == web(older).resources == resources
    assert web(newer).replicas == web(older).replicas == 3
    assert "differs from mem_limit" in refused("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}")
    assert "differs from scale" in refused("scale: 2\ndeploy: {replicas: 3}")
    assert web("pids_limit: -1\nmem_limit: 0").resources == Resources()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("deploy: {replicas: 1e12}", "replicas: must be "),
        ("deploy: {replicas: 1000000000000}", "from 0 to 10000"),
        ("scale: -1", "from 0 to 10000"),
        ("scale: 1.5", "must be a whole number"),
        ("cpus: .nan", "must be a number"),
        ("cpus: 4096", "from 0 to 1024"),
        ("mem_limit: 1m", "at least 4m"),
        ("mem_limit: 99999999999999999999999", "too large"),
        ("mem_limit: lots", "no size"),
        ("mem_limit: 8m\nmem_reservation: 16m", "more memory is reserved"),
        ("stop_grace_period: 99999h", "30 days"),
        ("stop_signal: SIGNOTHING", "no signal"),
        ("cap_add: [CAP_FLY]", "no capability"),
        ("hostname: -x", "no host name"),
        ("working_dir: here", "absolute"),
        ("user: 1000", "put it in quotes"),
        ("restart: sometimes", "must be no, always"),
        ("sysctls: {kernel.panic: 1}", "a container's own"),
        ("ulimits: {nofile: {soft: 2, hard: 1}}", "above the hard"),
        ("ulimits: {flies: 1}", "no limit of Linux"),
        ("extra_hosts: ['a:1.2.3.4', 'a:1.2.3.5']", "one address"),
        ("extra_hosts: ['a:b']", "no IP address"),
        ("image: 'Not An Image'", "no image reference"),
        ("image: ''", "no image reference"),
        ("pull_policy: sometimes", "pull_policy"),
        ("x-skep: {statefull: true}", "did you mean stateful?"),
        ("x-skep: {system_disk: big}", "no size"),
        ("x-skep: {stateful: 3}", "must be true or false"),
        ("x-skep: {security_groups: web}", "Expected `array`"),
        (
            "x-skep: {priority: system-node-critical}",
            "is one of low, normal, high, not 'system-node-critical'",
        ),
        ("x-skep: {endpoints: ['a b.com']}", "is no host name"),
        ("x-skep: {endpoints: [localhost]}", "take a name below it"),
        ("x-skep: {endpoints: [{hosst: shop.localhost}]}", "did you mean host?"),
        ("x-skep: {endpoints: [{rate: often}]}", "Expected `int"),
        ("x-skep: {endpoints: 3}", "must be a list"),
        ("command: echo 'open", "cannot be split"),
        ("privileged: true", "privileged is not supported"),
        ("devices: [/dev/kvm]", "devices is not supported"),
        ("pid: host", "pid is not supported"),
        ("network_mode: host", "network_mode: host is not supported"),
        ("network_mode: service:db", "not supported"),
        ("platform: windows/amd64", "linux/amd64"),
        ("volumes_from: [db]", "volumes_from is not supported"),
        ("imgae: x", "unknown key 'imgae'; did you mean 'image'?"),
        ("init: maybe", "must be true or false"),
        ("tty: [1]", "must be true or false or text, not a list"),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_users_words(refused: Message, body: str, words: str) -> None:
    message = refused(body)

    assert words in message
    assert message.startswith("compose.yaml:")


@pytest.mark.parametrize(
    "body",
    [
        "privileged: false",
        "ipc: private",
        "platform: linux/amd64",
        "deploy: {mode: replicated}",
        "devices: []",
    ],
)
def test_what_asks_for_nothing_special_is_not_warned_about(warned: Message, body: str) -> None:
    assert warned(body) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "container_name: cc",
            "compose.yaml:4: services.web.container_name: not acted on: containers",
        ),
        ("deploy: {labels: {a: b}}", "web.deploy.labels: not acted on yet"),
        ("network_mode: bridge", "bridge: not acted on"),
        ("logging: {driver: syslog}", "logging"),
        ("dns: 1.1.1.1", "resolver"),
        ("volumes: [/host:/x]", "only admins"),
        ("extra_hosts: ['host.docker.internal:host-gateway']", "no name for the host"),
        ("build: {context: ., cache_from: [x]}\nimage: x", "services.web.build.cache_from"),
    ],
)
def test_what_is_not_acted_on_is_warned_about(warned: Message, body: str, words: str) -> None:
    assert words in warned(body, files={"Dockerfile": "FROM x"})


def test_the_process_and_its_rights(web: Web) -> None:
    body = """user: 1000:1000
group_add: [audio, 44]
working_dir: /srv
hostname: web.example
cap_add: [net_admin, CAP_SYS_TIME]
cap_drop: [ALL]
init: true
tty: yes
stdin_open: 'true'
read_only: true
shm_size: 128m
sysctls: [net.core.somaxconn=1024]
ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
extra_hosts: ['db:10.0.0.2', 'six=[::1]']
stop_signal: 15
stop_grace_period: 1m
expose: [3000, '8000-8001/udp']
x-skep: {stateful: true, system_disk: 2g, keep_system_disk: yes}"""

    spec = web(body.replace("stop_signal: 15", "stop_signal: '15'"))

    assert spec.user == "1000:1000"
    assert spec.group_add == ("audio", "44")
    assert (spec.cap_add, spec.cap_drop) == (("CAP_NET_ADMIN", "CAP_SYS_TIME"), ("ALL",))
    assert (spec.init, spec.tty, spec.stdin_open, spec.read_only) == (True, True, True, True)
    assert spec.ulimits == {"nofile": Ulimit(soft=10, hard=20), "nproc": Ulimit(soft=5, hard=5)}
    assert spec.extra_hosts == {"db": "10.0.0.2", "six": "::1"}
    assert (spec.stop_signal, spec.stop_grace_period) == ("SIGTERM", 60.0)
    assert spec.expose == ("3000", "8000/udp", "8001/udp")
    assert spec.x_skep == Extensions(stateful=True, system_disk=2 << 30, keep_system_disk=True)


def test_networks(web: Web, refused: Message) -> None:
    body = """networks:
  front: {aliases: [www], ipv4_address: 10.5.0.9, priority: 10}
  back:
mac_address: 02-42-AC-11-00-02"""
    networks = "networks: {front: {ipam: {config: [{subnet: 10.5.0.0/24}]}}, back: }"

    assert web(body, networks).networks == {
        "front": NetworkAttachment(
            aliases=("www",), ipv4_address="10.5.0.9", priority=10, mac_address="02:42:ac:11:00:02"
        ),
        "back": NetworkAttachment(),
    }
    assert "'back' is not defined" in refused("networks: [back]")
    assert "one replica only" in refused(body + "\nscale: 2", networks)
    assert "not in the subnet" in refused(body.replace("10.5.0.9", "10.6.0.9"), networks)
    assert "itself" in refused(body.replace("10.5.0.9", "10.5.0.255"), networks)
    dual = networks.replace("}]}}", "}, {subnet: 'fd00:1::/64'}]}}")
    six = body.replace("ipv4_address: 10.5.0.9", "ipv6_address: 'fd00:1::9'")
    assert web(six, dual).networks["front"].ipv6_address == "fd00:1::9"
    assert "not in the subnet" in refused(six.replace("fd00:1::9", "fd00:2::9"), dual)
    assert "one replica only" in refused(six + "\nscale: 2", dual)
    assert "no IPv6 address" in refused(six.replace("fd00:1::9", "10.5.0.9"), dual)
    wide = networks.replace("}]}}", "}, {subnet: 10.6.0.0/24}]}}")
    assert web(body.replace("10.5.0.9", "10.6.0.9"), wide).networks["front"].ipv4_address == "10.6.0.9"
    assert "itself" in refused(body.replace("10.5.0.9", "10.6.0.255"), wide)
    assert "no IPv4 address" in refused(body.replace("10.5.0.9", "10.5.0.999"), networks)


def test_a_default_network_of_the_project_is_for_everyone(load: Load) -> None:
    plain = load("services: {web: {image: x}}")
    own = load("services: {web: {image: x}}\nnetworks: {default: {internal: true}}")

    assert plain.services["web"].spec.networks == {}
    assert plain.networks == {}
    assert own.services["web"].spec.networks == {"default": NetworkAttachment()}
    assert own.networks["default"].internal


def test_links_are_names_and_dependencies(load: Load) -> None:
    project = load("services: {web: {image: x, links: ['db:mysql']}, db: {image: x}}")

    assert project.services["web"].spec.depends_on == {"db": Dependency(restart=True)}
    assert project.services["db"].spec.networks == {"default": NetworkAttachment(aliases=("mysql",))}
    assert "default" in project.networks


def test_configs_and_secrets(load: Load) -> None:
    text = """services:
  web:
    image: x
    configs: [c, {source: c, target: /etc/c, uid: '33', gid: '33', mode: 0440}]
    secrets: [s, {source: s, target: other, mode: '0400'}]
configs:
  c: {content: "hello $$x ${N}"}
  unused: {file: ./nowhere}
secrets:
  s: {file: ./secret.txt}
"""
    project = load(text, files={"secret.txt": "hunter2"}, environment={"N": "1"})

    assert project.services["web"].spec.configs == (
        FileMount(source="c", target="/c"),
        FileMount(source="c", target="/etc/c", uid=33, gid=33, mode=0o440),
    )
    assert project.services["web"].spec.secrets == (
        FileMount(source="s", target="/run/secrets/s"),
        FileMount(source="s", target="/run/secrets/other", mode=0o400),
    )
    assert project.configs["c"].content == b"hello $x 1"
    assert project.secrets["s"].content == b"hunter2"
    assert "unused" not in project.configs


def test_builds(load: Load, home: Path, refused: Message) -> None:
    text = """services:
  web:
    build:
      {context: ./app, dockerfile: web.df, args: [A=1, CALLER, GONE], target: t, tags: [a:1], no_cache: true}
  job: {image: "team/job:1", build: {dockerfile_inline: "FROM x"}}
"""
    project = load(text, files={"app/web.df": "FROM x"}, environment={"CALLER": "c"})
    build, job = project.services["web"].build, project.services["job"].build

    assert build is not None
    assert (build.context, build.dockerfile, build.target) == (home / "app", "web.df", "t")
    assert build.args == {"A": "1", "CALLER": "c"}
    assert (build.tags, build.no_cache) == (("a:1",), True)
    assert project.services["web"].spec.image == "shop-web"
    assert job is not None
    assert (job.context, job.dockerfile_inline) == (home, "FROM x")
    assert project.services["job"].spec.image == "team/job:1"
    assert "is no directory" in refused("build: ./nowhere")
    assert "there is no Dockerfile" in refused("build: ./app")
    assert "not fetched" in refused("build: https://example.org/x.git")
    with pytest.raises(ComposeError, match="neither image nor build"):
        load("services: {web: {hostname: x}}")


def test_a_name_leads_to_one_address_unless_it_is_to_lead_to_all(web: Web, refused: Message) -> None:
    assert (web("tty: true").endpoint_mode, web("deploy: {endpoint_mode: dnsrr}").endpoint_mode) == (
        "vip",
        "dnsrr",
    )
    assert "must be vip" in refused("deploy: {endpoint_mode: both}")


def test_placement(web: Web, refused: Message) -> None:
    found = web(
        "deploy: {placement: {constraints: [node.labels.disk==ssd, 'node.zone  !=  b'], "
        "preferences: [{spread: node.labels.rack}], max_replicas_per_node: 2}}"
    )

    assert found.placement == Placement(
        constraints=("node.labels.disk == ssd", "node.zone != b"),
        spread=("node.labels.rack",),
        max_per_host=2,
    )
    assert web("x-skep: {zones: [a, b], pack: true}").x_skep == Extensions(zones=("a", "b"), pack=True)
    assert "no constraint" in refused("deploy: {placement: {constraints: [node.zone ~ b]}}")
    assert "Hosts have no 'engine.labels.x'" in refused(
        "deploy: {placement: {constraints: [engine.labels.x == y]}}"
    )
    assert "Hosts have no 'rack'" in refused("deploy: {placement: {preferences: [{spread: rack}]}}")


def test_endpoints_are_texts_or_mappings_and_have_the_name_of_the_app(web: Web) -> None:
    found = web(
        """
x-skep:
  endpoints:
    - https://Shop.localhost/api/
    - {path: /img, sticky: true, rate: 5, timeout: 2m, tls: shop}
"""
    ).x_skep.endpoints

    assert found == (
        EndpointSpec(host="shop.localhost", path="/api"),
        EndpointSpec(host="shop.localhost", path="/img", sticky=True, rate=5, timeout=120.0, tls="shop"),
    )


def test_security_groups_are_named_under_x_skep(web: Web) -> None:
    assert web("x-skep: {security_groups: [web, db]}").x_skep == Extensions(security_groups=("web", "db"))
