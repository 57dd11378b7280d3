"""Control-flow graphs as JSON, Mermaid and Graphviz text; runs inside the sandbox.

A graph is {"name", "line", "nodes": [{"id", "line", "text"}], "edges": [[from, to, label]]}.
"""

import json
import re

MOST = 400


def complexity(graph):
    """Edges less nodes plus two, of what can be reached."""
    return len(graph["edges"]) - len(graph["nodes"]) + 2


def reached(graph):
    """The graph without nodes that nothing leads to."""
    after = {}
    for start, end, _ in graph["edges"]:
        after.setdefault(start, []).append(end)
    first = graph["nodes"][0]["id"]
    seen, wait = {first}, [first]
    while wait:
        for end in after.get(wait.pop(), ()):
            if end not in seen:
                seen.add(end)
                wait.append(end)
    return {
        **graph,
        "nodes": [node for node in graph["nodes"] if node["id"] in seen],
        "edges": [edge for edge in graph["edges"] if edge[0] in seen],
    }


def plain(text):
    return re.sub(r"[^\w .,:;=+*/%<>()\[\]-]", "'", str(text))[:60].replace("<", "‹").replace(">", "›")


def mermaid(graphs):
    lines = ["flowchart TD"]
    for number, graph in enumerate(graphs):
        name = plain(graph["name"])
        lines.append(f'  subgraph g{number} ["{name}"]')
        texts = [(node["id"], plain(node["text"]) or ".") for node in graph["nodes"]]
        lines += [f'    g{number}n{place}["{text}"]' for place, text in texts]
        for start, end, label in graph["edges"]:
            word = f"|{plain(label)}|" if label else ""
            lines.append(f"    g{number}n{start} -->{word} g{number}n{end}")
        lines.append("  end")
    return "\n".join(lines[:2000]) + "\n"


def dot(graphs):
    lines = ["digraph cfg {", "  node [shape=box];"]
    for number, graph in enumerate(graphs):
        name = plain(graph["name"])
        lines += [f"  subgraph cluster_{number} {{", f'    label="{name}";']
        texts = [(node["id"], plain(node["text"])) for node in graph["nodes"]]
        lines += [f'    g{number}n{place} [label="{text}"];' for place, text in texts]
        for start, end, label in graph["edges"]:
            word = f' [label="{plain(label)}"]' if label else ""
            lines.append(f"    g{number}n{start} -> g{number}n{end}{word};")
        lines.append("  }")
    return "\n".join([*lines[:2000], "}"]) + "\n"


def report(graphs):
    """Metrics and artefacts of some functions' graphs."""
    graphs = [reached(graph) for graph in graphs[:MOST] if graph["nodes"]]
    counts = [complexity(graph) for graph in graphs]
    return {
        "metrics": {
            "graph functions": len(graphs),
            "graph nodes": sum(len(graph["nodes"]) for graph in graphs),
            "graph edges": sum(len(graph["edges"]) for graph in graphs),
            "graph complexity max": max(counts, default=0),
            "graph complexity sum": sum(counts),
        },
        "artefacts": {"cfg": json.dumps(graphs), "cfg mermaid": mermaid(graphs), "cfg dot": dot(graphs)},
    }
