"""The configuration: what is accepted, what is refused, and with which words."""

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from runtime.config import Config, ConfigError, load
from runtime.config_parsers import Address
from runtime.config_variables import (
    VARIABLES,
    AppEnv,
    LogFormat,
    LogLevel,
    example_env,
    readme_table,
)

NO_FILE = Path("there-is-no-such-file")


def read(**environ: str) -> Config:
    return load(environ, NO_FILE)


def faults_of(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        read(**environ)
    return refused.value.faults


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = read()
    assert config.embedded
    assert config.http_bind == Address("127.0.0.1", 8080)
    assert config.admin_bind == Address("127.0.0.1", 8081)
    assert (config.order_shards, config.inventory_shards, config.payment_shards) == (2, 2, 2)
    assert (config.payment_call_timeout_s, config.payment_deadline_s) == (10, 900)
    assert (config.reservation_ttl_s, config.retention_s) == (1800, 604_800)
    assert (config.restart_intensity, config.restart_period_s) == (10, 60)
    assert (config.restart_backoff_min_s, config.restart_backoff_max_s) == (0.1, 5)
    assert (config.shutdown_grace_s, config.worker_pool_size) == (20, 10)
    assert config.order_lines_max == 100
    assert (config.faults, config.insecure, config.stream_replicas) == (False, False, 1)
    assert (config.app_env, config.log_level) == (AppEnv.DEVELOPMENT, LogLevel.INFO)
    assert config.log_format is None
    assert config.simulator_ledger.parent == config.nats_store_dir


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        read().faults = True  # type: ignore[misc]


def test_every_instance_of_a_host_has_a_name_of_its_own() -> None:
    assert read().instance_id.endswith(f"-{os.getpid()}")


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("HTTP_BIND", "0.0.0.0:80", "http_bind", Address("0.0.0.0", 80)),
        ("HTTP_BIND", "[::1]:65535", "http_bind", Address("::1", 65_535)),
        ("PAYMENT_DEADLINE", "500ms", "payment_deadline_s", 0.5),
        ("PAYMENT_DEADLINE", "1.5s", "payment_deadline_s", 1.5),
        ("RETENTION", "12h", "retention_s", 43_200),
        ("NATS_URL", "nats://127.0.0.1", "nats_urls", ("nats://127.0.0.1:4222",)),
        ("NATS_URL", "tls://a:1, tls://b:2", "nats_urls", ("tls://a:1", "tls://b:2")),
        ("NATS_URL", "nats://[::1]:4222", "nats_urls", ("nats://[::1]:4222",)),
        (
            "PAYMENT_GATEWAY_URL",
            "https://pay.test/v1/",
            "payment_gateway_url",
            "https://pay.test/v1",
        ),
        ("LOG_FORMAT", "JSON", "log_format", LogFormat.JSON),
        ("FAULTS", "1", "faults", True),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01", "otel_sampler_arg", 0.01),
        ("OTEL_TRACES_SAMPLER_ARG", "", "otel_sampler_arg", 1),
        ("OTEL_TRACES_EXPORTER", "", "otel_traces_exporter", None),
        ("INSTANCE_ID", "shop-7", "instance_id", "shop-7"),
    ],
)
def test_values_are_read_into_our_own_words(
    name: str, text: str, field: str, value: object
) -> None:
    assert getattr(read(**{name: text}), field) == value


