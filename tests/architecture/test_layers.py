"""The house's rules, read from the source: which way imports go, how big things get, what must not happen at import.

Every rule is a function from a source tree to a list of offences; the last tests give each rule a tree that breaks it.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "backends", "model_store", "loadtest")
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8

# group -> the groups it may import; a group may always import itself
BASE = {"base"}
PURE = {"experiments", "protocol", "stats", "events", "policies"}
SHARED = {"base", "protocol", "stats", "reports"}
ALLOWED = {
    "base": set(),
    **dict.fromkeys(PURE, BASE),
    "dataplane": BASE | PURE - {"stats"},
    "controlplane": BASE | PURE - {"stats"} | {"dataplane"},
    "config": BASE | {"experiments"},
    "storage": BASE | {"experiments"},
    "telemetry": BASE | {"events"},
    "upstream": BASE | {"protocol", "policies", "dataplane"},
    "servers": BASE | {"protocol", "experiments", "policies", "dataplane", "controlplane", "upstream"},
    "reports": BASE | {"protocol", "stats", "events"},
    "assembly": BASE | {"protocol", "experiments", "dataplane", "config", "storage", "telemetry", "events", "upstream"},
    "ports": set(),
    "backends": {"ports"},
    "model_store": SHARED,
    "loadtest": SHARED | {"events", "ports"},
}
GATEWAY = {group for group in ALLOWED if group not in PACKAGES}
ALLOWED["app"] = GATEWAY - {"reports", "stats"}
ALLOWED["cli"] = GATEWAY | {"app", "backends", "model_store", "loadtest"}
SINGLE = {
    "gateway": "base",
    "gateway.errors": "base",
    "gateway.clock": "base",
    "gateway.config_units": "base",
    "gateway.telemetry.events": "events",
    "gateway.telemetry.capture_format": "events",
    "gateway.dataplane": "dataplane",
    "gateway.controlplane": "controlplane",
    "gateway.storage": "storage",
    "gateway.listeners": "storage",
    "gateway.preflight": "assembly",
    "gateway.routing": "assembly",
    "gateway.capturing": "assembly",
    "gateway.app": "app",
    "gateway.process": "app",
    "gateway.__main__": "cli",
    "backends.free_ports": "ports",
    **{f"gateway.upstream.{name}": "policies" for name in ("outlier", "admission", "retry", "deadline")},
}
FAMILIES = {"gateway.config": "config", "gateway.cli": "cli"}  # config, config_schema, ...
HEAVY = (
    "torch",
    "tensorflow",
    "pyarrow",
    "duckdb",
    "scipy",
    "matplotlib",
    "locust",
    "backends",
    "model_store",
    "loadtest",
)


@dataclass(frozen=True)
class Module:
    name: str
    path: str
    tree: ast.Module
    lines: int


def modules(root: Path = ROOT) -> list[Module]:
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    found = []
    for path in paths:
        relative = path.relative_to(root)
        if "artifacts" in relative.parts:
            continue
        text = path.read_text("utf-8")
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(name, str(relative), ast.parse(text), text.count("\n")))
    return found


@functools.cache
def this_tree() -> list[Module]:
    """The repository's own modules, read once."""
    return modules()


def group_of(name: str) -> str | None:
    """The group of a module's name, None for somebody else's package."""
    if name in SINGLE:
        return SINGLE[name]
    top, _, rest = name.partition(".")
    if top != "gateway":
        return top if top in PACKAGES else None
    for prefix, group in FAMILIES.items():
        if name == prefix or name.startswith(prefix + "_"):
            return group
    return rest.partition(".")[0]


