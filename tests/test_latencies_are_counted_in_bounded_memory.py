"""The histogram of `simulate`: percentiles within 1 %, however many callbacks there are."""

import math

from hypothesis import given
from hypothesis import strategies as st

from sam.callback.cli.client.latency import LatencyHistogram

PERCENTS = (1, 50, 95, 99, 100)


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200))
def test_each_percentile_is_that_of_the_list_to_1_percent(seconds: list[float]) -> None:
    histogram = LatencyHistogram()
    for each in seconds:
        histogram.record(each)
    ordered = sorted(seconds)
    for percent in PERCENTS:
        exact = ordered[math.ceil(len(ordered) * percent / 100) - 1]
        found = histogram.percentile(percent)
        assert exact * 0.999_999 <= found <= exact * 1.011
    assert histogram.maximum == ordered[-1]
    assert histogram.count == len(seconds)


def test_what_is_out_of_its_range_is_counted_at_its_edges() -> None:
    histogram = LatencyHistogram()
    for each in (-1.0, 0.0, 1e-9, 1e9):
        histogram.record(each)
    assert histogram.percentile(75) < 2e-6
    assert histogram.maximum == 1e9


def test_of_nothing_there_are_no_percentiles() -> None:
    assert [LatencyHistogram().percentile(each) for each in PERCENTS] == [0.0] * len(PERCENTS)
