"""Rows of the benchmark on real processes, as small as they get; that they end means that every unit was sold."""

from pathlib import Path
from typing import Any

import pytest

from runtime.bench import ROWS, Plan, machine
from runtime.bench.curves import _decades
from runtime.bench.plots import DRAWN, check_picture, save_plots
from runtime.commands.bench import _table, parse_rows

PLAN = Plan(orders=60, in_flight=16, warm_up=10, paced=10, connections=4, live=40, until=1_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("intake", {"orders_per_s", "cpu_ms_per_order_runtime"}),
        ("latency", {"p50_ms", "p99_ms", "cpu_ms_per_order_runtime"}),
        ("http", {"orders_per_s", "p99_ms", "empty_route_per_s", "hypercorn_alone_cpu_ms"}),
        ("memory", {"kb_per_live_order"}),
    ],
)
async def test_a_row_measures_what_it_says(row: str, wanted: set[str]) -> None:
    figures = await ROWS[row](PLAN)
    assert wanted <= figures.keys()
    assert all(figures[name] >= 0 for name in wanted)


@pytest.mark.slow
async def test_a_profile_names_the_parts_of_the_program_and_their_shares() -> None:
    figures = await ROWS["profile"](PLAN)
    percents = {one["part"]: one["percent"] for one in figures["parts"]}
    assert sum(percents.values()) == pytest.approx(100, abs=1)
    assert {"actors", "trio", "shards: hear, commit, act", "tail and routing"} <= percents.keys()


@pytest.mark.slow
async def test_recovery_finds_every_live_order_after_a_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.bench.curves.FIRST_DECADE", 20)
    figures = await ROWS["recovery"](Plan(in_flight=16, warm_up=10, live=40))
    assert (figures["finished"], figures["live"]) == (20, 40)
    assert 0 < figures["taking_s_without_imports"] < figures["taking_s"]
    assert 0 < figures["broker_serving_s"] < figures["taking_s_without_imports"]
    assert figures["taking_s"] <= figures["all_confirmed_s"]


@pytest.mark.slow
async def test_growth_measures_the_same_after_each_decade_and_a_recovery_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.bench.curves.FIRST_DECADE", 20)
    plan = Plan(in_flight=16, warm_up=10, paced=10, window=30, live=20, until=200)
    figures = await ROWS["growth"](plan)
    few, many = figures["decades"]
    assert (few["total"], many["total"]) == (20, 200)
    assert few["orders"] == many["orders"] == 30
    assert few["orders_per_s_over_first"] == few["p99_ms_over_first"] == 1.0
    assert many["store_mb"] > few["store_mb"] > 0
    assert figures["recovery"]["finished"] == 240  # With those of the last look.


@pytest.mark.slow
async def test_a_line_costs_something_in_orders_of_every_size() -> None:
    sizes = (await ROWS["lines"](Plan(orders=20, in_flight=8, warm_up=5)))["sizes"]
    assert [one["lines"] for one in sizes] == [1, 10, 100, 500]
    assert all(0 < one["alone_ms_per_line"] <= one["alone_ms"] for one in sizes)


def test_growth_looks_at_every_decade_up_to_its_end() -> None:
    assert _decades(1_000_000) == [1_000, 10_000, 100_000, 1_000_000]
    assert _decades(99_999) == [1_000, 10_000]


# --- showing ---

DECADE = {
    "orders_per_s": 1.0,
    "cpu_ms_per_order_runtime": 0.3,
    "cpu_ms_per_order_broker": 0.2,
    "p50_ms": 1.0,
    "p99_ms": 2.0,
    "rss_mb": 80.0,
    "broker_rss_mb": 50.0,
}
RECOVERY = {"finished": 20, "live": 40, "taking_s": 1.0}
LINES = {"cpu_us_per_line_runtime": 30.0, "alone_ms_per_line": 0.1}
FIGURES: dict[str, Any] = {
    "machine": {"python": "3"},
    "throughput": {"orders_per_s": 2_000.0},
    "http": {"orders_per_s": 900.0, "empty_route_per_s": 1_500.0},
    "growth": {
        "decades": [{"total": 1_000, **DECADE}, {"total": 10_000, **DECADE}],
        "recovery": RECOVERY,
    },
    "lines": {"sizes": [{"lines": n, **LINES} for n in (2, 100)]},
    "recovery": RECOVERY,
    "ratios": {"failpoints there / not": {"pairs": 2, "cpu_per_order": {"quartiles": [1, 2]}}},
}


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_the_figures_are_drawn(tmp_path: Path, suffix: str, begins: bytes) -> None:
    check_picture(tmp_path / f"bench{suffix}", list(FIGURES))
    save_plots(FIGURES, tmp_path / f"bench{suffix}")
    assert (tmp_path / f"bench{suffix}").read_bytes().startswith(begins)


def test_each_drawn_row_alone_makes_a_picture(tmp_path: Path) -> None:
    for row in DRAWN:
        figures = {row: FIGURES.get(row, {"orders_per_s": 1.0})}
        save_plots(figures, tmp_path / f"{row}.svg")
        assert (tmp_path / f"{row}.svg").stat().st_size > 0


@pytest.mark.parametrize(
    ("file", "rows", "why"),
    [
        ("bench.pdf", ["http"], "must end in .svg or .png"),
        ("bench.svg", ["latency"], "none of latency"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_beforehand(
    file: str, rows: list[str], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        check_picture(Path(file), rows)


def test_rows_are_chosen_by_name() -> None:
    assert parse_rows("all") == tuple(ROWS)
    assert parse_rows("http,growth") == ("http", "growth")
    assert set(parse_rows("short")) < set(ROWS)
    with pytest.raises(ValueError, match=r"'htp' is no row; write short, all, or some of through"):
        parse_rows("htp")


def test_a_table_has_a_line_for_each_figure_or_for_each_of_several() -> None:
    assert [_table(name, FIGURES[name]).row_count for name in FIGURES] == [1, 1, 2, 2, 2, 3, 1]


def test_what_a_row_has_measured_once_stands_below_its_table() -> None:
    assert (
        _table("growth", FIGURES["growth"]).caption
        == "recovery: finished 20; live 40; taking_s 1.0"
    )
    assert _table("lines", FIGURES["lines"]).caption is None


def test_the_machine_is_told() -> None:
    assert machine()["nats_server"].startswith("v2.")
