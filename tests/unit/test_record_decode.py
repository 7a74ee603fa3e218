"""The decoding benchmark measures only what does the whole work."""

import json

import msgspec
import pytest

from benchmarks.record_decode import Contender, check, contenders, main


def test_it_reports_every_contender(tmp_path, capsys):
    target = tmp_path / "result.json"
    assert main(["--records", "3", "--rounds", "1", "--json", str(target)]) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["name"] for row in rows] == [one.name for one in contenders()]
    assert all(row["us_per_record"] > 0 and row["bytes_per_record"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in rows)


def test_a_decoder_that_checks_nothing_is_not_timed():
    lax = Contender("lax", msgspec.msgpack.Decoder().decode, msgspec.msgpack.encode)
    with pytest.raises(RuntimeError, match="lax"):
        check(Contender("lax", lambda data: _Lax(lax.decode(data)), lax.encode))


def test_a_decoder_that_loses_a_field_is_not_timed():
    with pytest.raises(RuntimeError, match="forgetful decodes groups wrongly"):
        check(Contender("forgetful", _forgetful, msgspec.msgpack.encode))


@pytest.mark.parametrize("arguments", [["--records", "0"], ["--rounds", "-1"], ["--what"]])
def test_a_wrong_argument_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


class _Lax:
    """Takes any record as it comes."""

    def __init__(self, raw):
        self.__dict__.update(raw, groups=tuple(raw["groups"]))


def _forgetful(data):
    return _Lax(msgspec.msgpack.decode(data) | {"groups": []})
