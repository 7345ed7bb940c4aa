"""The report of swise-doctor: a machine, what works on it, and whether it serves a target."""

import dataclasses
from dataclasses import dataclass
from typing import get_args

from swise_engines.doctor import fixes
from swise_engines.doctor.abilities import Ability, Advice, list_abilities, list_advice
from swise_engines.doctor.examination import Examination, examine, this_machine
from swise_engines.doctor.target_support import TargetSupport, check_target
from swise_engines.targets.catalogue import Kind, Target, load_targets

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class DoctorConfig:
    """The options of swise-doctor.

    Attributes:
        target: A shipped target, "current", or a family of targets, such as "jetson"; None checks
            no target.
    """

    target: str | None = None


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """The results of one run of swise-doctor.

    Attributes:
        examination: The machine.
        abilities: What works and what does not.
        advice: Settings to change.
        support: Of the target in question; None where there is none.
        family: Targets of the family in question; none where there is no such question.
    """

    examination: Examination
    abilities: tuple[Ability, ...]
    advice: tuple[Advice, ...]
    support: TargetSupport | None
    family: tuple[Target, ...]

    @property
    def install_extras(self) -> str:
        """The command that installs all missing extras at once; "" where none is missing."""
        extras = [ability.extra for ability in self.abilities if ability.extra]
        return fixes.install_extras(self.examination, *extras) if extras else ""

    @property
    def is_served(self) -> bool:
        """True if engines for the target can be built here; True without a target."""
        return self.support is None or self.support.build.works

    def to_dict(self) -> dict[str, object]:
        """The report as JSON types."""
        facts = {
            title: {fact.name: {"value": fact.value, "reason": fact.reason} for fact in section}
            for title, section in self.examination.sections.items()
        }
        columns = ("name", "title", "sm", "backends", "tensorrt_versions")
        return {
            "schema_version": SCHEMA_VERSION,
            "facts": facts,
            "abilities": [dataclasses.asdict(ability) for ability in self.abilities],
            "advice": [dataclasses.asdict(item) for item in self.advice],
            "target": None if self.support is None else dataclasses.asdict(self.support),
            "family": [
                {**{name: getattr(target, name) for name in columns}, **_jetpacks(target)}
                for target in self.family
            ],
        }


def examine_for(config: DoctorConfig) -> DoctorReport:
    """Examine this machine; changes nothing.

    Raises:
        InputError: The target is unknown; the message names the nearest.
    """
    is_family = config.target in get_args(Kind)
    family = [t for t in load_targets().values() if t.kind == config.target]
    seen = examine(this_machine())
    return DoctorReport(
        examination=seen,
        abilities=tuple(list_abilities(seen)),
        advice=tuple(list_advice(seen)),
        support=check_target(seen, config.target) if config.target and not is_family else None,
        family=tuple(family),
    )


def _jetpacks(target: Target) -> dict[str, object]:
    return {"jetpacks": dict(target.jetpacks)} if target.jetpacks else {}
