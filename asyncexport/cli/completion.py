"""`completion`: scripts that let a shell complete commands, options and their values.

1. A script is generated from the commands and works without the program: pressing Tab does not start Python.
2. `VALUES` lists what each option takes; any other option takes free text or nothing.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from asyncexport.cli.invocation import PROGRAM
from asyncexport.cli.session import Session
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.core.warehouse.choices import SinkName

FILE, FOLDER = "file", "folder"

DATES = ("today", "yesterday", "7d", "30d", "90d", "12w", "36h")

VALUES: dict[str, str | tuple[str, ...]] = {
    "--config": FILE,
    "--directory": FOLDER,
    "--from-hauser": FILE,
    "--into": FOLDER,
    "--end": DATES,
    "--list-order": ("newest", "oldest", "shuffled"),
    "--log-format": ("text", "json"),
    "--rows": FILE,
    "--scope": ("create", "all"),
    "--start": DATES,
    "--sync-point": DATES,
    "--to": tuple(SinkName),
}
"""What an option takes, by its long name: a file, a folder, or one of the words."""

WORDS = {"completion": ("bash", "zsh", "fish"), "deploy": ("systemd", "cron", "kubernetes", "airflow")}
"""The words that a command takes as its argument."""

HELP = "help"
"""A word that may precede a command, to show the command's help."""


class Shell(StrEnum):
    """The supported shells."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@dataclass(frozen=True, slots=True)
class OptionWords:
    """One option: its names, its help, and what it takes (None: nothing; "": free text; else as in `VALUES`)."""

    names: tuple[str, ...]
    help: str
    takes: str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class CommandWords:
    """One command: its name ("" for the program itself), what it does, its options, and the words it accepts."""

    name: str
    does: str
    options: tuple[OptionWords, ...]
    words: tuple[str, ...] = ()


def completion(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)],
) -> Summary:
    """Print the script.

    For bash, put eval "$(asyncexport completion bash)" into ~/.bashrc. For zsh, put eval "$(asyncexport completion
    zsh)" into ~/.zshrc, below compinit. For fish, write the script to ~/.config/fish/completions/asyncexport.fish. A
    script saved to a file must be written again after an upgrade.
    """
    session: Session = ctx.obj
    script = SCRIPTS[shell](commands())
    session.say(script.rstrip("\n"))
    session.record("script", shell=shell.value, text=script)
    return session.summary(Exit.DONE)


def commands() -> list[CommandWords]:
    """List the program itself, and then every command."""
    from asyncexport.cli.commands import COMMANDS, program

    found: Any = program()
    shown = {name for param in found.params for name in param.opts}
    listed = [CommandWords("", "", _options(found.params), (*COMMANDS, HELP))]
    for name, entry in COMMANDS.items():
        params = found.get_command(SimpleNamespace(obj=None), name).params
        kept = [param for param in params if not param.hidden or shown.intersection(param.opts)]
        words = WORDS.get(name, ())
        listed.append(CommandWords(name, entry.does, _options(kept, of=name), words))
    return [*listed, CommandWords(HELP, "show the help of a command", (), tuple(COMMANDS))]


def _options(params: list[Any], *, of: str = "") -> tuple[OptionWords, ...]:
    found = [
        OptionWords((*param.opts, *param.secondary_opts), _one_line(param.help or ""), _takes(param, of=of))
        for param in params
        if param.param_type_name == "option"
    ]
    return (*found, OptionWords(("-h", "--help"), "Show this message and exit.", None))


def _takes(param: Any, *, of: str) -> str | tuple[str, ...] | None:
    if param.is_flag or param.count:
        return None
    longest = max(param.opts, key=len)
    if longest == "--set" and of != "sandbox":
        from asyncexport.config.layers import known_keys

        return tuple(f"{table}.{key}=" for table, keys in known_keys().items() if table != "export" for key in keys)
    return VALUES.get(longest, "")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# bash


def bash_script(found: list[CommandWords]) -> str:
    """Return the script for bash 3.2 and newer, where `COMP_WORDS` has "=" and ":" as separate words."""
    taking = sorted(
        {name for one in found for option in one.options if option.takes is not None for name in option.names}
    )
    cases = "\n".join(_bash_case(one) for one in found)
    return BASH.format(program=PROGRAM, taking="|".join(taking), cases=cases)


def _bash_case(command: CommandWords) -> str:
    names = " ".join(name for option in command.options for name in option.names)
    lines = [f"        {_single(command.name)})", f'            options="{names}"']
    if command.words:
        lines.append(f'            words="{" ".join(command.words)}"')
    values = [(option.names, option.takes) for option in command.options if option.takes]
    if values:
        lines.append('            case "$before" in')
        for names_of, takes in values:
            kind = f'"{takes}"' if isinstance(takes, str) else f'"{" ".join(takes)}"'
            variable = "kind" if isinstance(takes, str) else "values"
            lines.append(f"                {'|'.join(names_of)}) {variable}={kind} ;;")
        lines.append("            esac")
    return "\n".join([*lines, "            ;;"])


BASH = """\
# Completion of {program} for bash.
_{program}() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" before="" command="" options="" words="" values="" kind="" word
    local i=1
    COMPREPLY=()
    # The command is the first word that is neither an option nor an option's value.
    while [ "$i" -lt "$COMP_CWORD" ]; do
        word="${{COMP_WORDS[i]}}"
        case "$word" in
            {taking})
                [ "${{COMP_WORDS[i+1]}}" = "=" ] && i=$((i + 1))
                i=$((i + 1)) ;;
            -*) ;;
            = | :) i=$((i + 1)) ;;
            *) command="$word"; break ;;
        esac
        i=$((i + 1))
    done
    # The option whose value is being typed, if any.
    before="${{COMP_WORDS[COMP_CWORD-1]}}"
    if [ "$cur" = "=" ]; then
        cur=""
    elif [ "$before" = "=" ] && [ "$COMP_CWORD" -gt 1 ]; then
        before="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
    case "$command" in
{cases}
        *) return 0 ;;
    esac
    if [ "$kind" = "{file}" ] || [ "$kind" = "{folder}" ]; then
        compopt -o filenames 2>/dev/null
        local action=-f
        [ "$kind" = "{folder}" ] && action=-d
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$action" -- "$cur")
        return 0
    fi
    if [ -z "$values" ]; then
        case "$before" in
            {taking}) return 0 ;;
        esac
        case "$cur" in
            -*) values="$options" ;;
            *) values="$words" ;;
        esac
    fi
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$values" -- "$cur")
    case "${{COMPREPLY[0]}}" in
        *=) compopt -o nospace 2>/dev/null ;;
    esac
    return 0
}}
complete -F _{program} {program}
""".replace("{file}", FILE).replace("{folder}", FOLDER)


# zsh


def zsh_script(found: list[CommandWords]) -> str:
    """Return the script for zsh, for `eval` after compinit or for a file `_asyncexport` on the `fpath`."""
    first, *others = found
    described = "\n".join(f"        {_single(f'{one.name}:{one.does}')}" for one in others)
    cases = "\n".join(_zsh_case(one) for one in others)
    options = " \\\n".join(f"        {text}" for option in first.options for text in _zsh_option(option))
    return ZSH.format(program=PROGRAM, options=options, commands=described, cases=cases)


def _zsh_case(command: CommandWords) -> str:
    words = [text for option in command.options for text in _zsh_option(option)]
    if command.words:
        words.append(_single(f"1:word:({' '.join(command.words)})"))
    arguments = " \\\n".join(f"                {text}" for text in words)
    return f"            {command.name})\n              _arguments -s \\\n{arguments}\n              ;;"


def _zsh_option(option: OptionWords) -> Iterator[str]:
    text_of_help = re.sub(r"([\[\]:\\])", r"\\\1", option.help)
    actions = {FILE: "_files", FOLDER: "_files -/", "": " "}  # a blank: free text
    for name in option.names:
        text = f"{name}{'' if option.takes is None else '=' if name.startswith('--') else '+'}[{text_of_help}]"
        if option.takes is not None:
            action = actions[option.takes] if isinstance(option.takes, str) else _zsh_words(option.takes)
            text += f":value:{action}"
        yield _single(f"*{text}")


def _zsh_words(words: tuple[str, ...]) -> str:
    """Return the zsh action for a list of words; a word that ends in "=" is not followed by a space."""
    listed = " ".join(words)
    return f'{{compadd -S "" - {listed}}}' if words[0].endswith("=") else f"({listed})"


ZSH = """\
#compdef {program}
# Completion of {program} for zsh.
_{program}() {{
  local curcontext="$curcontext" state line
  typeset -A opt_args
  local -a commands
  _arguments -s -C \\
{options} \\
        '1:command:->command' \\
        '*::argument:->argument'
  case "$state" in
    command)
      commands=(
{commands}
      )
      _describe command commands
      ;;
    argument)
      case "$words[1]" in
{cases}
      esac
      ;;
  esac
}}
if [ "$funcstack[1]" = "_{program}" ]; then
  _{program} "$@"
