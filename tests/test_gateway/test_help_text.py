"""What ``--help`` says of the commands, and what a mistake on the command line is answered with."""

from __future__ import annotations

import pytest

from pipeline.gateway.help_text import HeadraceParser, add_command, new_parser


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> HeadraceParser:
    monkeypatch.setenv("COLUMNS", "80")
    parser = new_parser("A gateway.", "headrace 1")
    serve = add_command(
        parser.commands,
        "serve",
        summary="serve a configuration",
        description="Serve a configuration, 100% of it.\n\nIt goes on until Ctrl-C.",
        example="headrace serve",
        environment=[("HEADRACE_CONFIG", "the configuration"), ("PORT", "the port")],
    )
    serve.add_argument("--port", type=int)
    add_command(parser.commands, "docs", summary="write pages", description="Write.", example="headrace docs")
    parser.commands.add_parser("doctor", help="unused", description="Look for mistakes. Then mend them.")
    return parser


def test_the_help_lists_commands_in_groups_and_hides_those_of_none(parser: HeadraceParser) -> None:
    assert parser.format_help() == (
        "usage: headrace COMMAND [options]\n\nA gateway.\n\n"
        "get started:\n"
        "  serve         serve a configuration\n"
        "  doctor        Look for mistakes\n\n"
        "options:\n"
        "  -h, --help    show this\n"
        "  --version     show the version\n\n"
        "`headrace COMMAND --help` explains a command, with an example.\n"
    )


def test_the_help_of_a_command_has_its_sentence_its_variables_and_an_example(parser: HeadraceParser) -> None:
    text = parser.commands.choices["serve"].format_help()
    assert "Serve a configuration, 100% of it.\n\nIt goes on until Ctrl-C.\n" in text
    assert text.endswith(
        "environment:\n"
        "  HEADRACE_CONFIG  the configuration\n"
        "  PORT             the port\n\n"
        "example:\n"
        "  headrace serve\n"
    )


def test_a_mistake_is_told_with_the_help_of_its_command(
    parser: HeadraceParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["serve", "--port", "many"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: headrace serve ")
    assert said.endswith("argument --port: invalid int value: 'many'; `headrace serve --help` explains it\n")


def test_a_flag_that_is_a_near_miss_gets_a_question(parser: HeadraceParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.commands.choices["serve"].refuse_unknown(["--prot=5"])
    assert "unknown: --prot=5; did you mean --port?" in capsys.readouterr().err


def test_a_file_without_its_flag_gets_a_question(parser: HeadraceParser, capsys: pytest.CaptureFixture[str]) -> None:
    serve = parser.commands.choices["serve"]
    serve.add_argument("--config")
    with pytest.raises(SystemExit):
        serve.refuse_unknown(["prod.yaml"])
    assert "unknown: prod.yaml; did you mean --config prod.yaml?" in capsys.readouterr().err
