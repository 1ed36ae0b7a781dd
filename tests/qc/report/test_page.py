"""The page: whole, bounded, and honest about what is missing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode, OutputError
from lesionsynth.qc.realism.compare import compare
from lesionsynth.qc.report.page import write_report
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.pool import Engine
from lesionsynth.run.prepare import read_prepared
from tests.qc.report.conftest import EVIL, made
from tests.test_invariants import Silent

FEW = ["realism.min_lesions=4", "realism.lesions=20"]
VOID = {"meta", "img", "input", "link", "br", "hr"}


class Page(HTMLParser):
    """Tags, texts and attributes of a page; fails where tags are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_a_run_writes_it_and_an_audit_has_nothing_against_it(finished: Path) -> None:
    assert (finished / "report.html").is_file()
    result = CliRunner().invoke(app, ["audit", str(finished)])
    assert result.exit_code == 0, result.output


def test_holds_everything_it_needs(finished: Path) -> None:
    page = Page(finished / "report.html")
    addresses = [
        a.get(k) for _, a in page.tags for k in ("src", "href", "srcset", "data", "poster") if a.get(k)
    ]
    outside = [a for a in addresses if a and not a.startswith(("data:image/png;base64,", "#"))]
    assert all(a.startswith(("https://doi.org/", "https://arxiv.org/")) for a in outside)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|\beval\b", "".join(page.texts))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert str(policy).startswith("default-src 'none'")
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")} <= set(ids)


def test_tells_the_numbers(finished: Path) -> None:
    text = Page(finished / "report.html").text
    assert "Synthetic cases 8 of 8 planned" in text
    assert "Cases of the input 4 4 subjects" in text
    assert "8 of 8 synthetic cases: first those that stand out" in text
    assert "No case has failed." in text
    for record in map(json.loads, (p.read_text() for p in (finished / "records").glob("*.json"))):
        load = record["load_ml"]
        assert f"{load['before']:.2f} → {load['after']:.2f} mL (target {load['target']:.2f})" in text
    assert "LesionMix [1]" in text
    assert "@inproceedings{basaran2023," in text
    assert "surplus: keep" in text


def test_every_picture_says_what_it_is(finished: Path) -> None:
    page = Page(finished / "report.html")
    alts = [image["alt"] for image in page.all("img")]
    assert None not in alts
    described = [alt for alt in alts if alt]
    assert any("__syn000, FLAIR, coronal, through a lesion that was added" in str(alt) for alt in described)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_the_number_of_cases_in_pictures_is_bounded(finished: Path, tmp_path: Path) -> None:
    sizes = {}
    for count in (0, 2, 5):
        path = write_report(finished, tmp_path / f"{count}.html", count)
        page = Page(path)
        assert len(page.all("article")) == count
        assert f"{count} of 8 synthetic cases" in page.text
        sizes[count] = path.stat().st_size
    assert sizes[0] < 200_000
    assert sizes[5] < sizes[2] + 3 * 120_000


def test_is_the_same_each_time(finished: Path, tmp_path: Path) -> None:
    one, other = (write_report(finished, tmp_path / f"{k}.html").read_bytes() for k in (1, 2))
    assert one == other


def test_what_realism_has_found_is_shown(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "realism.json").write_text('{"real": 1}')
    assert "realism.json is not as `lesionsynth realism` writes it." in Page(write_report(copy)).text
    found = compare(read_prepared(finished).space.cohort.root, copy, None, Engine(), Silent(), FEW)
    (copy / "realism.json").write_text(json.dumps(found.as_json()))
    text = Page(write_report(copy)).text
    area = found.lesions.by_donor
    assert area.value is not None
    assert f"added lesions, by donor {area.value:.2f} {area.low:.2f} to {area.high:.2f}" in text
    row = next(row for row in found.features if row.feature == "sphericity")
    assert f"sphericity {row.real:.2f} {row.synthetic:.2f} {row.ks:.2f}" in text
    assert "Realism" not in Page(finished / "report.html").text


def test_names_are_no_code(evil: Path) -> None:
    page = Page(evil / "report.html")
    assert EVIL in page.text
    assert all(str(image["src"]).startswith("data:image/png") for image in page.all("img"))
    assert len(page.all("script")) == 1