PORTS = ["80a", ":8080", "127.0.0.1", "h:0", "h:-1", "h:65536", "h:1_000", "h:٣", "h:" + "9" * 20]
PORTS += ["::1:80", "[::1:80", "a b:80", "h:80 ", "http://h:80", "[]:80", "-h:80"]
DURATIONS = [
    "5",
    "-5s",
    "0s",
    "0.0001ms",
    "s",
    "5 s",
    "5S",
    "5w",
    "1e3s",
    "inf",
    "nan",
    "٣s",
    "9999999999d",
]
NUMBERS = ["-1", "0", "1001", "1_0", "٣", "1.0", "1e1", "0x10", " 5", "ten", "9" * 30]
URLS = [
    "a",
    "http://h",
    "nats://",
    "nats://h:0",
    "nats://h:99999",
    "nats://h:x",
    "nats://h/p",
    "nats://[::1",
]
URLS += [
    "nats://a,,nats://b",
    "nats://a,",
    "nats://a,nats://a:4222",
    "nats://a,tls://b",
    "nats://a b",
]
GATEWAYS = ["pay.test", "ftp://pay.test", "http://pay.test?key=1", "http://pay.test#f", "http://"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("HTTP_BIND", text) for text in PORTS]
    + [("PAYMENT_DEADLINE", text) for text in DURATIONS]
    + [("WORKER_POOL_SIZE", text) for text in NUMBERS]
    + [("NATS_URL", text) for text in URLS]
    + [("PAYMENT_GATEWAY_URL", text) for text in GATEWAYS]
    + [("STREAM_REPLICAS", text) for text in ("0", "2", "4", "6", "-1", "03", "three")]
    + [
        ("OTEL_TRACES_SAMPLER_ARG", text)
        for text in ("1.01", "-0.1", "5", "1%", ".", "nan", "1e-3")
    ]
    + [("INSTANCE_ID", text) for text in ("a b", "a.b", "a*", ">", "é", "x" * 65)]
    + [("APP_ENV", "prod"), ("LOG_LEVEL", "loud"), ("FAULTS", "2"), ("FAULTS", "maybe")]
    + [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "sometimes")],
)
def test_a_value_that_is_not_meant_is_refused_under_its_name(name: str, text: str) -> None:
    (fault,) = faults_of(**{name: text})
    assert fault.startswith(f"{name} ")
    assert "; write " in fault


@pytest.mark.parametrize("name", [v.name for v in VARIABLES.values() if "OTEL_" not in v.name])
@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\x00b", "x\r", "\x1b[31m", "\udc80"])
def test_no_variable_may_be_empty_or_hold_control_characters(name: str, text: str) -> None:
    (fault,) = faults_of(**{name: text})
    assert fault.startswith(f"{name} ")
    assert fault.isprintable()


def test_every_fault_is_reported_at_once() -> None:
    faults = faults_of(HTTP_BIND="x", LOG_LEVEL="loud", RETENTON="7d", RESTART_INTENSITY="500")
    assert len(faults) == 4
    assert "debug, info, warning, error" in str(faults)


def test_the_error_says_each_fault_on_a_line_of_its_own() -> None:
    error = ConfigError(["A is wrong", "B is wrong"])
    assert str(error).splitlines()[1:] == ["  A is wrong", "  B is wrong"]
    assert error.exit_code == 78


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NATS_URL", "nats://user:hunter2@h:4222"),
        ("NATS_URL", "nats://h:4222?token=hunter2"),
        ("NATS_URL", "http://h:4222?token=hunter2"),
        ("PAYMENT_GATEWAY_URL", "https://key:hunter2@pay.test"),
        ("PAYMENT_GATEWAY_URL", "https://pay.test/?key=hunter2"),
        ("NATS_CREDS_FILE", "hunter2"),
        ("NATS_TLS_KEY_FILE", "-----BEGIN KEY-----\nhunter2"),
    ],
)
def test_no_secret_is_shown(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(**{name: text})
    assert "hunter2" not in str(refused.value)


def test_a_long_value_is_shown_in_part() -> None:
    (fault,) = faults_of(HTTP_BIND="x" * 10_000)
    assert len(fault) < 300


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("APP_NEV", "APP_ENV"),
        ("APP_ENVIRONMENT", "APP_ENV"),
        ("NAT_URL", "NATS_URL"),
        ("nats_url", "NATS_URL"),
        ("NATS_CREDS", "NATS_CREDS_FILE"),
        ("PAYMENT_DEADLINE_S", "PAYMENT_DEADLINE"),
        ("FAULT", "FAULTS"),
        ("OTEL_TRACE_SAMPLER", "OTEL_TRACES_SAMPLER"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(name: str, meant: str) -> None:
    (fault,) = faults_of(**{name: "x"})
    assert repr(name) in fault
    assert fault.endswith(f"did you mean {meant}?")


def test_other_programs_may_have_variables_too() -> None:
    others = "HTTP_PROXY http_proxy NATS_PORT NATS_SERVICE_HOST APP_HOME LOG_DIR INSECURE_SKIP_VERIFY PATH"
    others += " OTEL_EXPORTER_OTLP_LOGS_ENDPOINT OTEL_EXPORTER_OTLP_METRICS_ENDPOINT OTEL_BSP_MAX_QUEUE_SIZE"
    assert read(**dict.fromkeys(others.split(), "x"))


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"RESTART_PERIOD": "31s"}, "RESTART_PERIOD"),  # 10 default restarts wait up to 31.56 s.
        ({"RESTART_BACKOFF_MIN": "6s", "RESTART_INTENSITY": "1"}, "RESTART_BACKOFF_MIN"),
        ({"HTTP_BIND": "127.0.0.1:8081"}, "HTTP_BIND and ADMIN_BIND"),
        ({"STREAM_REPLICAS": "3"}, "STREAM_REPLICAS"),
        ({"NATS_URL": "nats://broker:4222"}, "NATS_URL"),
        ({"NATS_URL": "nats://127.0.0.1,nats://10.0.0.1"}, "NATS_URL"),
        ({"FAULTS": "on", "ADMIN_BIND": "0.0.0.0:8081"}, "FAULTS and ADMIN_BIND"),
        ({"TENANT_HEADER": "Idempotency-Key"}, "TENANT_HEADER"),
    ],
)
def test_what_cannot_be_together_is_refused(environ: dict[str, str], names: str) -> None:
    (fault,) = faults_of(**environ)
    assert names in fault.partition(":")[0]


