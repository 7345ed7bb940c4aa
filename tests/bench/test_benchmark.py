import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.reports.tables import csv_from_benchmark, tables_from_benchmark
from swise_bench.reports.terminal import markdown_from_summary
from swise_bench.reports.text_tables import markdown_from_tables
from swise_bench.reports.verdict import summarize
from swise_bench.results.document import document_from_benchmark, read_benchmark
from swise_bench.results.values import Benchmark, Memory, NotMeasured
from swise_bench.subjects.spec import parse_subject
from swise_export.precision.half import half_from_fp32
from swise_export.precision.quantised.qdq import (
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)


def test_every_subject_is_timed_at_every_batch_in_the_same_rounds(benchmark_run: Benchmark) -> None:
    for subject in benchmark_run.subjects:
        assert [latency.batch for latency in subject.latencies] == [1, 2]
    first, second = benchmark_run.subjects
    for a, b in zip(first.latencies, second.latencies, strict=True):
        assert len(a.timing.samples_ms) == len(b.timing.samples_ms) >= 5
    assert {(r.subject, r.reference, r.batch) for r in benchmark_run.ratios} == {
        (second.name, first.name, 1),
        (second.name, first.name, 2),
    }


@pytest.mark.parametrize("weights_sha256", [None, "f" * 64])
def test_a_network_of_other_or_unknown_weights_is_not_compared_with_the_shipped_ones(
    nearest: Path, pictures: Path, tmp_path: Path, weights_sha256: str | None
) -> None:
    model = onnx.load(nearest)
    model.metadata_props.add(key="swise.model", value="swisenet")
    if weights_sha256 is not None:
        model.metadata_props.add(key="swise.weights_sha256", value=weights_sha256)
    onnx.save(model, tmp_path / "named.onnx")
    settings = Settings(
        subjects=(parse_subject(str(tmp_path / "named.onnx")),),
        lr_sizes=((8, 8),),
        min_runs=1,
        max_seconds=0.05,
        images=(pictures,),
        cache=tmp_path / "cache",
    )
    (subject,) = run_benchmark(settings).subjects
    assert subject.model == "swisenet"
    assert not isinstance(subject.quality, NotMeasured)
    assert not subject.quality[0].drift


def test_the_quality_of_a_quantised_file_stands_beside_its_latency(
    nearest: Path, tmp_path: Path
) -> None:
    model = onnx.load(nearest)
    layers, _ = find_layers(model)
    (weight,) = (numpy_helper.to_array(t) for t in model.graph.initializer)
    quantised = quantised_from_fp32(
        model, layers, ranges={"conv": 1.0}, weights={"conv": rounded_to_nearest(weight, 0)}
    )
    onnx.save(quantised, tmp_path / "int8.onnx")
    settings = Settings(
        subjects=(parse_subject(str(nearest)), parse_subject(str(tmp_path / "int8.onnx"))),
        lr_sizes=((8, 8),),
        min_runs=1,
        max_seconds=0.05,
        cache=tmp_path / "cache",
    )
    full, int8 = run_benchmark(settings).subjects
    assert full.quality == NotMeasured("not asked for: --images DIR")
    assert not isinstance(int8.quality, NotMeasured)
    assert len(int8.quality[0].pictures) == 5  # the shipped photographs
    psnr = int8.quality[0].values["psnr_y_db"]
    assert psnr is not None
    assert 20 < psnr < 40


def test_the_precision_of_a_foreign_file_is_read_from_its_graph(benchmark_run: Benchmark) -> None:
    assert [subject.precision for subject in benchmark_run.subjects] == ["fp32", "fp32"]


def test_layers_of_the_file_are_timed_by_name(benchmark_run: Benchmark) -> None:
    layers = benchmark_run.subjects[0].layer_times
    assert not isinstance(layers, NotMeasured)
    assert {layer.op_type for layer in layers} >= {"Conv", "DepthToSpace"}
    assert all(layer.p50_ms > 0 for layer in layers)


def test_memory_of_a_process_grows_from_start_to_peak(benchmark_run: Benchmark) -> None:
    memory = benchmark_run.subjects[0].memory
    assert isinstance(memory, Memory)
    assert 2**20 < memory.before_load_rss_bytes <= memory.peak_rss_bytes < 2**33
    assert memory.after_load_rss_bytes <= memory.peak_rss_bytes


def test_the_sharper_network_scores_higher(benchmark_run: Benchmark) -> None:
    sharp, blurred = (subject.quality for subject in benchmark_run.subjects)
    assert not isinstance(sharp, NotMeasured)
    assert not isinstance(blurred, NotMeasured)
    values = [result[0].values["psnr_y_db"] or 0 for result in (sharp, blurred)]
    assert values[0] > values[1] + 1
    assert not sharp[0].drift  # no torch network is known for a foreign file


def test_a_measurement_that_was_not_asked_for_states_that(benchmark_run: Benchmark) -> None:
    energy = benchmark_run.subjects[0].energy
    assert energy == NotMeasured("not asked for: --energy")


def test_the_document_survives_json_and_keeps_samples_and_percentiles(
    benchmark_run: Benchmark, tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document_from_benchmark(benchmark_run), allow_nan=False))
    assert read_benchmark(path) == benchmark_run
    subject = json.loads(path.read_text())["subjects"][0]
    timing = subject["latencies"][0]["timing"]
    samples = benchmark_run.subjects[0].latencies[0].timing.samples_ms
    assert timing["samples_ms"] == pytest.approx(list(samples))
    assert min(samples) <= timing["p50_ms"] <= timing["p90_ms"] <= timing["p99_ms"] <= max(samples)
    assert subject["energy"] == {"not_measured": "not asked for: --energy"}
    assert subject["costs"][0]["mult_adds"] == 640 * 360 * 12 * 27


def test_tables_are_rectangular_and_name_every_subject(benchmark_run: Benchmark) -> None:
    tables = tables_from_benchmark(benchmark_run)
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.title
    text = markdown_from_tables(tables)
    assert all(subject.name in text for subject in benchmark_run.subjects)


def test_csv_has_a_line_for_each_subject_and_batch(benchmark_run: Benchmark) -> None:
    lines = csv_from_benchmark(benchmark_run).splitlines()
    assert len(lines) == 1 + 2 * 2
    assert len({line.count(",") for line in lines}) == 1


def test_a_warning_is_given_when_the_machine_was_not_quiet(benchmark_run: Benchmark) -> None:
    text = markdown_from_summary(summarize(benchmark_run))
    assert ("Warning: " in text) == bool(benchmark_run.quietness.warning)


def test_a_bf16_file_is_scored_and_counted_where_it_cannot_be_timed(
    nearest: Path, tmp_path: Path
) -> None:
    onnx.save(half_from_fp32(onnx.load(nearest), precision="bf16").model, tmp_path / "bf16.onnx")
    settings = Settings(
        subjects=tuple(parse_subject(str(p)) for p in (tmp_path / "bf16.onnx", nearest)),
        lr_sizes=((8, 8),),
        min_runs=1,
        max_seconds=0.05,
        cache=tmp_path / "cache",
    )
    bf16, fp32 = run_benchmark(settings).subjects
    assert (bf16.precision, bf16.latencies) == ("bf16", ())
    assert "computes in bf16" in bf16.failures["latency"]
    assert fp32.latencies
    assert not isinstance(bf16.costs, NotMeasured)
    assert not isinstance(fp32.costs, NotMeasured)
    assert bf16.costs[0].params == fp32.costs[0].params
    assert not isinstance(bf16.quality, NotMeasured)
