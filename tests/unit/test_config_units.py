"""Sizes, durations and addresses in abgate.yaml."""

import pytest

from gateway.config_units import Address, address, duration, size


@pytest.mark.parametrize(
    ("text", "number"),
    [("32MiB", 32 << 20), ("10GiB", 10 << 30), ("64KB", 64000), ("1.5 MiB", 1572864), ("77", 77), (77, 77), ("9b", 9)],
)
def test_sizes(text: object, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1.5", 1.5), (3, 3.0)]
)
def test_durations(text: object, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("bad", ["", "MiB", "-1MiB", "0", 0, -3, None, True, "1MiBs", "1e3", "1,5MiB", float("nan")])
def test_what_is_neither_size_nor_duration_is_refused(bad: object) -> None:
    for read_one in (size, duration):
        with pytest.raises(ValueError, match="must be"):
            read_one(bad)


@pytest.mark.parametrize(
    ("text", "expected", "loopback"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80), True),
        ("[::1]:80", Address("::1", 80), True),
        ("localhost:80", Address("localhost", 80), True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), False),
        ("tf.internal:8500", Address("tf.internal", 8500), False),
    ],
)
def test_addresses(text: str, expected: Address, loopback: bool) -> None:
    found = address(text)
    assert found == expected
    assert found.is_loopback is loopback
    assert str(found) == text


def test_a_metrics_address_may_have_a_path() -> None:
    found = address("127.0.0.1:8501/monitoring/metrics", path=True)
    assert (found.path, found.authority) == ("/monitoring/metrics", "127.0.0.1:8501")
    with pytest.raises(ValueError, match="must be host:port"):
        address("127.0.0.1:8501/metrics")
