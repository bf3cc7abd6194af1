"""Go templates after --format, against what Docker prints for the same."""

from __future__ import annotations

from typing import Any

import pytest

from pybox.cli.template import render
from pybox.errors import UsageProblem

VALUE: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "ExitCode": 0, "Error": ""},
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"b": "2", "a": "1"}, "Cmd": None},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}}", "/web"),
        ("{{ .State.ExitCode }}", "0"),
        ("{{.State.Running}}", "true"),
        ("{{json .Config.Env}}", '["A=1","B=2"]'),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a:1 b:2]"),
        ("{{range .Config.Env}}{{.}};{{end}}", "A=1;B=2;"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Error}}bad{{else}}fine{{end}}", "fine"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        ('{{index .Config.Labels "a"}}', "1"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{.Name | upper}}", "/WEB"),
        ("{{len .Config.Env}}", "2"),
        ('{{if eq .Name "/web"}}yes{{end}}', "yes"),
        ("{{with .State}}{{.ExitCode}}{{end}}", "0"),
        ("a\\tb", "a\tb"),
        ("{{.name}}", "/web"),
        ("{{.Config.Cmd}}", "<no value>"),
        ('{{printf "%s-%d" .Name .State.ExitCode}}', "/web-0"),
        ("{{range .Config.Env}}{{$.Name}}{{end}}", "/web/web"),
    ],
)
def test_render(template: str, expected: str) -> None:
    assert render(template, VALUE) == expected


@pytest.mark.parametrize("template", ["{{nonsense .Name}}", "{{if .Name}}open", "{{.Name.Deeper}}", "{{end}}", "{{}}"])
def test_mistakes_are_told(template: str) -> None:
    with pytest.raises(UsageProblem):
        render(template, VALUE)