def test_back_offs_that_fill_the_period_exactly_are_refused() -> None:
    one = {"RESTART_INTENSITY": "1", "RESTART_BACKOFF_MIN": "1s", "RESTART_BACKOFF_MAX": "1s"}
    assert faults_of(**one, RESTART_PERIOD="1200ms")  # A second, and a fifth of one for jitter.
    assert read(**one, RESTART_PERIOD="1201ms")


def test_a_refused_value_is_not_held_against_the_others() -> None:
    (fault,) = faults_of(RESTART_PERIOD="10s", RESTART_INTENSITY="few")
    assert fault.startswith("RESTART_INTENSITY is 'few'")


def test_back_offs_that_just_fit_into_the_period_are_accepted() -> None:
    assert read(RESTART_PERIOD="32s")
    assert read(RESTART_INTENSITY="0", RESTART_PERIOD="1ms")


def test_clear_text_to_another_machine_is_accepted_when_asked_for() -> None:
    assert read(NATS_URL="nats://broker:4222", INSECURE="on").insecure
    assert read(NATS_URL="tls://broker:4222")


def test_facts_are_kept_for_longer_than_an_order_may_wait_for_them() -> None:
    assert read(RETENTION="1h")
    (fault,) = faults_of(RETENTION="59m")
    assert "write RETENTION=3600s or more" in fault
    assert faults_of(PAYMENT_DEADLINE="4d")


PRODUCTION = {
    "APP_ENV": "production",
    "NATS_URL": "tls://broker:4222",
    "STREAM_REPLICAS": "3",
    "PAYMENT_GATEWAY_URL": "https://pay.test",
}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"FAULTS": "on"}, "FAULTS"),
        ({"STREAM_REPLICAS": "1"}, "STREAM_REPLICAS"),
        ({"PAYMENT_GATEWAY_URL": None}, "PAYMENT_GATEWAY_URL"),
    ],
)
def test_production_refuses_what_is_for_development(
    change: dict[str, str | None], name: str
) -> None:
    assert read(**PRODUCTION).app_env is AppEnv.PRODUCTION
    environ = {key: text for key, text in (PRODUCTION | change).items() if text is not None}
    (fault,) = faults_of(**environ)
    assert fault.startswith(name)


