"""The stages of a Dockerfile, and which of them a build needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen, replace
from pyboxd.image.builder import words
from pyboxd.image.builder.instructions import Arg, Copy, From, Instruction, OnBuild, Run, interpret
from pyboxd.image.builder.parser import Dockerfile

SCRATCH = "scratch"


@frozen
class Stage:
    """One FROM with what follows it."""

    index: int
    start: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.start.stage


@frozen
class Recipe:
    """A whole Dockerfile: ARGs that stand before the first FROM, and the stages."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str


def divide(dockerfile: Dockerfile) -> Recipe:
    """Interpret all instructions and put them into stages; InvalidArgument for one outside of any."""
    arguments: list[Arg] = []
    stages: list[Stage] = []
    for raw in dockerfile.instructions:
        instruction = interpret(raw, dockerfile.escape)
        if isinstance(instruction, From):
            stages.append(Stage(len(stages), instruction, ()))
        elif stages:
            stages[-1] = replace(stages[-1], instructions=(*stages[-1].instructions, instruction))
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise InvalidArgument("no build stage in current context")
    if not stages:
        raise InvalidArgument("no build stage in current context")
    return Recipe(tuple(arguments), tuple(stages), dockerfile.escape)


def with_bases(recipe: Recipe, env: Mapping[str, str]) -> Recipe:
    """The same with variables in the FROM lines replaced."""
    stages = []
    for stage in recipe.stages:
        start = stage.start
        base = words.expand(start.base, env, recipe.escape)
        if not base:
            raise InvalidArgument(f"base name ({start.base}) should not be blank")
        platform = words.expand(start.platform, env, recipe.escape)
        stages.append(replace(stage, start=replace(start, base=base, platform=platform)))
    return replace(recipe, stages=tuple(stages))


def find(stages: Sequence[Stage], name: str) -> Stage | None:
    """The last stage of that name, or the one with that number; None if there is none."""
    for stage in reversed(stages):
        if stage.name and stage.name == name.lower():
            return stage
    if name.isascii() and name.isdigit() and int(name) < len(stages):
        return stages[int(name)]
    return None


def base_stage(recipe: Recipe, stage: Stage) -> Stage | None:
    """The earlier stage that `stage` starts from; only by name, as Docker has it."""
    found = find(recipe.stages[: stage.index], stage.start.base)
    return found if found and found.name else None


def needed(recipe: Recipe, target: str) -> tuple[Stage, ...]:
    """The stages that the target is made of, in order; the target is the last one. InvalidArgument."""
    last = find(recipe.stages, target) if target else recipe.stages[-1]
    if last is None:
        raise InvalidArgument(f'target stage "{target}" could not be found')
    wanted = {last.index}
    for stage in reversed(recipe.stages[: last.index + 1]):
        if stage.index in wanted:
            wanted |= _sources(recipe, stage)
    return tuple(stage for stage in recipe.stages if stage.index in wanted)


def _sources(recipe: Recipe, stage: Stage) -> set[int]:
    before = recipe.stages[: stage.index]
    base = base_stage(recipe, stage)
    names = [*_froms(stage.instructions)]
    if base is not None:
        # what an ONBUILD of the base names, only this stage's execution asks for
        names += [name for item in base.instructions if isinstance(item, OnBuild) for name in _trigger_froms(item)]
    found = {other.index for name in names if (other := find(before, name))}
    return found | ({base.index} if base else set())


def _froms(instructions: Sequence[Instruction]) -> list[str]:
    names = []
    for instruction in instructions:
        if isinstance(instruction, Copy) and instruction.source_from:
            names.append(instruction.source_from)
        elif isinstance(instruction, Run):
            for mount in instruction.mounts:
                names += [part[len("from=") :] for part in mount.split(",") if part.startswith("from=")]
    return names


def _trigger_froms(instruction: OnBuild) -> list[str]:
    return [word[len("--from=") :] for word in instruction.trigger.split() if word.startswith("--from=")]