def imports(module: Module, *, at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Names a module imports (with the names taken from packages), each with its line; at_import leaves out lazy ones."""
    lazy = {id(node) for function in ast.walk(module.tree) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)} if at_import else set()  # fmt: skip
    if at_import:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                lazy |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(module.tree):
        if id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name if module.path.endswith("__init__.py") else module.name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}".rstrip(".")
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def resolve(name: str, known: set[str]) -> str | None:
    """The module of this tree that an imported name belongs to."""
    while name:
        if name in known:
            return name
        name = name.rpartition(".")[0]
    return None


def wrong_direction(tree: list[Module]) -> list[str]:
    known = {module.name for module in tree}
    found = []
    for module in tree:
        mine = group_of(module.name)
        if mine not in ALLOWED:
            found.append(f"{module.path}: belongs to no layer; give {mine!r} a place in tests/architecture")
            continue
        for name, line in imports(module):
            target = resolve(name, known)
            theirs = group_of(target) if target else None
            if theirs is not None and theirs != mine and theirs not in ALLOWED[mine] and target not in ("gateway",):
                found.append(f"{module.path}:{line}: {mine} must not import {target} ({theirs})")
    return found


def cycles(tree: list[Module]) -> list[str]:
    known = {module.name for module in tree}
    graph = {
        module.name: {target for name, _ in imports(module, at_import=True) if (target := resolve(name, known))}
        - {module.name}
        for module in tree
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def too_big(tree: list[Module]) -> list[str]:
    found = [f"{m.path}: {m.lines} lines, the limit is {MODULE_LINES}" for m in tree if m.lines > MODULE_LINES]
    for module in tree:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                found.append(
                    f"{module.path}:{node.lineno}: {node.name} has {lines} lines, the limit is {FUNCTION_LINES}"
                )
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in given if argument.arg not in ("self", "cls")])
            if count > PARAMETERS:
                found.append(
                    f"{module.path}:{node.lineno}: {node.name} has {count} parameters, the limit is {PARAMETERS}"
                )
    return found


def without_rule(tree: list[Module]) -> list[str]:
    """Modules that do not open with what lives there."""
    return [f"{m.path}: opens with no docstring" for m in tree if m.tree.body and ast.get_docstring(m.tree) is None]


_ACTS = ("open", "print", "os.environ", "os.getenv", "os.mkdir", "os.makedirs", "os.getcwd", "sys.argv", "Path.cwd")
_ACTS_IN = ("socket", "subprocess", "threading", "asyncio", "random", "time", "requests", "urllib")
_SCRIPTS = ("loadtest/locustfile.py",)  # Locust runs it by importing it: that is its main
_PURE_CALLS = ("threading.local", "random.Random")
_READS = (
    "read_text",
    "read_bytes",
    "mkdir",
    "write_text",
    "write_bytes",
    "connect",
    "start",
    "basicConfig",
    "configure",
)


def import_effects(tree: list[Module]) -> list[str]:
    """Statements that act when a module is imported."""
    found = []
    for module in tree:
        for statement in _executed(module.tree.body if module.path not in _SCRIPTS else []):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call | ast.Await):
                found.append(f"{module.path}:{statement.lineno}: {ast.unparse(statement.value)[:60]} runs at import")
                continue
            for node in _now(statement):
                name = ast.unparse(node.func) if isinstance(node, ast.Call) else ast.unparse(node)
                acts = name in _ACTS if not isinstance(node, ast.Call) else (
                    name in _ACTS or name.partition(".")[0] in _ACTS_IN or name.rpartition(".")[2] in _READS
                )  # fmt: skip
                if acts and name not in _PURE_CALLS:
                    found.append(f"{module.path}:{node.lineno}: {name} is used at import")
    return found


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, without the main guard."""
    for statement in body:
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            continue
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _executed(getattr(statement, part, []))
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement


def _now(statement: ast.stmt) -> Iterator[ast.Call | ast.Attribute]:
    """Calls and attributes of a statement that are evaluated at import (not inside a lambda)."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call | ast.Attribute):
            yield node
        waiting.extend(ast.iter_child_nodes(node))


_MUTATORS = {
    "append",
    "add",
    "update",
    "pop",
    "clear",
    "extend",
    "setdefault",
    "insert",
    "remove",
    "discard",
    "popitem",
}


def module_state(tree: list[Module]) -> list[str]:
    """Functions that change what their module holds."""
    found: list[str] = []
    for module in tree:
        names = {
            target.id
            for statement in module.tree.body
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name)
        }
        for function in ast.walk(module.tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            local = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
            local |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            for node in (inner for inner in ast.walk(function) if isinstance(inner, ast.expr | ast.Global)):
                changed = ""
                if isinstance(node, ast.Global):
                    changed = ", ".join(node.names)
                elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                    changed = ast.unparse(node.value)
                elif (
                    isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS
                ):
                    changed = ast.unparse(node.func.value)
                if isinstance(node, ast.Global) or (changed in names and changed not in local):
                    found.append(f"{module.path}:{node.lineno}: {function.name} changes the module's {changed}")
    return found


RULES: dict[str, Callable[[list[Module]], list[str]]] = {
    "imports go one way": wrong_direction,
    "no import cycles": cycles,
    "sizes": too_big,
    "a module opens with its rule": without_rule,
    "nothing happens at import": import_effects,
    "no mutable module state": module_state,
}


@pytest.mark.parametrize("rule", list(RULES.values()), ids=list(RULES))
def test_the_tree_keeps_the_rule(rule: Callable[[list[Module]], list[str]]) -> None:
    offences = rule(this_tree())
    assert not offences, "\n" + "\n".join(offences)


BROKEN = {
    "sibling": ("gateway/stats/a.py", '"""x"""\nimport gateway.protocol.tensors\n', wrong_direction),
    "plane to server": ("gateway/dataplane.py", '"""x"""\nfrom gateway.servers import http\n', wrong_direction),
    "stats in the plane": ("gateway/dataplane.py", '"""x"""\nfrom gateway.stats import moments\n', wrong_direction),
    "backends": ("backends/a.py", '"""x"""\ndef f():\n    import gateway.errors\n', wrong_direction),
    "gateway to backends": ("gateway/app.py", '"""x"""\nfrom backends import launch\n', wrong_direction),
    "unknown place": ("gateway/misc/a.py", '"""x"""\n', wrong_direction),
    "cycle": ("gateway/stats/b.py", '"""x"""\nfrom gateway.stats import c\n', cycles),
    "long module": ("gateway/stats/a.py", '"""x"""\n' + "\n" * 401, too_big),
    "long function": ("gateway/stats/a.py", "def f():\n" + "    pass\n" * 60, too_big),
    "many parameters": ("gateway/stats/a.py", "def f(a, b, c, d, e, g, h, i, *, j): ...\n", too_big),
    "no docstring": ("gateway/stats/a.py", "x = 1\n", without_rule),
    "call at import": ("gateway/stats/a.py", "print(1)\n", import_effects),
    "file at import": ("gateway/stats/a.py", "from pathlib import Path\nX = Path('a').read_text()\n", import_effects),
    "environment": ("gateway/stats/a.py", "import os\nX = os.environ['A']\n", import_effects),
    "random at import": ("gateway/stats/a.py", "import random\nX = random.random()\n", import_effects),
    "global": ("gateway/stats/a.py", "X = 0\ndef f():\n    global X\n    X = 1\n", module_state),
    "cache": ("gateway/stats/a.py", "X = {}\ndef f(a):\n    X[a] = 1\n", module_state),
    "list": ("gateway/stats/a.py", "X = []\ndef f(a):\n    X.append(a)\n", module_state),
}


@pytest.mark.parametrize(("path", "text", "rule"), list(BROKEN.values()), ids=list(BROKEN))
def test_the_rule_sees_what_breaks_it(
    tmp_path: Path, path: str, text: str, rule: Callable[[list[Module]], list[str]]
) -> None:
    others = {
        "gateway/protocol/tensors.py": '"""x"""\n',
        "gateway/servers/http.py": '"""x"""\n',
        "gateway/stats/moments.py": '"""x"""\n',
        "gateway/stats/c.py": '"""x"""\nfrom gateway.stats import b\n',
        "gateway/errors.py": '"""x"""\n',
        "backends/launch.py": '"""x"""\n',
    }
    if path != "gateway/stats/b.py":
        others["gateway/stats/b.py"] = '"""x"""\n'
    clean = tmp_path / "clean"
    broken = tmp_path / "broken"
    for root, files in ((clean, others if rule is not cycles else {}), (broken, {**others, path: text})):
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
    assert rule(modules(clean)) == []
    assert len(rule(modules(broken))) == 1


def test_the_gateway_process_imports_nothing_heavy_and_starts_nothing() -> None:
    program = f"""
import sys, threading, os
before = set(os.listdir("/proc/self/fd"))
import gateway.process
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
assert threading.active_count() == 1, threading.enumerate()
after = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in set(os.listdir("/proc/self/fd")) - before
         if os.path.exists(f"/proc/self/fd/{{fd}}")]
assert not [link for link in after if "socket" in link], after
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