def test_credentials_must_be_there_and_be_readable_by_their_owner_alone(tmp_path: Path) -> None:
    creds = tmp_path / "user.creds"
    broker = {"NATS_URL": "nats://127.0.0.1", "NATS_CREDS_FILE": str(creds)}
    assert "cannot be read (No such file" in faults_of(**broker)[0]
    creds.write_text("\n")
    creds.chmod(0o600)
    assert "is empty" in faults_of(**broker)[0]
    creds.write_bytes(b"x" * 65_537)
    assert "more than 65536 bytes" in faults_of(**broker)[0]
    creds.write_text("seed\n")
    assert read(**broker).nats_creds_file == creds
    creds.chmod(0o640)
    assert f"(mode 0640); run: chmod 600 {creds}" in faults_of(**broker)[0]


def test_certificates_come_in_pairs_and_with_tls_only(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("certificate")
    tls = {"NATS_URL": "tls://broker", "NATS_TLS_CERT_FILE": str(cert)}
    (alone,) = faults_of(**tls)
    assert alone.startswith("NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE")
    authority = {"NATS_TLS_CA_FILE": str(cert)}
    assert "write tls:// URLs" in faults_of(NATS_URL="nats://127.0.0.1", **authority)[0]
    assert "set NATS_URL" in faults_of(**authority)[0]
    assert read(NATS_URL="tls://broker", **authority)


def test_the_store_must_be_a_place_that_can_be_written_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert read(NATS_STORE_DIR=str(tmp_path / "new" / "deep"))
    (fault,) = faults_of(NATS_STORE_DIR=str(file / "store"))
    assert fault.startswith("NATS_STORE_DIR")
    elsewhere = {"NATS_URL": "tls://b", "PAYMENT_GATEWAY_URL": "http://127.0.0.1:9"}
    assert read(NATS_STORE_DIR=str(file / "store"), **elsewhere)


def test_a_trace_file_must_have_a_directory(tmp_path: Path) -> None:
    assert read(ORDERS_TRACE_FILE=str(tmp_path / "trace.jsonl")).trace_file
    assert faults_of(ORDERS_TRACE_FILE=str(tmp_path))
    assert faults_of(ORDERS_TRACE_FILE=str(tmp_path / "no" / "trace.jsonl"))


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LOG_LEVEL=debug\nWORKER_POOL_SIZE=3\nSHELL_OPTION=1\n")
    config = load({"LOG_LEVEL": "error"}, file)
    assert (config.log_level, config.worker_pool_size) == (LogLevel.ERROR, 3)
    assert config.from_env_file == ("WORKER_POOL_SIZE",)


def test_production_reads_no_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LOG_LEVEL=debug\n")
    config = load(PRODUCTION, file)
    assert (config.log_level, config.from_env_file) == (LogLevel.INFO, ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"LOG_LEVEL=loud\n", "LOG_LEVEL is 'loud'"),
        (b"LOG_LEVLE=info\n", "did you mean LOG_LEVEL?"),
        (b"\xff\xfe\n", "UTF-8"),
        (b"APP_ENV=test\nOTEL_BSP_MAX_QUEUE_SIZE=9\n", "export it"),
    ],
)
def test_the_file_is_held_to_the_same_rules(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        load({}, file)


def test_a_file_cannot_declare_production(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={text}\n" for name, text in PRODUCTION.items()))
    with pytest.raises(ConfigError, match="which production does not read"):
        load({}, file)


def test_the_printed_example_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(example_env())
    assert load({"INSTANCE_ID": "x"}, file) == read(INSTANCE_ID="x")
    given = (line.lstrip("#") for line in example_env().splitlines() if line.startswith("#"))
    file.write_text("\n".join(line for line in given if "=" in line and not line.endswith("=")))
    config = load({"INSTANCE_ID": "x"}, file)
    assert config.from_env_file
    assert all(getattr(config, key) == getattr(read(INSTANCE_ID="x"), key) for key in VARIABLES)


def test_the_readme_has_the_table_that_the_program_prints() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert readme_table().strip() in readme.read_text()
