"""model: the models that installed packages hold."""

from argparse import Namespace

from fst_bench.cli.parser import Commands, Parser, Result, add_command


def add_commands(commands: Commands) -> None:
    model = commands.add_parser("model", help="models that come inside an installed Python package")
    actions = model.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")

    add_command(actions, "list", do_list, "which exist, under which licence, and whether they are converted")

    summary = "convert one for transformers, unless it has been; a run does the same"
    get = add_command(actions, "get", do_get, summary)
    get.add_argument("name", help="a name (fst-bench model list)")


def do_list(args: Namespace) -> Result:
    from fst_bench.policy.packaged import MODELS, folder_of, missing, source_of

    found = {}
    for name, model in MODELS.items():
        folder = folder_of(name)
        files = list(folder.iterdir()) if source_of(name) else []
        found[name] = {
            "licence": model.licence,
            "package": model.package,
            "state": "converted" if files else "not installed" if missing(name) else "installed",
            "megabytes": round(sum(file.stat().st_size for file in files) / 1e6),
            "folder": str(folder),
        }
    rows = [("name", *next(iter(found.values())))] + [(name, *map(str, row.values())) for name, row in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    return {"models": found}


def do_get(args: Namespace) -> Result:
    from fst_bench.policy.packaged import converted, source_of

    result = {"folder": str(converted(args.name))} | source_of(args.name)
    for key, value in result.items():
        print(f"{key:<16}{value}")
    return result
