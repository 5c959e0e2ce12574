"""IV. SafeTensors Parsing: every class of file on its own, each refusal beside a file that must load."""

from __future__ import annotations

from checks.support.containers import observe_containers
from checks.support.parsing import Hunter
from checks.support.parsing_whole import AgainstOfficial, cut_at_every_byte, observe_cut_while_open, observe_heavy
from conformance.trial.stand import Stand

_LARGE_BYTES = 16 * 2**20


def test_f_parse_036(stand: Stand) -> None:
    official = AgainstOfficial(stand)
    Hunter(stand, official.try_bytes).hunt_row().observe()
    official.observe(stand)
    observe_heavy(stand)
    observe_containers(stand)


def test_f_parse_037(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
    observe_heavy(stand)


def test_f_parse_038(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()


def test_f_parse_039(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
    observe_heavy(stand)


def test_f_parse_040(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()


def test_f_parse_041(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()


def test_f_parse_042(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
    observe_heavy(stand)


def test_f_parse_043(stand: Stand) -> None:
    hunter = Hunter(stand).hunt_row()
    cut_at_every_byte(hunter)
    hunter.observe()
    observe_cut_while_open(stand, _LARGE_BYTES)


def test_f_parse_044(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()


def test_f_parse_045(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
