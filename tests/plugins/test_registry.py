from __future__ import annotations

import subprocess
import sys
from typing import Literal, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError

from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import (
    BlendSpec,
    FillSpec,
    LayoutSpec,
    OperationSpec,
    SourceSpec,
)
from lesionsynth.spec import Spec, field_docs, summary_of

BASES = {
    "operations": OperationSpec,
    "sources": SourceSpec,
    "blends": BlendSpec,
    "fills": FillSpec,
    "layouts": LayoutSpec,
}
EVERY = [
    pytest.param(group, kind, model, id=f"{group}-{kind}")
    for group in registry.GROUPS
    for kind, model in registry.kinds(group).items()
]


def test_every_group_has_a_contract_and_kinds():
    assert tuple(BASES) == registry.GROUPS
    for group in registry.GROUPS:
        assert registry.kinds(group)


@pytest.mark.parametrize(("group", "kind", "model"), EVERY)
def test_a_kind_keeps_its_contract(group, kind, model):
    assert issubclass(model, BASES[group])
    assert not getattr(model, "__abstractmethods__", None)
    annotation = model.model_fields["kind"].annotation
    assert get_origin(annotation) is Literal
    assert get_args(annotation) == (kind,)
    assert model.model_fields["kind"].default == kind
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


@pytest.mark.parametrize(("group", "kind", "model"), EVERY)
def test_a_kind_and_its_fields_are_documented(group, kind, model):
    assert model.__doc__ != BASES[group].__doc__
    assert len(summary_of(model)) > 15
    for name, field in model.model_fields.items():
        if name != "kind" and not (isinstance(field.annotation, type) and issubclass(field.annotation, Spec)):
            assert field_docs(model).get(name), f"{kind}.{name} says nothing of itself"


@pytest.mark.parametrize(("group", "kind", "model"), EVERY)
def test_a_kind_is_frozen_and_refuses_unknown_keys(group, kind, model):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate({"kind": kind, "no_such_key": 1})
    instance = model.model_construct()
    with pytest.raises(ValidationError, match="frozen"):
        instance.kind = "other"
    assert instance == model.model_construct()


def test_kinds_are_sorted_and_told_apart_by_their_name():
    blends = registry.kinds("blends")
    assert list(blends) == sorted(blends)
    adapter = TypeAdapter(registry.union("blends"))
    assert isinstance(adapter.validate_python({"kind": "rim", "weight": 0.75}), blends["rim"])
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        adapter.validate_python({"kind": "glue"})
    assert registry.create("blends", "rim").weight == pytest.approx(2 / 3)


def test_a_group_of_one_kind_has_that_kind_as_its_type(monkeypatch):
    kinds = registry.kinds("sources")
    monkeypatch.setitem(registry._kinds, "sources", {"lesion_bank": kinds["lesion_bank"]})
    assert registry.union("sources") is kinds["lesion_bank"]


def test_a_kind_can_be_registered_once():
    class Hard(Spec):
        """A stranger of the same name as the built-in one."""

        kind: Literal["hard"] = "hard"

    before = registry.kinds("blends")
    with pytest.raises(ValueError, match="'hard' is registered twice"):
        registry.register("blends")(Hard)
    assert registry.register("blends")(before["hard"]) is before["hard"]
    assert registry.kinds("blends") == before


@pytest.mark.parametrize("annotation", [str, Literal["a", "b"]])
def test_a_kind_has_one_literal_name(annotation):
    namespace = {"__annotations__": {"kind": annotation}, "__module__": __name__}
    model = type("Nameless", (Spec,), namespace)
    with pytest.raises(TypeError, match="Literal of one name"):
        registry.register("blends")(model)


PLUGIN = '''
from typing import Literal
from lesionsynth.blends.hard import Hard
from lesionsynth.plugins.registry import register


@register("blends")
class Soft(Hard):
    """A blend that another package brings."""

    kind: Literal["soft_from_outside"] = "soft_from_outside"
'''


def run_with_plugin(folder, source):
    """Kinds of blends in a fresh process that has a package with an entry point beside ours."""
    (folder / "outside_blends.py").write_text(source)
    info = folder / "outside_blends-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-blends\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lesionsynth.blends]\nsoft = outside_blends\n")
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from lesionsynth.errors import LesionsynthError\n"
        "from lesionsynth.plugins import registry\n"
        "try:\n    print(*registry.kinds('blends'))\n"
        "except LesionsynthError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_another_package_adds_a_kind_by_its_entry_point(tmp_path):
    found = run_with_plugin(tmp_path, PLUGIN).split()
    assert found == sorted([*registry.kinds("blends"), "soft_from_outside"])


def test_a_plugin_that_cannot_be_loaded_is_one_clear_error(tmp_path):
    said = run_with_plugin(tmp_path, "import no_such_package_at_all")
    assert said.startswith("the plug-in outside_blends (blends) cannot be loaded: No module named")


def test_a_plugin_cannot_take_the_name_of_a_builtin_kind(tmp_path):
    said = run_with_plugin(
        tmp_path, PLUGIN.replace("class Soft(Hard)", "class Hard(Hard)").replace("soft_from_outside", "hard")
    )
    assert "'hard' is registered twice" in said
