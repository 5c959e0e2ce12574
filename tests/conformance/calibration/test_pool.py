import made_pools
import msgspec
import pytest

from conformance.calibration.pool import BrokenPool, PoolFile, read_pool


def written(path, *lines):
    file = PoolFile(path)
    for line in lines:
        file.append(line)
    return path


def test_what_is_appended_is_read_and_sessions_add_up(tmp_path):
    one = written(tmp_path / "a.jsonl", made_pools.session(), *made_pools.timed(3, 0.01))
    two = written(
        tmp_path / "b.jsonl", made_pools.session(seed=1), *made_pools.series("F-MEM-032", 1024, True, count=2)
    )

    pool = read_pool([one, two])

    assert len(pool.sessions) == 2
    assert pool.timed == made_pools.timed(3, 0.01)
    assert [len(found.account) for found in pool.series("F-MEM-032", 1024, accounted=True)] == [44, 44]
    assert pool.series("F-MEM-032", 1024, accounted=False) == []


def test_a_series_keeps_its_levels():
    [series] = made_pools.series("F-MEM-032", 4 << 20, True, count=1)

    assert series.account == [(4 << 20) * (i + 1) for i in range(44)]
    assert series.witness[-1] - series.witness[0] == (4 << 20) * 43


def test_a_line_that_was_cut_off_is_left_out_and_appending_goes_on_behind_the_last_whole_one(tmp_path):
    path = written(tmp_path / "p.jsonl", made_pools.session(), *made_pools.timed(2, 0.01))
    path.write_bytes(path.read_bytes()[:-20])

    assert len(read_pool([path]).timed) == 1

    PoolFile(path).mend()
    written(path, *made_pools.timed(1, 0.01))
    assert len(read_pool([path]).timed) == 2


def changed(line, **fields):
    return msgspec.structs.replace(line, **fields)


TIMED = made_pools.timed(1, 0.01)[0]
GROWN = made_pools.series("F-MEM-032", 1024, True, count=1)[0]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([TIMED], "line 1 is not a session"),
        ([made_pools.session(schema="9")], "schema '9'"),
        ([made_pools.session(slowdowns=(0.01, 0.02))], "begin with 0"),
        ([made_pools.session(slowdowns=(0.0, 0.02, 0.02))], "ascend"),
        ([made_pools.session(leaks=(0,))], "leaks must ascend"),
        ([made_pools.session(), changed(TIMED, values={"load": [1.0] * 5})], r"series \['load'\]"),
        ([made_pools.session(), changed(TIMED, values=TIMED.values | {"load": [1.0]})], "1 values for 5 slowdowns"),
        ([made_pools.session(), changed(TIMED, values=TIMED.values | {"load": [1.0] * 4 + [0.0]})], "no time or rate"),
        ([made_pools.session(), changed(GROWN, leak=1000)], "none of the session's doses"),
        ([made_pools.session(), changed(GROWN, witness_steps=[])], "series of 43 and 0 steps"),
        ([made_pools.session(), GROWN, changed(GROWN, warm_up=5)], r"series of \(44, 5\) and \(44, 12\)"),
        ([made_pools.session(), made_pools.session(gpu=True)], "do not belong together: gpu"),
        ([made_pools.session(), made_pools.session(checkpoint="x")], "do not belong together: checkpoint"),
    ],
)
def test_a_pool_that_is_not_one_is_refused(tmp_path, lines, cause):
    with pytest.raises(BrokenPool, match=cause):
        read_pool([written(tmp_path / "p.jsonl", *lines)])


def test_another_machine_does_not_add_up(tmp_path):
    other = made_pools.ENVIRONMENT | {"libraries": {"torch": "2.13.0"}}
    one = written(tmp_path / "a.jsonl", made_pools.session())
    two = written(tmp_path / "b.jsonl", made_pools.session(environment=other))

    with pytest.raises(BrokenPool, match="torch"):
        read_pool([one, two])


@pytest.mark.parametrize("raw", [b"{}\n", b'{"line":"timed","values":{},"more":1}\n', b"\xff\n", b"[" * 9000 + b"\n"])
def test_a_line_of_something_else_is_refused(tmp_path, raw):
    path = written(tmp_path / "p.jsonl", made_pools.session())
    path.write_bytes(path.read_bytes() + raw)

    with pytest.raises(BrokenPool, match="line 2"):
        read_pool([path])
