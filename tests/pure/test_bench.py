"""What the benchmark makes of its samples: medians, ratios within rounds, verdicts, and how they are told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import chart, count, figures, interpreter, page, peers, processes, report, workers
from benchmarks.figures import judge, ratio
from benchmarks.report import Run
from benchmarks.workloads import WORKLOADS, Sample, Target, Workload, together

SVG = "{http://www.w3.org/2000/svg}"


def never(*arguments: object) -> dict[str, float]:
    raise AssertionError("nothing is measured here")


SESSION = Workload("session", "A session", "imap_starttls", "ms/session", "cpu", 1e3, never)
START = Workload(
    "start", "Start to listening", "imap_implicit", "s", "start", 1.0, never, extra=(("rss", "MB resident", 1e-6),)
)


def took(peer: str, number: int, cpu: float, workload: str = "session", **more: float) -> Sample:
    spent = {"user": 3 * cpu, "kernel": cpu}
    return Sample(workload, peer, number, {"cpu": cpu, "wall": 2 * cpu, "pss": 5e6, **spent, **more})


def failed(peer: str, number: int, why: str = "closed") -> Sample:
    return Sample("session", peer, number, {}, failure=why)


def rounds(**costs: Sequence[float]) -> list[Sample]:
    """What each peer needed, round by round."""
    return [took(peer, number, cpu) for peer, spent in costs.items() for number, cpu in enumerate(spent)]


def run_of(samples: Sequence[Sample], *names: str, workloads: Sequence[Workload] = (SESSION,)) -> Run:
    rivals = [name for name in names if name not in ("gateway", "twisted")]
    versions = {name: f"{name} 1.0" for name in names}
    return Run({"processors": 2}, {"rounds": 3}, versions, {"haproxy": "not installed"}, rivals, workloads, samples)


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "median"), [([3, 1, 2], 2), ([4, 1, 2, 3], 2.5), ([7], 7)], ids=["odd", "even", "one"]
)
def test_a_figure_is_the_median_of_the_rounds_and_their_range(spent: Sequence[float], median: float) -> None:
    (figure,) = figures.figures(rounds(gateway=spent), SESSION, [], ["gateway"])
    assert (figure.median, figure.least, figure.greatest) == (median, min(spent), max(spent))
    assert figure.rounds == len(spent)


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    # The second round was slow for both; the ratio of the medians would be 3.
    gateway, nginx, _ = figures.figures(
        rounds(gateway=[2, 30, 3], nginx=[1, 10, 1], dovecot=[4, 40, 4]),
        SESSION,
        ["nginx", "dovecot"],
        ["gateway", "nginx", "dovecot"],
    )
    assert ratio({0: 2, 1: 30, 2: 3}, {0: 1, 1: 10, 2: 1}) == 3
    assert ratio({0: 2, 1: 30, 2: 9}, {0: 2, 1: 10, 2: 1}) == 3
    assert (gateway.of_nginx, gateway.of_best) == (3, 3)
    assert (nginx.of_nginx, nginx.of_best) == (1, 1)


def test_with_an_even_number_of_rounds_the_ratio_lies_between_the_middle_two() -> None:
    assert ratio({0: 1, 1: 2, 2: 3, 3: 40}, dict.fromkeys(range(4), 1)) == 2.5


def test_a_round_that_only_one_of_them_survived_is_in_no_ratio() -> None:
    samples = [*rounds(gateway=[2, 2, 2]), took("nginx", 0, 1), failed("nginx", 1), took("nginx", 2, 1)]
    gateway, nginx = figures.figures(samples, SESSION, ["nginx"], ["gateway", "nginx"])
    assert gateway.of_nginx == 2
    assert (nginx.rounds, nginx.failure) == (2, "closed")


def test_what_failed_is_not_counted_as_zero() -> None:
    samples = [took("gateway", 0, 4), failed("gateway", 1, "nothing heard"), took("gateway", 2, 6)]
    (figure,) = figures.figures(samples, SESSION, [], ["gateway"])
    assert (figure.median, figure.least, figure.rounds, figure.failure) == (5, 4, 2, "nothing heard")


def test_who_failed_always_is_nobodys_best() -> None:
    samples = [*rounds(gateway=[2], dovecot=[4]), failed("nginx", 0)]
    gateway, nginx, _ = figures.figures(samples, SESSION, ["nginx", "dovecot"], ["gateway", "nginx", "dovecot"])
    assert (gateway.of_nginx, gateway.of_best) == (None, 0.5)
    assert (nginx.rounds, nginx.failure) == (0, "closed")


def test_a_yardstick_is_never_the_best_peer() -> None:
    samples = rounds(gateway=[2], nginx=[4], twisted=[1])
    gateway, *_ = figures.figures(samples, SESSION, ["nginx"], ["gateway", "nginx", "twisted"])
    assert gateway.of_best == 0.5


def test_what_cost_the_other_nothing_has_no_ratio() -> None:
    assert ratio({0: 1.0}, {0: 0.0}) is None
    assert ratio({0: 1.0}, {}) is None


def test_a_peer_without_the_service_has_no_figure() -> None:
    assert [figure.peer for figure in figures.figures(rounds(gateway=[1]), SESSION, [], ["gateway", "haproxy"])] == [
        "gateway"
    ]


@given(st.lists(st.tuples(st.floats(0.001, 1000), st.floats(0.001, 1000)), min_size=1, max_size=9))
def test_a_ratio_turned_round_is_the_same_comparison(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = ({number: pair[which] for number, pair in enumerate(pairs)} for which in (0, 1))
    there, back = ratio(ours, theirs), ratio(theirs, ours)
    assert there is not None
    assert back is not None
    slowed = ratio({n: 3 * v for n, v in ours.items()}, {n: 3 * v for n, v in theirs.items()})
    assert slowed == pytest.approx(there)
    if len(pairs) % 2:
        assert there * back == pytest.approx(1)


def test_slices_weigh_as_much_as_they_did() -> None:
    slices = [
        Sample("session", "nginx", 3, {"units": 10, "cpu": 2.0, "wall": 4.0, "p99": 7.0, "user": 3}, others=0.5),
        Sample("session", "nginx", 3, {"units": 30, "cpu": 1.0, "wall": 2.0, "p99": 5.0, "user": 2}, others=0.1),
        Sample("session", "nginx", 3, {"units": 10, "cpu": 2.0, "wall": 4.0, "p99": 9.0, "user": 1}, others=0.3),
    ]
    whole = together(slices)
    assert whole.measures == {"units": 50, "cpu": 1.4, "wall": 2.8, "p99": 7.0, "user": 6}
    assert (whole.workload, whole.peer, whole.round) == ("session", "nginx", 3)
    assert whole.others == pytest.approx(0.3)


def test_a_round_with_a_failed_slice_has_failed() -> None:
    whole = together([took("nginx", 0, 1, units=5), failed("nginx", 0, "reset"), took("nginx", 0, 1, units=5)])
    assert (whole.measures, whole.failure) == ({}, "reset")


# --- verdicts ------------------------------------------------------------------------------------


def told_targets(samples: Sequence[Sample], target: Target, workload: Workload = SESSION) -> str:
    aimed = replace(workload, targets=(target,))
    text = report.text(run_of(samples, "gateway", "nginx", workloads=[aimed]))
    return text.partition("\nTargets\n")[2].partition("\n")[0]


def test_a_target_that_was_met_is_told_so() -> None:
    samples = rounds(gateway=[2, 2.5, 9], nginx=[2, 2, 2])
    verdict = judge(samples, SESSION, Target(1.25, "nginx"))
    assert (verdict.value, verdict.met) == (1.25, True)
    assert told_targets(samples, Target(1.25, "nginx")).split()[0] == "met"


def test_a_miss_is_told_as_a_miss() -> None:
    samples = rounds(gateway=[2, 2.6, 9], nginx=[2, 2, 2])
    verdict = judge(samples, SESSION, Target(1.25, "nginx"))
    assert (verdict.value, verdict.met) == (1.3, False)
    told = told_targets(samples, Target(1.25, "nginx"))
    assert told.split()[0] == "MISSED"
    assert "at most 1.25 of nginx: 1.3 (1 - 4.5 in 3 rounds)" in told


@pytest.mark.parametrize(
    "samples",
    [[], rounds(gateway=[2]), rounds(nginx=[2]), [*rounds(gateway=[2]), failed("nginx", 0)], [failed("gateway", 0)]],
    ids=["nothing", "nginx is not there", "the gateway was not measured", "nginx failed", "the gateway failed"],
)
def test_what_was_not_measured_is_open(samples: Sequence[Sample]) -> None:
    verdict = judge(samples, SESSION, Target(1.25, "nginx"))
    assert (verdict.value, verdict.met) == (None, False)
    assert told_targets(samples, Target(1.25, "nginx")).split()[0] == "open"


def test_a_target_for_many_sessions_is_open_with_fewer() -> None:
    many = replace(SESSION, sessions=1000)
    for held, value in ((1000, 0.5), (999, None)):
        samples = [took("gateway", 0, 1, units=held), took("nginx", 0, 2, units=1000)]
        verdict = judge(samples, many, Target(1, "nginx"))
        assert verdict.value == value
        assert ("but with 999 sessions only" in verdict.text) is (value is None)


def test_a_target_may_be_about_a_measure_itself() -> None:
    samples = [took("gateway", number, 1, "start", start=start, rss=50e6) for number, start in enumerate([0.5, 0.4, 2])]
    verdict = judge(samples, START, Target(0.6, measure="start"))
    assert (verdict.value, verdict.met) == (0.5, True)
    assert not judge(samples, START, Target(45e6, measure="rss")).met
    assert "MISSED  start: at most 45 MB resident: 50 (50 - 50 in 3 rounds)" in told_targets(
        samples, Target(45e6, measure="rss"), START
    )
    assert judge([], START, Target(45e6, measure="rss")).value is None


def test_every_target_is_about_something_that_is_measured() -> None:
    known = {peer.name: peer for peer in peers.everybody()}
    for workload in WORKLOADS:
        for target in workload.targets:
            assert not target.against or workload.service in known[target.against].services, workload.name
            assert judge([], workload, target).value is None


# --- the report ----------------------------------------------------------------------------------


def test_the_report_tells_figures_ratios_versions_and_who_is_absent() -> None:
    text = report.text(run_of(rounds(gateway=[0.002] * 3, nginx=[0.001] * 3), "gateway", "nginx"))
    assert re.search(r"^session, ms/session +2\.00 \(2\.00\) +1\.00 \(1\.00\)$", text, re.MULTILINE)
    assert re.search(r"^gateway +2\.00 +2\.00 - 2\.00 +2\.00 +2\.00 +4\.00 +25 +5\.00 +0\.0$", text, re.MULTILINE)
    assert "gateway: gateway 1.0\n" in text
    assert "haproxy did not take part: not installed\n" in text
    assert "processors: 2\n" in text
    assert "noise" not in text
    assert "noise" not in chart.svg(run_of(rounds(gateway=[0.002]), "gateway"))


def test_a_failure_is_told_with_the_number_of_its_own_rounds() -> None:
    samples = [*rounds(gateway=[1, 1, 1]), took("nginx", 0, 1), failed("nginx", 1, "reset"), took("nginx", 2, 1)]
    samples += [replace(failed("nginx", number), workload="another") for number in range(3)]
    text = report.text(run_of(samples, "gateway", "nginx"))
    assert re.search(r"^nginx\* ", text, re.MULTILINE)
    assert "* failed in 1 of 3 rounds: reset" in text


def test_a_peer_that_always_failed_has_no_figures() -> None:
    text = report.text(run_of([*rounds(gateway=[1]), failed("nginx", 0, "reset")], "gateway", "nginx"))
    assert re.search(r"^nginx +failed: reset$", text, re.MULTILINE)
    assert re.search(r"^session, ms/session .* failed$", text, re.MULTILINE)


def test_a_busy_machine_is_told() -> None:
    run = run_of([replace(sample, others=0.4) for sample in rounds(gateway=[1, 1])], "gateway")
    assert "OTHER PROCESSES KEPT 0.4 PROCESSORS BUSY" in report.text(run)
    assert "OTHER PROCESSES KEPT 0.4 PROCESSORS BUSY" in chart.svg(run)


def test_without_the_gateway_no_target_is_judged() -> None:
    aimed = replace(SESSION, targets=(Target(1.0, "nginx"),))
    run = run_of(rounds(nginx=[1]), "nginx", workloads=[aimed])
    assert "Targets" not in report.text(run)
    assert json.loads(report.as_json(run))["results"]["session"]["targets"] == []


def test_a_run_without_any_sample_can_be_told() -> None:
    run = run_of([], "gateway")
    assert "gateway 1.0" in report.text(run)
    assert json.loads(report.as_json(run))["samples"] == []
    ElementTree.fromstring(chart.svg(run))


def test_the_json_has_every_sample_and_every_verdict() -> None:
    samples = [*rounds(gateway=[1, 2], nginx=[1, 1]), failed("nginx", 2, "reset")]
    run = run_of(samples, "gateway", "nginx", workloads=[replace(SESSION, targets=(Target(1.25, "nginx"),))])
    told: dict[str, Any] = json.loads(report.as_json(run))
    assert len(told["samples"]) == 5
    assert told["samples"][-1]["failure"] == "reset"
    assert told["absent"] == {"haproxy": "not installed"}
    result = told["results"]["session"]
    assert [figure["peer"] for figure in result["figures"]] == ["gateway", "nginx"]
    assert [(target["value"], target["met"]) for target in result["targets"]] == [(1.5, False)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (12345, "12,345"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.1234, "0.12"),
        (0.0123, "0.012"),
        (0, "0"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, told: str) -> None:
    assert report.number(value) == told


# --- the chart -----------------------------------------------------------------------------------


def bars(drawn: str) -> dict[str, float]:
    """Peer -> how long its bar is."""
    root = ElementTree.fromstring(drawn)
    lengths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect") if bar.get("rx")]
    names = [label.text or "" for label in root.iter(f"{SVG}text") if label.get("text-anchor") == "end"]
    known = {"gateway", "nginx", "dovecot", "twisted"}
    return dict(zip([name for name in names if name in known], lengths, strict=True))


def test_bars_are_as_long_as_medians() -> None:
    drawn = bars(chart.svg(run_of(rounds(gateway=[2, 4, 3], nginx=[1, 1, 9]), "gateway", "nginx")))
    assert drawn["gateway"] == pytest.approx(3 * drawn["nginx"], abs=0.2)


def test_nobody_who_failed_has_a_bar() -> None:
    samples = [*rounds(gateway=[2], dovecot=[1]), failed("nginx", 0)]
    assert list(bars(chart.svg(run_of(samples, "gateway", "nginx", "dovecot")))) == ["gateway", "dovecot"]


def test_each_measured_workload_has_a_panel_inside_the_picture() -> None:
    everything = [
        replace(took(peer, number, 1), workload=workload.name, measures={workload.main: 0.5 + number})
        for workload in WORKLOADS[1:]
        for peer in ("gateway", "nginx")
        for number in range(3)
    ]
    root = ElementTree.fromstring(chart.svg(run_of(everything, "gateway", "nginx", workloads=WORKLOADS)))
    words = [label.text for label in root.iter(f"{SVG}text")]
    assert [workload.title in words for workload in WORKLOADS] == [False, *[True] * (len(WORKLOADS) - 1)]
    height, width = float(root.attrib["height"]), float(root.attrib["width"])
    for bar in root.iter(f"{SVG}rect"):
        x, y = float(bar.get("x", 0)), float(bar.get("y", 0))
        assert x + float(bar.attrib["width"]) <= width
        assert y + float(bar.attrib["height"]) <= height


def test_what_is_drawn_is_escaped() -> None:
    odd = replace(SESSION, title="<less & more>")
    root = ElementTree.fromstring(chart.svg(run_of(rounds(gateway=[1]), "gateway", workloads=[odd])))
    assert "<less & more>" in [label.text for label in root.iter(f"{SVG}text")]


# --- peers ---------------------------------------------------------------------------------------


def test_a_program_that_is_not_installed_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_PATH", "/nonexistent")
    for peer in peers.OTHERS:
        with pytest.raises(peers.Unavailable, match="not installed: apt-get install --no-install-recommends "):
            peer.version()


@pytest.mark.parametrize(
    ("arguments", "prefix", "told"),
    [
        ("'--prefix=/usr' 'CC=gcc'", "/usr", "as Old Linux 12 builds it"),
        ("'--prefix=/usr' '--enable-shared'", "/usr", "as Old Linux 12 builds it, --enable-shared"),
        ("'--enable-optimizations' '--with-lto=full'", "/usr", "--enable-optimizations, --with-lto"),
        ("--enable-optimizations", "/opt", "--enable-optimizations, no --with-lto"),
        ("'--enable-shared'", "/opt", "--enable-shared, no --enable-optimizations, no --with-lto"),
        ("", "/opt", "no --enable-optimizations, no --with-lto"),
    ],
)
def test_how_the_interpreter_was_built_is_told(arguments: str, prefix: str, told: str) -> None:
    assert interpreter.build(arguments, prefix, "Old Linux 12") == told


def test_a_directory_without_the_gateway_is_told() -> None:
    with pytest.raises(peers.Unavailable, match="no checkout of the gateway"):
        peers.gateway(peers.CONFIGS, "before").version()


# --- the page --------------------------------------------------------------------------------------


def page_of(samples: Sequence[Sample], *names: str) -> str:
    return page.text(json.loads(report.as_json(run_of(samples, *names))), count.recorded())


def test_the_page_has_each_figure_and_its_ratio_to_nginx() -> None:
    told = page_of(
        [*rounds(gateway=[3e-3, 6e-3, 4e-3], nginx=[2e-3, 2e-3, 4e-3]), failed("dovecot", 0)],
        "gateway",
        "nginx",
        "dovecot",
    )
    assert "| A session, ms/session | 4.00 (1.50) | 2.00 (1.00) | failed |" in told
    assert "median of 3 rounds" in told
    assert "* nginx: nginx 1.0\n" in told
    assert "slowest" not in told


def test_the_page_tells_how_late_the_slowest_round_trips_are() -> None:
    told = page_of(
        [took("gateway", number, 1.0, p99=late) for number, late in enumerate([3e-3, 1e-3, 2e-3])], "gateway", "nginx"
    )
    assert "| A session | 2,000 | - |" in told


def test_the_page_has_the_recorded_instructions() -> None:
    whole = sum(count.recorded().units["round-trip"].values())
    assert f"| round trip of a short line | {whole:,.0f} |" in page_of(rounds(gateway=[1.0]), "gateway")


@pytest.mark.parametrize(("others", "told"), [(0.0, False), (1.5, True)])
def test_the_page_says_that_the_machine_was_busy(others: float, told: bool) -> None:
    samples = [replace(sample, others=others) for sample in rounds(gateway=[1.0, 1.0])]
    assert ("Other processes kept 1.5 processors busy" in page_of(samples, "gateway")) is told


# --- several workers -----------------------------------------------------------------------------

# Recorded on Linux 6.18 and shortened.  In STAT the name and some times are changed: they must not be confused.
ROLLUP = """55df133ee000-7fff9d680000 ---p 00000000 00:00 0                          [rollup]
Rss:               13564 kB
Pss:                9706 kB
Shared_Clean:       6576 kB
Shared_Dirty:          0 kB
Private_Clean:       116 kB
Private_Dirty:      6872 kB
Swap:                  0 kB
"""
STAT = "4963 (a) worker) R 4922 4919 26015 0 -1 4194304 1931 0 0 0 38 4 7 7 20 0 1 0 2866712 16977920 3349"
FAMILY = {"gateway-master": 7, "gateway-worker0": 8, "gateway-worker1": 9}


def test_the_memory_of_a_worker_is_what_it_shares_with_nobody() -> None:
    assert workers.unshared(ROLLUP) == (116 + 6872) * 1024


def test_the_time_of_a_worker_is_its_own_and_the_kernels_whatever_its_name_is() -> None:
    assert workers.spent(STAT) == 42 / processes.TICKS


@pytest.mark.parametrize(
    ("family", "serve"),
    [
        ({"twistd": 7}, {"twistd": 7}),
        (FAMILY, {"gateway-worker0": 8, "gateway-worker1": 9}),
    ],
    ids=["one process", "a master"],
)
def test_a_master_does_not_serve(family: dict[str, int], serve: dict[str, int]) -> None:
    assert workers.servers(family) == serve


def test_two_workers_are_compared_with_one_within_each_round() -> None:
    # The second round was slow for both.
    assert workers.verdict(
        {1: [50.0, 20.0, 60.0], 2: [99.0, 40.0, 108.0]}, {1: [4e-3] * 3, 2: [8e-3, 10e-3, 8e-3]}
    ) == (
        "two against one, by CPU without a quota, the master's counted: 1.00 (of 1.00, 0.80, 1.00)",
        "two against one, each held: 1.98 (of 1.98, 2.00, 1.80)",
    )


@pytest.mark.parametrize("quota", [[0.97, 0.5], []], ids=["held", "not held"])
def test_a_round_of_workers_is_told(quota: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    sample = workers.Sample(
        51.25, {"twistd": 4.2e-3}, quota, {"twistd": 12_582_912}, {"twistd": (10_000_000, 11_500_000)}
    )
    workers.show(2, 2, sample)
    told = capsys.readouterr().out.splitlines()
    how = "each held" if quota else "not held"
    assert told[0] == f"round 2: 2 serving, {how}: 51.2 sessions/s; CPU a session: twistd 4.20 ms"
    assert told[1:-2] == (["         of its quota each used 97%, 50%"] if quota else [])
    assert told[-2:] == [
        "         private memory afterwards: twistd 12.6 MB",
        "         twistd: 10.0 MB idle, 11.5 MB after sessions one at a time",
    ]
