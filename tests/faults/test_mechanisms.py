"""At least sixty mechanisms that really happened are planted."""

from conformance.faults.mechanisms import load_mechanisms
from conformance.faults.planting import known_faults


def test_sixty_mechanisms_are_planted_by_faults_that_exist():
    mechanisms, known = load_mechanisms(), known_faults()

    assert len(mechanisms) >= 60
    for number, mechanism in mechanisms.items():
        assert mechanism.what, number
        assert mechanism.seen_in, number
        assert mechanism.faults, number
        assert set(mechanism.faults) <= known.keys(), number


def test_a_fault_is_one_mechanism_and_there_are_enough_faults():
    named = [name for mechanism in load_mechanisms().values() for name in mechanism.faults]

    assert len(named) == len(set(named))
    assert len(known_faults()) >= 180
