"""Subjects that leave the choice to the machine: `@auto` becomes what is fastest here."""

import dataclasses
from pathlib import Path

from swise_bench.subjects.spec import FORMS, Subject, load_network
from swise_deploy.command.console import progress
from swise_engines.choosing.candidates import Candidate, candidates_for
from swise_engines.choosing.fastest import choose_fastest
from swise_export.runtimes.table import DEFAULT_RUNTIME, RUNTIMES
from swise_export.tracing.cache import export_once


def resolve_auto(subject: Subject, *, threads: int, cache: Path) -> Subject:
    """The subject as what runs it, under the same name; itself where that was given.

    Args:
        subject: As `parse_subject` gave it.
        threads: Threads of every runtime on the CPU.
        cache: Folder for exported files and for verdicts.

    Raises:
        SwiseError: Nothing that is installed runs it.
    """
    if subject.runner != "auto":
        return subject
    if subject.path is not None:
        named = [(c.runtime, c) for c in candidates_for(subject.path, threads=threads)]
    else:
        named = _network_candidates(subject, threads, cache / "exported")
    choice = choose_fastest([c for _, c in named], cache=cache / "fastest", threads=threads)
    progress(f"{subject.name} is {choice.candidate.label}: {choice.reason}")
    runner = next(name for name, candidate in named if candidate is choice.candidate)
    if RUNTIMES[choice.candidate.runtime].takes == "engine":
        return Subject(subject.name, choice.candidate.runtime, choice.candidate.path)
    return dataclasses.replace(subject, runner=runner)


def _network_candidates(
    subject: Subject, threads: int, folder: Path
) -> list[tuple[str, Candidate]]:
    """Each export in the runtimes that are worth it, with the name that a subject gives to both."""
    network = load_network(subject)
    found = []
    for form in reversed(FORMS):  # the deploy form first
        path = export_once(network, folder, form=form, say=progress)
        for candidate in candidates_for(path, threads=threads, form=form):
            name = f"{form}-{candidate.runtime}".removesuffix(f"-{DEFAULT_RUNTIME}")
            found.append((name, candidate))
    return found
