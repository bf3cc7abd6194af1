"""One stage, instruction by instruction: printed, looked up among earlier builds, or done and committed."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping

from pyboxd.errors import InvalidArgument, NotFound, NotImplementedHere, PyboxdError, SystemFailure
from pyboxd.frozen import replace
from pyboxd.image.builder import cachefrom, copystep, download, instructions, metadata, runstep, words
from pyboxd.image.builder.arguments import environment, with_variable
from pyboxd.image.builder.cache import key
from pyboxd.image.builder.doors import BuildFailed, RunStep
from pyboxd.image.builder.instructions import Instruction, interpret
from pyboxd.image.builder.modes import parse_mode
from pyboxd.image.builder.mounts import step_mounts
from pyboxd.image.builder.parser import Heredoc, parse_line
from pyboxd.image.builder.places import open_layers, writable
from pyboxd.image.builder.session import Session, StageResult, StepFolder
from pyboxd.image.builder.sources import SourceMissing
from pyboxd.image.builder.stages import SCRATCH, Stage, base_stage
from pyboxd.image.config import encode_config
from pyboxd.image.model import HistoryEntry, Image
from pyboxd.image.workers import Stop, run_blocking
from pyboxd.model import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STDERR = 2
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # as Docker's builder marks stderr
_WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL)
_NOP = " ".join((*metadata.DEFAULT_SHELL, "#(nop)"))


class StageBuild:
    """Builds one stage of a session."""

    def __init__(self, session: Session, stage: Stage, step_line: Callable[[Instruction], None]) -> None:
        self._session = session
        self._stage = stage
        self._step_line = step_line
        self._escape = session.recipe.escape
        self._image: Image | None = None
        self._config = ImageConfig()
        self._author = ""
        self._arguments: dict[str, str] = {}
        self._named: set[str] = set()  # arguments that an ARG declared
        self._cmd_set = False
        self._missed = session.request.no_cache

    async def run(self) -> StageResult:
        """Build it. PyboxdError as the Docker command prints it."""
        self._step_line(self._stage.start)
        triggers = await self._begin()
        self._print_image()
        if triggers:
            self._session.say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            await self._dispatch(trigger)
        if triggers:
            self._print_image()
        for instruction in self._stage.instructions:
            self._step_line(instruction)
            await self._dispatch(instruction)
            self._print_image()
        return StageResult(self._image, self._config, self._arguments, self._author)

    async def _begin(self) -> list[Instruction]:
        """Take the base over; its ONBUILD triggers."""
        base = base_stage(self._session.recipe, self._stage)
        name = self._stage.start.base
        if base is not None:
            result = self._session.results[base.index]
            self._image, self._config = result.image, result.config
            self._arguments = dict(result.arguments)
            self._named = set(result.arguments)
        elif name != SCRATCH:
            self._image = await self._session.base_image(name, self._stage.start.platform)
            self._config = self._image.config
        triggers = self._config.on_build
        env = self._config.env
        if "PATH" not in environment(env):
            env = with_variable(env, "PATH", DEFAULT_PATH)
        self._config = replace(self._config, on_build=(), env=env)
        return [self._trigger(text) for text in triggers]

    def _trigger(self, text: str) -> Instruction:
        raw = parse_line(text, self._stage.start.line)
        if raw.name in ("ONBUILD", "FROM", "MAINTAINER"):
            raise InvalidArgument(f"{raw.name} isn't allowed as an ONBUILD trigger")
        return interpret(raw)

    def _print_image(self) -> None:
        self._session.say(f" ---> {self._image.short_id if self._image else ''}\n")

    async def _dispatch(self, instruction: Instruction) -> None:
        match instruction:
            case instructions.Arg():
                await self._arg(instruction)
            case instructions.Run():
                await self._run(instruction)
            case instructions.Copy():
                await self._copy(instruction)
            case instructions.Workdir():
                await self._workdir(instruction)
            case _:
                await self._metadata(instruction)

    # -- configuration ---------------------------------------------------------------------------

    def _env(self) -> Mapping[str, str]:
        return {**self._arguments, **environment(self._config.env)}

    def _expand(self, text: str) -> str:
        return words.expand(text, self._env(), self._escape)

    async def _metadata(self, instruction: Instruction) -> None:
        scope = metadata.Scope(self._expand, lambda text: words.expand_words(text, self._env(), self._escape), self._cmd_set)
        change = metadata.apply(instruction, self._config, scope)
        if change is None:
            raise NotImplementedHere(f"instruction is not supported: {instruction.text}")
        if isinstance(instruction, instructions.Maintainer):
            self._author = instruction.name
        self._cmd_set = self._cmd_set or isinstance(instruction, instructions.Cmd)
        self._config = change.config
        await self._commit_words(change.words)

    async def _arg(self, instruction: instructions.Arg) -> None:
        shown = "ARG"
        for written, default in instruction.arguments:
            name = self._expand(written)
            value = None if default is None else self._expand(default)
            shown += f" {name}" if value is None else f" {name}={value}"
            self._named.add(name)
            final = self._session.arguments.value(name, value)
            if final is not None:
                self._arguments[name] = final
        await self._commit_words(shown)

    async def _commit_words(self, text: str) -> None:
        """A step that changes no file."""
        step = f"{_NOP}  {text}"
        if not self._hit(step):
            with self._container():
                await self._commit(step, None)

    # -- files -----------------------------------------------------------------------------------

    async def _workdir(self, instruction: instructions.Workdir) -> None:
        path = self._expand(instruction.path)
        if not path:
            raise InvalidArgument("cannot normalize nothing")
        path = metadata.join_path(self._config.working_dir, path)
        self._config = replace(self._config, working_dir=path)
        step = f"{_NOP} WORKDIR {path}"
        if self._hit(step):
            return
        with self._container():
            folder = self._session.new_step()
            lower = await self._session.lower(self._image)

            def make(_: Stop) -> None:
                with writable(lower, folder.upper, folder.work, self._session.empty) as root:
                    os.close(root.make_directories(path))

            try:
                await run_blocking(make)
            except OSError as error:
                raise _failure(error, f"failed to create the working directory {path}") from error
            await self._commit(step, folder)

    async def _copy(self, instruction: instructions.Copy) -> None:
        word = "ADD" if instruction.add else "COPY"
        try:
            await self._copy_files(instruction, word)
        except SourceMissing as error:
            why = "" if instruction.source_from else "file not found in build context or excluded by .dockerignore: "
            raise InvalidArgument(f"{word} failed: {why}{error}") from error
        except InvalidArgument as error:
            raise InvalidArgument(f"{word} failed: {error}") from error
        except RecursionError as error:
            raise InvalidArgument(f"{word} failed: the directories are nested too deeply") from error
        except OSError as error:
            raise _failure(error, f"{word} failed") from error

    async def _copy_files(self, instruction: instructions.Copy, word: str) -> None:
        plan = await self._copy_plan(instruction, word)
        place = "" if plan.layers is None else key((*plan.layers, "", *plan.patterns, "", *plan.exclude))
        known = self._session.cache.content(place) if place else None
        if plan.is_whole_image:  # its layers say what is in it
            known = f"dir:{place}"
        found = await run_blocking(lambda stop: copystep.find(plan, self._session.empty, known, stop))
        if place and not plan.extras:
            self._session.cache.remember_content(place, found.digest)
        flags = "".join(
            f"--{name}={value} " for name, value in (("chown", plan.owner), ("chmod", instruction.mode)) if value
        )
        step = f"{_NOP} {word} {flags}{found.digest} in {plan.target} "
        if self._hit(step):
            return
        folder = self._session.new_step()
        lower = await self._session.lower(self._image)
        if plan.is_whole_image and plan.layers and not lower:  # nothing is under it: it is a layer as it is
            with open_layers(plan.layers, self._session.empty) as root:
                await self._commit(step, folder, tree=root.path)
            return
        destination = copystep.Destination(lower, folder.upper, folder.work, self._session.empty)
        await run_blocking(lambda stop: copystep.perform(plan, found, destination, stop))
        await self._commit(step, folder)

    async def _copy_plan(self, instruction: instructions.Copy, word: str) -> copystep.CopyPlan:
        target = self._expand(instruction.target)
        is_folder = target.endswith("/") or posixpath.basename(target) in (".", "..") or not target
        target = metadata.join_path(self._config.working_dir, target)
        if is_folder and target != "/":
            target += "/"
        sources = [self._expand(source) for source in instruction.sources]
        remote = [source for source in sources if instruction.add and download.is_remote(source)]
        layers = None
        if instruction.source_from:
            name = self._expand(instruction.source_from)
            layers = await self._session.lower(await self._session.source_image(name, self._stage))
        mode = self._expand(instruction.mode)
        return copystep.CopyPlan(
            word,
            tuple(source for source in sources if source not in remote),
            (*await self._downloads(remote, target, instruction.checksum), *self._heredoc_files(instruction.files)),
            target,
            self._session.context,
            layers,
            owner=self._expand(instruction.owner),
            mode=parse_mode(mode) if mode else None,
            exclude=tuple(self._expand(pattern) for pattern in instruction.exclude),
            unpack=instruction.unpack,
        )

    async def _downloads(self, addresses: list[str], target: str, checksum: str) -> list[copystep.Extra]:
        found = []
        proxies = self._session.arguments.proxies()
        for address in addresses:
            folder = self._session.new_folder("download")
            found.append(await download.fetch(address, target, folder, proxies, self._expand(checksum)))
        return found

    def _heredoc_files(self, files: tuple[Heredoc, ...]) -> list[copystep.Extra]:
        found = []
        for heredoc in files:
            content = heredoc.content
            if heredoc.expand:
                content = words.expand_text(content, self._env(), self._escape)
            name = posixpath.basename(heredoc.name)
            if name in ("", ".", ".."):
                raise InvalidArgument(f"invalid name of a here-document: {heredoc.name}")
            path = f"{self._session.new_folder('heredoc')}/file"
            with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(content)
            os.chmod(path, 0o644)
            found.append(copystep.Extra(name, path))
        return found

    # -- commands --------------------------------------------------------------------------------

    async def _run(self, instruction: instructions.Run) -> None:
        line = runstep.command_line(instruction, self._config)
        visible = runstep.visible_arguments(self._arguments, self._config)
        options = [runstep.parse_mount(self._expand(text), self._config) for text in instruction.mounts]
        step = runstep.history_words(line, visible, sorted(self._named))
        condition = [f"--mount={text}" for text in instruction.mounts]
        if instruction.network:
            condition.append(f"--network={instruction.network}")
        if self._hit(step, condition):
            return
        with self._container() as container:
            folder = self._session.new_step()
            lower = await self._session.lower(self._image)
            async with step_mounts(self._session, self._stage, options, line) as mounts:
                request = self._session.request
                wanted = RunStep(
                    lower=lower,
                    upper=folder.upper,
                    work=folder.work,
                    args=line.args,
                    env=runstep.run_environment(visible, self._session.arguments.proxies(), self._config),
                    cwd=self._config.working_dir or "/",
                    user=self._config.user,
                    hostname=container,
                    network=instruction.network if instruction.network not in ("", "default") else request.network,
                    memory=request.memory,
                    shm_size=request.shm_size,
                    extra_hosts=request.extra_hosts,
                    mounts=mounts,
                )
                status = await self._session.runner.run(wanted, _Printer(self._session.say))
            if status:
                command = " ".join(line.args)
                raise BuildFailed(f"The command '{command}' returned a non-zero code: {status}", status)
            if mounts:
                runstep.remove_stubs(folder.upper, lower, [mount.target for mount in mounts])
            await self._commit(step, folder, condition)

    # -- steps -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _container(self) -> Iterator[str]:
        """What the classic builder says around a step that is made in a container; the container's name."""
        name = os.urandom(6).hex()
        self._session.say(f" ---> Running in {name}\n")
        yield name
        if self._session.request.remove:
            self._session.say(f" ---> Removed intermediate container {name}\n")

    def _key(self, step: str, condition: list[str] | None) -> str:
        config = json.dumps(encode_config(self._config), sort_keys=True)
        return key((step, config, *(condition or ())))

    def _hit(self, step: str, condition: list[str] | None = None) -> bool:
        """Go on with what an earlier build made of this step, if there is something."""
        if self._missed:
            return False
        image = self._of_earlier_build(step, condition) or self._of_cache_source(step, condition)
        if image is None:
            self._missed = True
            return False
        self._session.say(" ---> Using cache\n")
        self._image = image
        return True

    def _of_earlier_build(self, step: str, condition: list[str] | None) -> Image | None:
        parent = self._image.id if self._image else ""
        identity = self._session.cache.find(parent, self._key(step, condition))
        if identity is None:
            return None
        session = self._session
        try:
            image = session.images.get(identity)
        except NotFound:  # removed since
            return None
        if session.request.cache_from and not cachefrom.is_part(session.images, session.cache_sources, image):
            return None  # who names caches wants no others
        return image

    def _of_cache_source(self, step: str, condition: list[str] | None) -> Image | None:
        session = self._session
        if condition:  # a history does not tell what else a step depended on
            return None
        return cachefrom.find(session.images, session.cache_sources, self._image, step, self._config)

    async def _commit(
        self, step: str, folder: StepFolder | None, condition: list[str] | None = None, tree: str | None = None
    ) -> None:
        """Make an image of what the step wrote into its folder, or of `tree`."""
        upper = tree or (folder.upper if folder and not folder.is_empty() else None)
        parent = self._image.id if self._image else ""
        entry = HistoryEntry(created_by=step, author=self._author, empty_layer=upper is None)
        image = await self._session.images.commit(self._image, upper, self._config, entry, author=self._author)
        self._session.cache.remember(parent, self._key(step, condition), image.id)
        self._image = image
        if folder is not None:
            await asyncio.to_thread(folder.remove)


def _failure(error: OSError, what: str) -> PyboxdError:
    """What a path of the Dockerfile or the image causes is the user's; the rest is the system's."""
    kind = InvalidArgument if error.errno in _WRONG_PATH else SystemFailure
    return kind(f"{what}: {error.strerror or error}")


class _Printer:
    """Text of a command's output, what it says on stderr in red; a character that comes in two pieces stays whole."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        new = codecs.getincrementaldecoder("utf-8")
        self._decoders = {1: new("replace"), 2: new("replace")}

    def __call__(self, stream: int, data: bytes) -> None:
        text = self._decoders[stream].decode(data)
        self._say(f"{_RED}{text}{_PLAIN}" if stream == _STDERR and text else text)