def test_an_output_in_the_making_has_one_too(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root, output = make_nnunet(4), tmp_path / "out"
    recipe = load_recipe("lesionmix", ["output.copies=2"])
    prepared = session.plan(recipe, root, output, Silent())
    text = Page(write_report(output)).text
    assert "Synthetic cases 0 of 8 planned" in text
    assert "Not made yet 8" in text
    assert "No synthetic case is there yet." in text
    assert prepared.jobs
    session.run_shard(recipe, root, output, session.Shard(1, 4), Silent())
    text = Page(write_report(output)).text
    assert "Synthetic cases 2 of 8 planned" in text
    assert "Not made yet 6" in text


def test_failures_and_shortfalls_are_told(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root, output = make_nnunet(3), tmp_path / "out"
    arguments = ["run", "lesionmix", "-i", str(root), "-o", str(output), "-n", "1", "-q"]
    arguments += [
        "--set",
        "steps.add.load=500",
        "--set",
        "steps.add.tries=2",
        "--set",
        "steps.add.surplus=keep",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    text = Page(output / "report.html").text
    assert "Targets missed 3 of 3" in text
    assert "3 case(s) missed the target" in text
    (output / "records/case2__syn000.json").unlink()
    (output / "failures").mkdir(exist_ok=True)
    note = {"case": "case2__syn000", "stage": "edit", "error": "no room <here>", "kind": "NoRoomError"}
    (output / "failures/case2__syn000.json").write_text(json.dumps(note))
    text = Page(write_report(output)).text
    assert "Failed 1" in text
    assert "case2__syn000 edit no room <here>" in text
    # A note that no run writes is none: the case is missing, and nothing ends with a traceback.
    for broken in ({**note, "case": []}, {"case": "case2__syn000"}, {**note, "error": None}):
        (output / "failures/case2__syn000.json").write_text(json.dumps(broken))
        text = Page(write_report(output)).text
        assert "Failed 0" in text
        assert "Not made yet 1" in text
        result = CliRunner().invoke(app, ["status", str(output), "--json"])
        assert result.exit_code == 0
        status = json.loads(result.stdout)
        assert (status["failed"], status["missing"]) == ([], ["case2__syn000"])


def test_hosts_that_are_gone_cost_their_pictures_alone(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make_nnunet(3)
    output = made(root, tmp_path / "out", "-n", "1", "--set", "output.originals=omit")
    assert len(Page(output / "report.html").all("figure")) > 20
    shutil.rmtree(root)
    page = Page(write_report(output))
    assert page.text.count("No pictures: ") == 3
    assert "imagesTr/case1_0000.nii.gz: cannot be read" in page.text
    assert "Load of a case" in page.text


def test_hosts_are_found_where_the_input_has_moved(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make_nnunet(3)
    output = made(root, tmp_path / "out", "-n", "1", "--set", "output.originals=omit")
    before = (output / "report.html").read_bytes()
    root.rename(tmp_path / "moved")
    result = CliRunner().invoke(app, ["report", str(output), "--input", str(tmp_path / "moved")])
    assert result.exit_code == 0, result.stderr
    assert (output / "report.html").read_bytes() == before


@pytest.mark.parametrize("fault", ["other cases", "fewer channels", "other images"])
def test_another_input_is_no_host(make_nnunet, tmp_path: Path, fault: str) -> None:  # type: ignore[no-untyped-def]
    root = make_nnunet(3)
    output = made(root, tmp_path / "out", "-n", "1", "--set", "output.originals=omit")
    description = json.loads((root / "dataset.json").read_text())
    for path in [*root.glob("imagesTr/*"), *root.glob("labelsTr/*")]:
        if fault == "other cases":
            path.rename(path.with_name(path.name.replace("case", "other")))
        elif fault == "fewer channels" and "_0001" in path.name:
            path.unlink()
        elif fault == "other images" and "case1_0000" in path.name:
            shutil.copy(root / "imagesTr/case2_0000.nii.gz", path)
    if fault == "fewer channels":
        description["channel_names"] = {"0": "FLAIR"}
        (root / "dataset.json").write_text(json.dumps(description))
    result = CliRunner().invoke(app, ["report", str(output), "--input", str(root)])
    assert result.exit_code == 0, result.stderr
    page = Page(output / "report.html")
    said = "its files are not those" if fault == "other images" else "is not in the input, or with other"
    assert f"case case1: {root}: {said}" in page.text
    assert page.text.count("No pictures: ") == (1 if fault == "other images" else 3)


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_map_that_cannot_be_read_is_named(make_nnunet, tmp_path: Path, fault: str) -> None:  # type: ignore[no-untyped-def]
    output = made(make_nnunet(3), tmp_path / "out", "-n", "1")
    block = json.loads((output / "plan.jsonl").read_text().splitlines()[0])["block"]
    path = output / "likelihood" / f"{block}.json"
    if fault == "missing":
        path.unlink()
    else:
        path.write_text("{")
    assert f"No picture: likelihood/{block}.json" in Page(write_report(output)).text


@pytest.mark.parametrize("name", ["lesionmix", "carve_mix", "copy_paste"])
def test_maps_are_shown_where_places_are_drawn_from_them(make_nnunet, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "out"
    result = CliRunner().invoke(app, ["run", name, "-i", str(make_nnunet(3)), "-o", str(output), "-n", "1"])
    assert result.exit_code in (0, ExitCode.SOME_FAILED)
    shown = "Where lesions are likely" in Page(output / "report.html").text
    assert shown == (name == "lesionmix")


def test_a_lesion_put_where_one_was_removed_is_shown_as_added(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """All lesions of the host are removed, and new ones may lie over their places."""
    output = made(make_nnunet(4), tmp_path / "out", "-n", "2", "--set", "steps.add.replace=1")
    records = [json.loads(path.read_text()) for path in (output / "records").glob("*.json")]
    assert all(record["lesions"]["removed"] == record["lesions"]["before"] for record in records)
    html = (output / "report.html").read_text()
    kept = re.findall(r'<path class="kept" d="([^"]*)"', html)
    assert len(kept) > 20
    assert set(kept) == {""}
    largest = {
        round(max(d["volume_mm3"] for d in record["steps"][0]["draws"] if d["edit"] == "insert"))
        for record in records
    }
    shown = {int(text) for text in re.findall(r"largest lesion that was added, (\d+) mm", html)}
    assert shown
    assert shown <= largest


@pytest.mark.parametrize("change", ["lesions", "load_ml", "steps", "measures"])
def test_a_record_that_was_changed_is_named(make_nnunet, tmp_path: Path, change: str) -> None:  # type: ignore[no-untyped-def]
    output = made(make_nnunet(3), tmp_path / "out", "-n", "1")
    path = output / "records" / "case2__syn000.json"
    record = json.loads(path.read_text())
    if change == "measures":
        record["steps"][0]["draws"][0] |= {"edit": "insert", "measures": {"lead_channel": 9}, "volume_mm3": 1}
    else:
        record[change] = "x"
    path.write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["report", str(output)])
    assert result.exit_code == ExitCode.INPUT
    assert "case case2__syn000: " in result.stderr
    assert "records/case2__syn000.json: the record is not as a run writes it" in result.stderr


def test_a_report_that_cannot_be_written_fails_no_run(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root, output = make_nnunet(3), tmp_path / "out"
    session.plan(load_recipe("lesionmix", ["output.copies=1"]), root, output, Silent())
    (output / "report.html").mkdir()
    result = CliRunner().invoke(
        app, ["run", "lesionmix", "-i", str(root), "-o", str(output), "-n", "1", "-q"]
    )
    assert result.exit_code == 0
    assert "the report was not written" in result.stderr
    assert "report.html: cannot be written" in result.stderr


class TestCommand:
    def test_says_where_it_is(self, finished: Path, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "seen.html"
        result = CliRunner().invoke(app, ["report", str(finished), "-o", str(target), "--cases", "1"])
        assert result.exit_code == 0
        assert result.stdout == f"{target}: {target.stat().st_size / 1e6:.1f} MB\n"

    def test_a_folder_that_is_no_output(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["report", str(tmp_path)])
        assert result.exit_code == ExitCode.OUTPUT
        assert "holds no finished plan" in result.stderr
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(OutputError):
            write_report(tmp_path)
