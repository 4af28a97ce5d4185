"""The lineage as SVG: columns from left to right, each node a link. Only escaped text goes in."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from webapp.checkpoints.ancestry import Graph, Node

WIDTH, HEIGHT = 170, 58  # of a node
ACROSS, DOWN = 28, 16  # between nodes
MARGIN = 4
_LETTERS, _SMALL_LETTERS = 21, 25  # of a name, and of a note, that fit

Places = Mapping[str, tuple[int, int]]


def columns(graph: Graph) -> dict[str, int]:
    """Node → column: each stands right of all that it was made from, and as far right as it can.

    Rows make no circles; should a file claim one, the edge that closes it counts for nothing.
    """
    after: dict[str, list[str]] = {key: [] for key in graph.nodes}
    waiting = dict.fromkeys(graph.nodes, 0)
    for source, target in graph.edges:
        after[source].append(target)
        waiting[target] += 1
    ready = [key for key, count in waiting.items() if not count]
    order: list[str] = []
    column = dict.fromkeys(graph.nodes, 0)
    while len(order) < len(graph.nodes):
        key = ready.pop(0) if ready else next(key for key in graph.nodes if key not in order)
        order.append(key)
        for target in after[key]:
            if target not in order:
                column[target] = max(column[target], column[key] + 1)
            waiting[target] -= 1
            if not waiting[target] and target not in order:
                ready.append(target)
    rank = {key: number for number, key in enumerate(order)}
    for key in reversed(order):
        if later := [column[target] for target in after[key] if rank[target] > rank[key]]:
            column[key] = min(later) - 1
    return column


def places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Node → (column, row). In a column nodes stand in the order of what they are made from."""
    column = columns(graph)
    before: dict[str, list[str]] = {key: [] for key in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)
    found: dict[str, tuple[int, int]] = {}
    for number in range(max(column.values(), default=0) + 1):
        keys = [key for key in graph.nodes if column[key] == number]

        def height(key: str) -> float:
            rows = [found[each][1] for each in before[key] if each in found]
            return sum(rows) / len(rows) if rows else 0.0

        for row, key in enumerate(sorted(keys, key=height)):
            found[key] = (number, row)
    return found


def draw(graph: Graph) -> SafeString:
    """The graph as SVG, as wide as it has columns; blank where there is nothing but one node."""
    if len(graph.nodes) < 2:
        return SafeString("")
    where = places(graph)
    width = (max(column for column, _ in where.values()) + 1) * (WIDTH + ACROSS) - ACROSS
    height = (max(row for _, row in where.values()) + 1) * (HEIGHT + DOWN) - DOWN
    edges = format_html_join("", '<path d="{}"/>', ((_edge(e, where),) for e in graph.edges))
    nodes = format_html_join("", "{}", ((_node(n, where),) for n in graph.nodes.values()))
    return format_html(
        '<svg class="lineage" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="group"'
        ' aria-label="Lineage as a graph; the list below says the same">'
        '<g class="edges" aria-hidden="true">{edges}</g>{nodes}</svg>',
        w=width + 2 * MARGIN,
        h=height + 2 * MARGIN,
        edges=edges,
        nodes=nodes,
    )


def _corner(key: str, where: Places) -> tuple[int, int]:
    column, row = where[key]
    return MARGIN + column * (WIDTH + ACROSS), MARGIN + row * (HEIGHT + DOWN)


def _edge(edge: tuple[str, str], where: Places) -> str:
    (x1, y1), (x2, y2) = (_corner(key, where) for key in edge)
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
    bend = max((x2 - x1) // 2, 12)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


def _node(node: Node, where: Places) -> SafeString:
    x, y = _corner(node.key, where)
    name, note = node.name, node.note
    if not note and len(name) > _LETTERS and (space := name.rfind(" ", 0, _LETTERS + 1)) > 0:
        name, note = name[:space], name[space + 1 :]  # on the free line
    name, note = _cut(name, _LETTERS), _cut(note, _SMALL_LETTERS)
    whole = f"{node.role}: {node.name}" + (f" ({node.note})" if node.note else "")
    # No aria-label: what is heard holds what is seen, so that a link can be asked for by voice.
    inner = format_html(
        '<title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="6"/>'
        '<text class="role" x="{}" y="{}">{}</text><text class="name" x="{}" y="{}">{}</text>'
        '<text class="note" x="{}" y="{}">{}</text>',
        whole, x, y, WIDTH, HEIGHT, x + 10, y + 16, node.role, x + 10, y + 33, name,
        x + 10, y + 49, note,
    )  # fmt: skip
    kind = "node missing" if node.missing else "node here" if node.here else "node"
    if node.href and not node.here:
        return format_html('<a class="{}" href="{}">{}</a>', kind, node.href, inner)
    return format_html('<g class="{}">{}</g>', kind, inner)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
