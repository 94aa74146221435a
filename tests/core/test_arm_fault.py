from e0_ros.core.arm_fault import ArmFault, ArmFaultConfig

MS = 1_000_000


def test_the_example_of_the_docstring() -> None:
    fault = ArmFault(ArmFaultConfig())
    fault.hear("reflex: joint_reflex", 0)
    assert fault.stopped == "reflex: joint_reflex" and fault.missing(0) == "the arm: reflex: joint_reflex"
    assert fault.silent(1000 * MS) == ""
    assert fault.silent(2000 * MS) == "arm_session is silent for 2000 ms; allowed is 1000 ms"


def test_unheard_it_hinders_nothing_unless_it_is_required() -> None:
    assert ArmFault(ArmFaultConfig()).missing(10**12) == "" == ArmFault(ArmFaultConfig()).silent(10**12)
    required = ArmFault(ArmFaultConfig(arm_fault_required=True))
    assert "has not spoken" in required.missing(0)
    required.hear("", 0)
    assert required.missing(0) == "" and required.missing(1001 * MS)
