"""``featx backbones``."""

from __future__ import annotations

import dataclasses

import click

from featx.cli import options, output


@click.command("backbones")
@click.argument("pattern", required=False)
@click.option("--nodes", is_flag=True, help="List the nodes of the backbone named PATTERN, with their shapes.")
@options.json_option
def command(pattern: str | None, nodes: bool, as_json: bool) -> int:
    """List the backbones whose name contains PATTERN (or fits it, with * and ?).

    \b
    Example:
      featx backbones resnet
      featx backbones resnet50 --nodes
      featx backbones 'timm:convnext*'    networks of timm (pip install 'featx[timm]')
    """
    from featx.errors import UsageError

    if nodes:
        if pattern is None:
            raise UsageError("--nodes needs the name of one backbone: featx backbones resnet50 --nodes")
        _print_nodes(pattern, as_json)
    else:
        _print_backbones(pattern, as_json)
    return 0


def _print_nodes(name: str, as_json: bool) -> None:
    from featx.vision import catalogue

    nodes = catalogue.list_nodes(name)
    if as_json:
        output.print_json({"backbone": name, "nodes": [dataclasses.asdict(node) for node in nodes]})
        return
    rows = [
        (
            node.name,
            " x ".join(map(str, node.shape)),
            ", ".join(node.poolings),
            "default" if node.default else node.alias,
        )
        for node in nodes
    ]
    output.print_table(["node", "shape", "pooling", ""], rows, indent=0)


def _print_backbones(pattern: str | None, as_json: bool) -> None:
    from featx.vision import catalogue

    infos = catalogue.list_backbones(pattern)
    if as_json:
        output.print_json({"backbones": [dataclasses.asdict(info) for info in infos]})
        return
    rows = [
        (
            i.name,
            "-" if i.n_features is None else i.n_features,
            f"{i.image_size}",
            ("-" if i.n_parameters is None else f"{i.n_parameters / 1e6:.1f} M").rjust(len("parameters")),
            "here" if i.weights_here else "none" if not i.weights else "-",
        )
        for i in infos
    ]
    output.print_table(["backbone", "n_features", "pixels", "parameters", "weights"], rows, indent=0)
