"""What is in deploy/ is well-formed, means what it says, and fits the program."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # yamllint's own, without types.

from runtime.config import Config, load
from runtime.config_parsers import duration
from runtime.config_variables import VARIABLES, example_env

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
HADOLINT = BIN / "hadolint"

NO_FILE = Path("there-is-no-such-file")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and arguments, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def compose() -> dict[str, Any]:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(content, dict)
    return content


def in_the_container() -> Config:
    """What the orders service of compose.yaml makes of its environment."""
    image = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments("ENV"))))
    ours = {variable.name for variable in VARIABLES.values()}
    image = {name: text for name, text in image.items() if name in ours}
    service: dict[str, str] = compose()["services"]["orders"]["environment"]
    assert service.keys() <= ours
    return load(image | service, NO_FILE)


def test_example_env_is_what_the_program_prints() -> None:
    assert (DEPLOY / "example.env").read_text() == example_env(), (
        "write it anew: python -c 'from runtime.config_variables import example_env; "
        'print(example_env(), end="")\' > deploy/example.env'
    )


def test_example_env_names_every_variable_once() -> None:
    names = re.findall(r"^#([A-Z_]+)=", (DEPLOY / "example.env").read_text(), flags=re.MULTILINE)
    assert sorted(names) == sorted(variable.name for variable in VARIABLES.values())


def test_yaml_is_tidy() -> None:
    run(BIN / "yamllint", "--strict", "-c", DEPLOY / "yamllint.yaml", DEPLOY)


def test_compose_follows_the_compose_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    run(BIN / "check-jsonschema", *schema, DEPLOY / "compose.yaml")


def test_compose_gives_the_program_a_configuration_it_accepts() -> None:
    config = in_the_container()
    assert config.nats_urls == ("nats://nats:4222",)
    assert config.otel_endpoint == "http://jaeger:4318"


def test_compose_publishes_the_ports_listened_on_to_this_machine_alone() -> None:
    config = in_the_container()
    ports = compose()["services"]["orders"]["ports"]
    assert ports == [f"127.0.0.1:{p}:{p}" for p in (config.http_bind.port, config.admin_bind.port)]
    assert {config.http_bind.host, config.admin_bind.host} == {"0.0.0.0"}
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_compose_gives_the_program_time_to_end() -> None:
    grace = compose()["services"]["orders"]["stop_grace_period"]
    assert duration(grace) > in_the_container().shutdown_grace_s


def test_compose_keeps_what_must_not_be_lost_in_volumes() -> None:
    services = compose()["services"]
    assert "journal:/data" in services["nats"]["volumes"]
    assert "payments:/data" in services["orders"]["volumes"]
    assert in_the_container().nats_store_dir.is_relative_to("/data")
    assert set(compose()["volumes"]) == {"journal", "payments"}


def test_no_container_keeps_rights_it_does_not_need() -> None:
    for service in compose()["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_real_nats_server_accepts_its_configuration() -> None:
    run(BIN / "nats-server", "-t", "-c", DEPLOY / "nats.conf")


def test_the_broker_acknowledges_only_what_is_on_disk() -> None:
    conf = re.sub(r"#.*", "", (DEPLOY / "nats.conf").read_text())
    jetstream = conf[conf.index("jetstream {") :]
    assert re.search(r"^\s*sync_interval: always$", jetstream, flags=re.MULTILINE)
    assert re.search(r'^\s*store_dir: "/data"$', jetstream, flags=re.MULTILINE)


def test_hadolint_has_nothing_to_say() -> None:
    run(HADOLINT, DEPLOY / "Dockerfile")


def images() -> list[str]:
    bases = [base.split()[0] for base in arguments("FROM")]
    return bases + [s["image"] for s in compose()["services"].values() if "build" not in s]


@pytest.mark.parametrize("image", images())
def test_images_are_pinned(image: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image)


def test_the_image_runs_the_program_as_an_ordinary_user() -> None:
    (user,) = arguments("USER")
    assert int(user.split(":")[0]) > 0
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    assert arguments("ENTRYPOINT") == ['["orders"]']  # Exec form: signals reach it.
    assert arguments("CMD") == ['["run"]']
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert "/livez" in arguments("HEALTHCHECK")[0]


def test_everything_installed_has_a_hash() -> None:
    installs = [line for line in arguments("RUN") if "pip install" in line]
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert not arguments("ADD")


def test_the_image_is_built_from_files_that_exist_and_are_sent_to_the_builder() -> None:
    copies = [line.split()[:-1] for line in arguments("COPY") if not line.startswith("--from")]
    sources = {source for line in copies for source in line}
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in ignore if line.startswith("!")}
    assert sources == admitted
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= sources
