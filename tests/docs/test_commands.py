"""Every command that a page names exists: pipelines, nodes, environments, parameters with their values, make targets, files."""

import re
import shlex
from pathlib import Path

import click
import pytest
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.project import pipelines

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/add_a_model.md", "docs/add_a_source.md")
OTHERS = ("git", "cd")  # of the shell


def commands(text):
    """Command lines of the shell blocks, and of the code in running text that starts as one does."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [s for s in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(kedro|make|\.venv/bin/\w+) ", s)]  # fmt: skip
    for line in [*"".join(blocks).splitlines(), *spans]:
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def of(program):
    """(page, words) of every command of a program."""
    return [
        pytest.param(page, words[1:], id=f"{page}:{' '.join(words)}")
        for page in PAGES
        for words in dict.fromkeys(map(tuple, commands((ROOT / page).read_text(encoding="utf-8"))))
        if Path(words[0]).name == program and not any(c in w for w in words for c in "<…")
    ]


@pytest.fixture(scope="module")
def kedro(project):
    return KedroCLI(project_path=project)


def test_pages_name_only_programs_that_are_looked_at_here():
    for page in PAGES:
        for words in commands((ROOT / page).read_text(encoding="utf-8")):
            assert Path(words[0]).name in ("kedro", "make", *OTHERS), f"{page}: {' '.join(words)}"


@pytest.mark.parametrize(("page", "words"), of("kedro"))
def test_kedro_commands_parse_and_name_what_exists(kedro, wrong_parameters, page, words):
    context = _parsed(kedro, words)
    if context.info_name != "run" or context.parent.info_name != "kedro":
        return
    given = context.params
    names = given["pipelines"] or [given["pipeline"] or "__default__"]
    assert set(names) <= set(pipelines), f"no such pipeline: {names}"
    nodes = {node.name for name in names for node in pipelines[name].nodes}
    for option in ("from_nodes", "to_nodes", "node_names"):
        assert set(given[option] or ()) <= nodes, f"no such node: {given[option]}"
    env = given["env"] or "base"
    assert (ROOT / "conf" / env).is_dir(), f"no such environment: {env}"
    assert wrong_parameters(given["params"] or {}, env) == []


def _parsed(group, words):
    """The innermost command's context; a wrong option or argument raises."""
    context = click.Context(group, info_name="kedro")
    command = group
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"kedro has no command {name!r}"
        context = command.make_context(name, list(words), parent=context) if not isinstance(command, click.Group) else click.Context(command, info_name=name, parent=context)  # fmt: skip
    return context


def changed_in_prose():
    """``--params …`` and lone assignments in running text."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for span in re.findall(r"`([^`\n]+)`", text):
            if re.fullmatch(r"(--params )?([a-z_]+(\.\w+)+=[^\s,]+,?)+", span):
                yield pytest.param(page, span.removeprefix("--params "), id=f"{page}:{span}")


@pytest.mark.parametrize(("page", "assignments"), changed_in_prose())
def test_parameters_in_running_text_can_be_set(kedro, wrong_parameters, page, assignments):
    changed = _parsed(kedro, ["run", "--params", assignments]).params["params"]
    assert wrong_parameters(changed, "base") == []


@pytest.mark.parametrize(("page", "words"), of("make"))
def test_make_targets_exist(page, words):
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" not in word:
            assert re.search(rf"^{re.escape(word)}:", rules, re.MULTILINE), f"no target {word}"
            continue
        name, value = word.split("=")
        assert f"$({name})" in rules, f"make knows no {name}"
        if name == "NAME":
            assert (ROOT / f"benchmarks/{value}.py").is_file()


def test_links_lead_to_files():
    for page in (*PAGES, "docs/parameters.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_a_command_that_does_not_exist_is_found(kedro, wrong_parameters):
    with pytest.raises(click.UsageError):
        _parsed(kedro, ["run", "--pipelined", "mt_dqn"])
    with pytest.raises(AssertionError, match="no command"):
        _parsed(kedro, ["reelrank", "shew"])
    context = _parsed(kedro, ["run", "--params", "mt_dqn.training.epoch=3"])
    assert "mt_dqn.training.epoch" in wrong_parameters(context.params["params"], "base")[0]
