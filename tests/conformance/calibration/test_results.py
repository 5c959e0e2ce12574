import made_pools
import msgspec
import pytest

from conformance.calibration.replaying import replay
from conformance.calibration.results import BrokenCalibration, clopper_pearson, counted, read_calibration


@pytest.fixture(scope="module")
def calibration():
    return replay(made_pools.pool(20), replays=20, seed=0)


def test_the_exact_interval_of_a_share():
    """The rule of three, and a value from a table: 5 of 10."""
    assert clopper_pearson(0, 3000) == (0.0, pytest.approx(0.00123, abs=1e-5))
    assert clopper_pearson(5, 10) == (pytest.approx(0.18709, abs=1e-5), pytest.approx(0.81291, abs=1e-5))
    assert clopper_pearson(10, 10) == (pytest.approx(0.69150, abs=1e-5), 1.0)
    for hits, trials in ((0, 0), (2, 1), (-1, 5)):
        with pytest.raises(ValueError, match="no share"):
            clopper_pearson(hits, trials)


def written(path, calibration, change=lambda plain: None):
    plain = msgspec.json.decode(msgspec.json.encode(calibration))
    change(plain)
    path.write_bytes(msgspec.json.encode(plain))
    return path


def test_what_is_written_is_read(tmp_path, calibration):
    assert read_calibration(written(tmp_path / "c.json", calibration)) == calibration


def forged(plain):
    plain["rates"][0]["curves"][0]["cells"][0]["counts"]["bounds"] = [0.0, 0.0001]


def moved(plain):
    counts = plain["rates"][0]["curves"][0]["cells"][0]["counts"]
    counts["falsified"], counts["inconclusive"] = counts["falsified"] + 20, counts["inconclusive"] - 20


def lacking(plain):
    plain["growth"][0]["cells"][0]["counts"]["corroborated"] -= 1


def unlimited(plain):
    plain["rates"][0]["curves"] = plain["rates"][0]["curves"][1:]


def unhealthy(plain):
    plain["growth"][0]["cells"] = [cell for cell in plain["growth"][0]["cells"] if cell["leak"]]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (forged, "bounds"),
        (moved, "bounds"),
        (lacking, "verdicts of 19 replays"),
        (unlimited, "one curve of the exact limit"),
        (unhealthy, "healthy engine is not among"),
        (lambda plain: plain.update(schema="2"), "schema '2'"),
        (lambda plain: plain.update(more=1), "more"),
        (lambda plain: plain["rates"][0].pop("spread"), "spread"),
    ],
)
def test_a_calibration_that_does_not_carry_its_numbers_is_refused(tmp_path, calibration, change, cause):
    with pytest.raises(BrokenCalibration, match=cause):
        read_calibration(written(tmp_path / "c.json", calibration, change))


def test_counts_bring_their_bounds():
    counts = counted(3, 7, 90)

    assert (counts.replays, counts.share, counts.bounds) == (100, 0.03, clopper_pearson(3, 100))
