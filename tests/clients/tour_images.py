"""Images: names, builds, histories, archives, commits, removal."""

from __future__ import annotations

import re

from tests.clients.tour import DOCKERFILE, Says, archive, like, step


def _built(cached: bool) -> str:
    """What the classic builder says of the Dockerfile."""
    lines = DOCKERFILE.splitlines()
    text = "Sending build context to Docker daemon  <size>\n"
    for number, line in enumerate(lines, 1):
        text += f"Step {number}/{len(lines)} : {line}\n"
        if not line.startswith("FROM"):
            if cached:
                text += " ---> Using cache\n"
            elif not line.startswith("COPY"):
                text += " ---> Running in <id>\n ---> Removed intermediate container <id>\n"
        text += " ---> <id>\n"
    return text + "Successfully built <id>\nSuccessfully tagged tour:built\n"


STEPS = (
    step("images tour", "REPOSITORY  TAG  IMAGE ID  CREATED  SIZE\ntour  base  <id>  <time> ago  <size>\n"),
    step("images --quiet --no-trunc tour", "sha256:<id>\n"),
    step("images --format '{{.Repository}}:{{.Tag}} {{.ID}}' tour", "tour:base <id>\n"),
    step("images --filter reference=tour:nosuch", "REPOSITORY  TAG  IMAGE ID  CREATED  SIZE\n"),
    step("images --filter nosuch=x", err="Error response from daemon: invalid filter 'nosuch'\n", status=1),
    step(
        "images --digests tour",
        "REPOSITORY  TAG  DIGEST  IMAGE ID  CREATED  SIZE\ntour  base  <none>  <id>  <time> ago  <size>\n",
    ),
    step("tag tour:base tour:second"),
    step("tag nosuch tour:third", err="Error response from daemon: No such image: nosuch:latest\n", status=1),
    step(
        "tag tour:base Tour:third",
        err=(
            'Error parsing reference: "Tour:third" is not a valid repository/tag: invalid reference format: '
            "repository name (library/Tour) must be lowercase\n"
        ),
        status=1,
        old=Says(
            err=(
                'Error parsing reference: "Tour:third" is not a valid repository/tag: invalid reference format: '
                "repository name must be lowercase\n"
            ),
            status=1,
        ),
    ),
    step(
        "image inspect --format '{{.Os}} {{.Architecture}} {{json .Config.Cmd}} {{len .RootFS.Layers}}' tour:second",
        'linux amd64 ["bash"] 1\n',
    ),
    step(
        "image inspect nosuch",
        "[]\n",
        err="Error response from daemon: No such image: nosuch:latest\n",
        status=1,
        old=Says("[]\n", err="Error: No such image: nosuch\n", status=1),
    ),
    step("inspect --format '{{json .RepoTags}}' tour:base", '["debian:trixie-slim","tour:base","tour:second"]\n'),
    step(
        "inspect --format '{{.Nosuch}}' tour:base",
        "\n",
        err=('template parsing error: template: :1:2: executing "" at <.Nosuch>: map has no entry for key "Nosuch"\n'),
        status=1,
    ),
    step(
        "pull 127.0.0.1:1/nosuch:1",
        err=(
            'Error response from daemon: Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused\n'
        ),
        status=1,
    ),
    step(
        "pull Nosuch",
        err="invalid reference format: repository name (library/Nosuch) must be lowercase\n",
        status=1,
        old=Says(err="invalid reference format: repository name must be lowercase\n", status=1),
    ),
    step(
        "push 127.0.0.1:1/nosuch:1",
        "The push refers to repository [127.0.0.1:1/nosuch]\n",
        err="An image does not exist locally with the tag: 127.0.0.1:1/nosuch\n",
        status=1,
    ),
    step("build --tag tour:built .", _built(cached=False)),
    step("build --tag tour:built .", _built(cached=True)),
    step("build --quiet --build-arg WORD=other .", "sha256:<id>\n"),
    step(
        "build --file Failing .",
        "Sending build context to Docker daemon  <size>\n"
        "Step 1/2 : FROM tour:base\n"
        " ---> <id>\n"
        "Step 2/2 : RUN echo said; exit 3\n"
        " ---> Running in <id>\n"
        "said\n",
        err="The command '/bin/sh -c echo said; exit 3' returned a non-zero code: 3\n",
        status=3,
    ),
    step(
        "build --file Broken .",
        "Sending build context to Docker daemon  <size>\n",
        err="Error response from daemon: dockerfile parse error on line 2: unknown instruction: NOSUCH\n",
        status=1,
    ),
    step(
        "build --file Nosuch .",
        err=(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat "
            "<folder>/Nosuch: no such file or directory\n"
        ),
        status=1,
    ),
    step(
        "build --target nosuch .",
        "Sending build context to Docker daemon  <size>\n",
        err='Error response from daemon: target stage "nosuch" could not be found\n',
        status=1,
    ),
    step(
        "build --tag tour:piped -",
        "Sending build context to Docker daemon  <size>\n"
        "Step 1/2 : FROM tour:base\n"
        " ---> <id>\n"
        "Step 2/2 : ENV A=b\n"
        " ---> Running in <id>\n"
        " ---> Removed intermediate container <id>\n"
        " ---> <id>\n"
        "Successfully built <id>\n"
        "Successfully tagged tour:piped\n",
        stdin=b"FROM tour:base\nENV A=b\n",
    ),
    step("run --rm tour:built", "WORD=written\n"),
    step("run --rm --entrypoint cat tour:built /built", "built\n"),
    step(
        "history --format '{{.CreatedBy}}: {{.Size}}' tour:piped",
        "/bin/sh -c #(nop)  ENV A=b: <size>\n"
        '/bin/sh -c #(nop)  CMD ["bash"]: <size>\n'
        "/bin/sh -c #(nop) COPY dir:<sum>: <size>\n",
    ),
    step(
        "history tour:built",
        like(
            re.escape(
                "IMAGE  CREATED  CREATED BY  SIZE  COMMENT\n"
                '<id>  <time> ago  /bin/sh -c #(nop)  CMD ["cat" "/copied"]  <size>\n'
                "<id>  <time> ago  /bin/sh -c #(nop) COPY file:<sum>  <size>\n"
                "<id>  <time> ago  /bin/sh -c #(nop)  EXPOSE 80  <size>\n"
                "<id>  <time> ago  /bin/sh -c #(nop) WORKDIR /usr/share  <size>\n"
                "<id>  <time> ago  /bin/sh -c #(nop)  ENV A=b  <size>\n"
                "<id>  <time> ago  |1 WORD=built /bin/sh -c echo $WORD >/built  <size>\n"
                "<id>  <time> ago  /bin/sh -c #(nop)  ARG WORD=built  <size>\n"
                "<id>  <time> ago  /bin/sh -c #(nop)  LABEL tour=built  <size>\n"
                '<id>  <time> ago  /bin/sh -c #(nop)  CMD ["bash"]  <size>\n'
            )
            # the first step of the base is there where the base was made, and not where it was loaded
            + r"<(id|missing)>  <time> ago  /bin/sh -c #\(nop\) COPY dir:<sum>  <size>\n"
        ),
    ),
    step("history nosuch", err="Error response from daemon: No such image: nosuch:latest\n", status=1),
    step(
        "image inspect --format '{{json .Config.Env}} {{.Config.WorkingDir}} {{json .Config.Labels}} "
        "{{json .Config.ExposedPorts}}' tour:built",
        '["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=b"] /usr/share '
        '{"tour":"built"} {"80/tcp":{}}\n',
    ),
    step("import small.tar tour:small", "sha256:<id>\n"),
    step("save --output image.tar tour:small"),
    step("save nosuch", err="Error response from daemon: No such image: nosuch\n", status=1),
    step(
        "rmi tour:built",
        like(r"Untagged: tour:built\n(Deleted: sha256:<id>\n)+"),
        why="images and layers are counted otherwise",
    ),
    step(
        "rmi tour:second tour:small",
        like(r"Untagged: tour:second\nUntagged: tour:small\n(Deleted: sha256:<id>\n)+"),
        why="images and layers are counted otherwise",
    ),
    step("load --input image.tar", "Loaded image: tour:small\n"),
    step("load --quiet --input image.tar", "Loaded image: tour:small\n"),
    step("load --input nosuch.tar", err="open nosuch.tar: no such file or directory\n", status=1),
    step(
        "load",
        err="unexpected EOF\n",
        status=1,
        pybox=Says(err="unexpected end of the archive\n", status=1),
        why="pybox says what was cut off",
        stdin=b"garbage",
    ),
    step("images --format '{{.Repository}}:{{.Tag}}' tour:s*", "tour:small\n"),
    step("create --name tour-holder tour:small nothing", "<id>\n"),
    step(
        "rmi tour:small",
        err=(
            'Error response from daemon: conflict: unable to remove repository reference "tour:small" (must '
            "force) - container <id> is using its referenced image <id>\n"
        ),
        status=1,
    ),
    step("rmi --force tour:small", "Untagged: tour:small\nDeleted: sha256:<id>\n"),
    step("export --output tree.tar tour-holder"),
    step("import --change 'CMD [\"nothing\"]' --message imported tree.tar tour:imported", "sha256:<id>\n"),
    step("cp tour-holder:/inside back"),
    step("cp tour-holder:/inside -", "<archive>"),
    step("rm tour-holder", "tour-holder\n"),
    step(
        "run --name tour-changed tour:base sh -c 'echo new >/new; rm /etc/issue /etc/hostname'",
        err="rm: cannot remove '/etc/hostname': Device or resource busy\n",
        status=1,
    ),
    step(
        "diff tour-changed", like(r"(A /new\n)?C /etc\nD /etc/issue\n(A /new\n)?"), why="Docker's order is none; pybox sorts"
    ),
    step(
        'commit --message words --author somebody --change \'CMD ["cat","/new"]\' tour-changed tour:committed',
        "sha256:<id>\n",
    ),
    step("run --rm tour:committed", "new\n"),
    step("inspect --format '{{.Comment}}, {{.Author}}' tour:committed", "words, somebody\n"),
    step("import - tour:streamed", "sha256:<id>\n", stdin=archive()),
    step("history --format '{{.Comment}}' tour:imported", "imported\n"),
    step("rm tour-changed", "tour-changed\n"),
    step(
        "rmi tour:imported tour:committed nosuch",
        "Untagged: tour:imported\n"
        "Deleted: sha256:<id>\n"
        "Deleted: sha256:<id>\n"
        "Untagged: tour:committed\n"
        "Deleted: sha256:<id>\n"
        "Deleted: sha256:<id>\n",
        err="Error response from daemon: No such image: nosuch:latest\n",
        status=1,
        old=Says(
            "Untagged: tour:imported\n"
            "Deleted: sha256:<id>\n"
            "Deleted: sha256:<id>\n"
            "Untagged: tour:committed\n"
            "Deleted: sha256:<id>\n"
            "Deleted: sha256:<id>\n",
            err="Error: No such image: nosuch\n",
            status=1,
        ),
    ),
    step(
        "rmi nosuch",
        err="Error response from daemon: No such image: nosuch:latest\n",
        status=1,
        old=Says(err="Error: No such image: nosuch\n", status=1),
    ),
    step("image prune --force --filter label=tour=pruned", "Total reclaimed space: <size>\n"),
    step("image rm tour:piped", "Untagged: tour:piped\nDeleted: sha256:<id>\n"),
)