else
  compdef _{program} {program}
fi
"""


# fish


def fish_script(found: list[CommandWords]) -> str:
    """Return the script for fish, for a file in `~/.config/fish/completions` or `source`."""
    first, *others = found
    names = " ".join(one.name for one in others)
    lines = [f"# Completion of {PROGRAM} for fish.", f"complete -c {PROGRAM} -f"]
    lines += [_fish_line(f"not __fish_seen_subcommand_from {names}", option) for option in first.options]
    for one in others:
        lines.append(
            f"complete -c {PROGRAM} -n {_fish(f'not __fish_seen_subcommand_from {names}')} -a {one.name} "
            f"-d {_fish(one.does)}"
        )
    for one in others:
        condition = f"__fish_seen_subcommand_from {one.name}"
        lines += [_fish_line(condition, option) for option in one.options]
        if one.words:
            lines.append(f"complete -c {PROGRAM} -n {_fish(condition)} -a {_fish(' '.join(one.words))}")
    return "\n".join(lines) + "\n"


def _fish_line(condition: str, option: OptionWords) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    match option.takes:
        case None:
            takes = ""
        case "":
            takes = " -x"
        case "file":
            takes = " -r -F"
        case "folder":
            takes = " -x -a '(__fish_complete_directories)'"
        case words:
            takes = f" -x -a {_fish(' '.join(words))}"
    return f"complete -c {PROGRAM} -n {_fish(condition)} {names}{takes} -d {_fish(option.help)}"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _single(text: str) -> str:
    """Quote a text for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


SCRIPTS: dict[Shell, Callable[[list[CommandWords]], str]] = {
    Shell.BASH: bash_script,
    Shell.ZSH: zsh_script,
    Shell.FISH: fish_script,
}
