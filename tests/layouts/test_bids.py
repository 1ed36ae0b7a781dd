"""BIDS trees as they are published, and as they are broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.errors import InputError
from lesionsynth.layouts.bids import Bids
from lesionsynth.layouts.bids_names import channel_names, copied, parse, stem_of
from tests.layouts.trees import touch

LAYOUT = Bids()
SUBJECTS = ("01", "02", "03")
MASK = "derivatives/manual/sub-{0}/anat/sub-{0}_label-lesion_mask.nii.gz"


def tree(root: Path, *patterns: str, subjects: tuple[str, ...] = SUBJECTS) -> Path:
    """Files of every subject; {0} is its label."""
    touch(root, [pattern.format(subject) for subject in subjects for pattern in patterns])
    return root


def plain(root: Path) -> Path:
    """FLAIR and T1w, masks in derivatives."""
    return tree(root, "sub-{0}/anat/sub-{0}_FLAIR.nii.gz", "sub-{0}/anat/sub-{0}_T1w.nii.gz", MASK)


def table(root: Path, name: str, *rows: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(("index\tname", *rows)) + "\n")


def faults(root: Path, layout: Bids = LAYOUT) -> list[tuple[str, str | None, str]]:
    return [(f.level, f.case, f.fault) for f in layout.scan(root).findings]


def relative(cohort: Cohort, case: str) -> tuple[list[str], str]:
    files = cohort.case(case)
    images = [path.relative_to(cohort.root).as_posix() for path in files.images]
    return images, files.label.relative_to(cohort.root).as_posix()


class TestShapes:
    def test_raw_images_with_masks_in_derivatives(self, tmp_path: Path) -> None:
        cohort = LAYOUT.scan(plain(tmp_path)).cohort
        assert Bids.recognises(tmp_path)
        assert faults(tmp_path) == []
        assert cohort.channels == ("FLAIR", "T1w")
        assert [(c.case, c.subject) for c in cohort.cases] == [(f"sub-{s}", f"sub-{s}") for s in SUBJECTS]
        assert relative(cohort, "sub-02") == (
            ["sub-02/anat/sub-02_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"],
            "derivatives/manual/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
        )
        assert dict(cohort.labels.values) == {"background": 0, "lesion": 1}

    def test_atlas_2(self, tmp_path: Path) -> None:
        stem = "R0{0}/sub-r0{0}s001/ses-1/anat/sub-r0{0}s001_ses-1_space-MNI152NLin2009aSym"
        tree(tmp_path, f"{stem}_T1w.nii.gz", f"{stem}_label-L_desc-T1lesion_mask.nii.gz")
        cohort = LAYOUT.scan(tmp_path).cohort
        assert Bids.recognises(tmp_path)
        assert faults(tmp_path) == []
        assert cohort.channels == ("T1w",)
        files = cohort.case("sub-r002s001_ses-1")
        assert files.subject == "sub-r002s001"
        name = "sub-r002s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesionSynth003_mask.nii.gz"
        path = LAYOUT.label_path(files, f"{files.case}__syn003", cohort)
        assert path == Path("sub-r002s001/ses-1/anat") / name

    @pytest.mark.parametrize("rawdata", ["", "rawdata/"])
    @pytest.mark.parametrize("flair", ["FLAIR", "flair"])
    def test_isles_2022(self, tmp_path: Path, rawdata: str, flair: str) -> None:
        session = "sub-strokecase00{0}/ses-0001"
        stem = "sub-strokecase00{0}_ses-0001"
        tree(
            tmp_path,
            f"{rawdata}{session}/dwi/{stem}_dwi.nii.gz",
            f"{rawdata}{session}/dwi/{stem}_adc.nii.gz",
            f"{rawdata}{session}/anat/{stem}_{flair}.nii.gz",
            f"derivatives/{session}/{stem}_msk.nii.gz",
        )
        cohort = LAYOUT.scan(tmp_path).cohort
        assert Bids.recognises(tmp_path)
        assert faults(tmp_path) == []
        assert cohort.channels == ("adc", "dwi", flair)
        files = cohort.case("sub-strokecase0001_ses-0001")
        assert files.subject == "sub-strokecase0001"
        written = LAYOUT.label_path(files, files.case, cohort)
        assert written == Path("sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_msk.nii.gz")

    def test_lesion_roi_beside_the_image(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/anat/sub-{0}_label-lesion_roi.nii.gz")
        tree(tmp_path, "derivatives/fmriprep/sub-{0}/anat/sub-{0}_desc-brain_mask.nii.gz")
        tree(tmp_path, "derivatives/fmriprep/sub-{0}/anat/sub-{0}_dseg.nii.gz")
        tree(tmp_path, "derivatives/fmriprep/sub-{0}/anat/sub-{0}_desc-preproc_T1w.nii.gz")
        cohort = LAYOUT.scan(tmp_path).cohort
        assert faults(tmp_path) == []
        assert relative(cohort, "sub-01") == (
            ["sub-01/anat/sub-01_T1w.nii.gz"],
            "sub-01/anat/sub-01_label-lesion_roi.nii.gz",
        )

    def test_sessions_are_cases_of_one_subject(self, tmp_path: Path) -> None:
        for session in ("a", "b"):
            stem = f"sub-{{0}}/ses-{session}/anat/sub-{{0}}_ses-{session}"
            tree(tmp_path, f"{stem}_FLAIR.nii", f"{stem}_label-lesion_mask.nii")
        cohort = LAYOUT.scan(tmp_path).cohort
        assert [(c.case, c.subject) for c in cohort.cases][:2] == [
            ("sub-01_ses-a", "sub-01"),
            ("sub-01_ses-b", "sub-01"),
        ]
        assert cohort.file_ending == ".nii"

    def test_a_session_that_only_the_folder_names(self, tmp_path: Path) -> None:
        for session in ("a", "b"):
            stem = f"sub-{{0}}/ses-{session}/anat/sub-{{0}}"
            tree(tmp_path, f"{stem}_T1w.nii", f"{stem}_label-lesion_mask.nii")
        cohort = LAYOUT.scan(tmp_path).cohort
        assert faults(tmp_path) == []
        files = cohort.case("sub-01_ses-b")
        path = LAYOUT.image_path(files, "sub-01_ses-b__syn001", 0, cohort)
        assert path == Path("sub-01/ses-b/anat/sub-01_desc-synth001_T1w.nii")

    def test_images_in_the_space_of_the_mask(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub-{0}/anat/sub-{0}_T1w.nii.gz")
        stem = "derivatives/prep/sub-{0}/anat/sub-{0}_space-MNI152NLin6Asym"
        tree(tmp_path, f"{stem}_T1w.nii.gz", f"{stem}_label-lesion_mask.nii.gz")
        images, _ = relative(LAYOUT.scan(tmp_path).cohort, "sub-01")
        assert images == ["derivatives/prep/sub-01/anat/sub-01_space-MNI152NLin6Asym_T1w.nii.gz"]

    @pytest.mark.parametrize("gradients", ["sub-{0}/dwi/sub-{0}_dwi.bval", "dwi.bval"])
    def test_diffusion_series_and_the_like_are_no_channels(self, tmp_path: Path, gradients: str) -> None:
        tree(plain(tmp_path), "sub-{0}/dwi/sub-{0}_dwi.nii.gz", gradients, "sub-{0}/perf/sub-{0}_asl.nii.gz")
        assert faults(tmp_path) == []
        assert LAYOUT.scan(tmp_path).cohort.channels == ("FLAIR", "T1w")

    def test_what_is_no_image_of_a_case_is_passed_over(self, tmp_path: Path) -> None:
        plain(tmp_path)
        touch(
            tmp_path,
            [
                "sub-01/anat/._sub-01_T2w.nii.gz",
                "sub-01/anat/T1.nii.gz",
                "sub-01/anat/sub-01_T1w.json",
                "sub-01/func/sub-01_task-rest_bold.nii.gz",
                "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
                "derivatives/freesurfer/fsaverage/mri/T1.nii.gz",
                "sub-emptyroom/meg/sub-emptyroom_meg.fif",
            ],
        )
        assert faults(tmp_path) == []
        assert LAYOUT.scan(tmp_path).cohort.channels == ("FLAIR", "T1w")

    @pytest.mark.parametrize(
        "names",
        [
            ["dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"],
            ["sub-01/FLAIR.nii.gz", "sub-01/mask.nii.gz"],
            ["dataset_description.json"],
            ["sub-01/anat/sub-01_T1w.json"],
        ],
    )
    def test_other_trees_are_not_recognised(self, tmp_path: Path, names: list[str]) -> None:
        touch(tmp_path, names)
        assert not Bids.recognises(tmp_path)


class TestSelectors:
    def test_channels_have_the_names_and_the_order_of_the_recipe(self, tmp_path: Path) -> None:
        layout = Bids(channels={"t1": "T1w", "flair": "FLAIR"})
        assert layout.scan(plain(tmp_path)).cohort.channels == ("t1", "flair")

    def test_a_suffix_alone_means_the_file_that_has_no_more(self, tmp_path: Path) -> None:
        tree(plain(tmp_path), "sub-{0}/anat/sub-{0}_ce-gadolinium_T1w.nii.gz")
        layout = Bids(channels={"T1": "T1w", "T1c": "ce-gadolinium_T1w"})
        assert faults(tmp_path, layout) == []
        images, _ = relative(layout.scan(tmp_path).cohort, "sub-01")
        assert images == [f"sub-01/anat/sub-01_{name}.nii.gz" for name in ("T1w", "ce-gadolinium_T1w")]
        assert faults(tmp_path)[0] == (
            "error",
            "sub-01",
            "2 files could be the channel T1w: T1w, ce-gadolinium_T1w.",
        )

    def test_a_folder_says_which_of_two_trees(self, tmp_path: Path) -> None:
        tree(plain(tmp_path), MASK.replace("manual", "automatic"))
        assert faults(tmp_path)[0][2] == (
            "2 files could be the lesion mask: derivatives/automatic/label-lesion_mask, "
            "derivatives/manual/label-lesion_mask."
        )
        layout = Bids(mask="derivatives/manual/label-lesion_mask")
        assert faults(tmp_path, layout) == []
        assert "manual" in str(layout.scan(tmp_path).cohort.cases[0].label)

    def test_two_runs(self, tmp_path: Path) -> None:
        touch(plain(tmp_path), [f"sub-02/anat/sub-02_run-{run}_T1w.nii.gz" for run in (1, 2)])
        (tmp_path / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
        for layout in (LAYOUT, Bids(channels={"T1w": "T1w"})):
            (finding,) = layout.scan(tmp_path).findings
            assert (finding.case, finding.level) == ("sub-02", "error")
            assert "run-1_T1w, run-2_T1w" in finding.fault
            assert "input.layout.channels.T1w" in finding.cure
            assert [c.case for c in layout.scan(tmp_path).cohort.cases] == ["sub-01", "sub-03"]
        touch(tmp_path, [f"sub-0{s}/anat/sub-0{s}_run-1_T1w.nii.gz" for s in (1, 3)])
        assert faults(tmp_path, Bids(channels={"T1w": "run-1_T1w"})) == []

    def test_only_some_participants_and_sessions(self, tmp_path: Path) -> None:
        for session in ("1", "2"):
            stem = f"sub-{{0}}/ses-{session}/anat/sub-{{0}}_ses-{session}"
            tree(tmp_path, f"{stem}_FLAIR.nii.gz", f"{stem}_label-lesion_mask.nii.gz")
        layout = Bids(participants=["sub-01", "03"], sessions=["2"])
        found = [c.case for c in layout.scan(tmp_path).cohort.cases]
        assert found == ["sub-01_ses-2", "sub-03_ses-2"]

    def test_a_participant_who_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no images of the participant sub-09"):
            Bids(participants=["01", "sub-09"]).scan(plain(tmp_path))

    def test_two_channels_with_one_file_name(self, tmp_path: Path) -> None:
        tree(plain(tmp_path), "derivatives/prep/sub-{0}/anat/sub-{0}_T1w.nii.gz")
        layout = Bids(channels={"raw": "T1w", "prep": "derivatives/prep/T1w"})
        assert faults(tmp_path, layout)[0] == (
            "error",
            "sub-01",
            "the channel prep has the file name of another.",
        )

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "/abs/T1w",
            "../x/T1w",
            "sub-01_T1w",
            "ses-1_T1w",
            "acq_T1w",
            "acq-_T1w",
            "T1w.nii.gz",
            "a-ü_T1w",
        ],
    )
    def test_what_is_no_selector_is_refused(self, text: str) -> None:
        with pytest.raises(ValidationError, match="should"):
            Bids(mask=text)
        with pytest.raises(ValidationError, match="should"):
            Bids(channels={"a": text})


class TestFaults:
    def test_a_missing_channel(self, tmp_path: Path) -> None:
        (plain(tmp_path) / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
        assert faults(tmp_path) == [("error", "sub-02", "there is no file of the channel T1w.")]

    def test_a_channel_that_few_have_is_told_and_not_used(self, tmp_path: Path) -> None:
        touch(plain(tmp_path), ["sub-01/anat/sub-01_T2w.nii.gz"])
        ((level, case, fault),) = faults(tmp_path)
        assert (level, case) == ("warning", None)
        assert "T2w is there for 1 of 3 cases" in fault
        assert LAYOUT.scan(tmp_path).cohort.channels == ("FLAIR", "T1w")

    def test_a_missing_mask_tells_what_could_be_one(self, tmp_path: Path) -> None:
        (plain(tmp_path) / MASK.format("02")).unlink()
        touch(tmp_path, ["derivatives/manual/sub-02/anat/sub-02_desc-manual_mask.nii.gz"])
        (finding,) = LAYOUT.scan(tmp_path).findings
        assert (finding.level, finding.case, finding.fault) == ("error", "sub-02", "there is no lesion mask.")
        assert "desc-manual_mask" in finding.cure

    def test_a_mask_of_something_else_is_none_of_lesions(self, tmp_path: Path) -> None:
        """A control without lesion mask, beside a tool's brain masks: all its brain would be a lesion."""
        brain = "derivatives/bet/sub-{0}/anat/sub-{0}_mask.nii.gz"
        tree(plain(tmp_path), brain)
        assert faults(tmp_path) == []
        tree(
            tmp_path,
            "sub-{0}/anat/sub-{0}_FLAIR.nii.gz",
            "sub-{0}/anat/sub-{0}_T1w.nii.gz",
            brain,
            subjects=("09",),
        )
        assert faults(tmp_path) == [("error", "sub-09", "there is no lesion mask.")]
        assert [case.case for case in LAYOUT.scan(tmp_path).cohort.cases] == [f"sub-{s}" for s in SUBJECTS]

    def test_maps_of_probability_are_no_channels(self, tmp_path: Path) -> None:
        """They are the answer, or one of three of a tissue segmentation."""
        lesions = "derivatives/lst/sub-{0}/anat/sub-{0}_label-lesion_probseg.nii.gz"
        tissues = [
            f"derivatives/fmriprep/sub-{{0}}/anat/sub-{{0}}_label-{t}_probseg.nii.gz" for t in ("GM", "WM")
        ]
        cohort = LAYOUT.scan(tree(plain(tmp_path), lesions, *tissues)).cohort
        assert cohort.channels == ("FLAIR", "T1w")
        assert faults(tmp_path) == []

    def test_images_in_no_folder_of_a_datatype(self, tmp_path: Path) -> None:
        cohort = LAYOUT.scan(tree(tmp_path, "sub-{0}/sub-{0}_FLAIR.nii.gz", MASK)).cohort
        assert cohort.channels == ("FLAIR",)
        assert len(cohort.cases) == 3

    def test_masks_that_name_no_session_are_told(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub-{0}/ses-1/anat/sub-{0}_ses-1_FLAIR.nii.gz", MASK)
        with pytest.raises(
            InputError, match=r"no kind of image .* cases with a mask; there are none"
        ) as caught:
            LAYOUT.scan(tmp_path)
        assert "ses-" in caught.value.remedy

    def test_one_name_at_two_sites(self, tmp_path: Path) -> None:
        """The image of one and the mask of another, who have one number."""
        image, mask = (
            "{0}/sub-{1}/anat/sub-{1}_FLAIR.nii.gz",
            "{0}/sub-{1}/anat/sub-{1}_label-lesion_mask.nii.gz",
        )
        names = [image.format("A", k) for k in ("01", "02", "03")] + [
            mask.format("A", k) for k in ("01", "02")
        ]
        names += [image.format("B", "04"), mask.format("B", "03"), mask.format("B", "04")]
        touch(tmp_path, names)
        assert faults(tmp_path) == [
            ("error", "sub-03", "has files in A and in B, which hold whole cases."),
        ]

    def test_images_and_masks_may_lie_apart(self, tmp_path: Path) -> None:
        names = (
            "images/sub-{0}/anat/sub-{0}_FLAIR.nii.gz",
            "masks/sub-{0}/anat/sub-{0}_label-lesion_mask.nii.gz",
        )
        assert len(LAYOUT.scan(tree(tmp_path, *names)).cohort.cases) == 3
        assert faults(tmp_path) == []

    def test_an_image_of_another_contrast_is_told(self, tmp_path: Path) -> None:
        tree(plain(tmp_path), MASK, "sub-{0}/anat/sub-{0}_FLAIR.nii.gz", subjects=("07",))
        touch(tmp_path, ["sub-07/anat/sub-07_ce-gadolinium_T1w.nii.gz"])
        said = "the channel T1w is ce-gadolinium_T1w; of most cases it is T1w."
        assert faults(tmp_path) == [("warning", "sub-07", said)]
        chosen = Bids(channels={"FLAIR": "FLAIR", "T1w": "T1w"})
        assert faults(tmp_path, chosen) == []

    def test_no_mask_at_all(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/anat/sub-{0}_desc-manual_mask.nii.gz")
        with pytest.raises(InputError, match=r"no lesion mask was found; .*desc-manual_mask"):
            LAYOUT.scan(tmp_path)
        assert faults(tmp_path, Bids(mask="desc-manual_mask")) == []

    def test_a_session_without_anything_wanted_is_no_case(self, tmp_path: Path) -> None:
        touch(plain(tmp_path), ["sub-09/dwi/sub-09_dwi.nii.gz"])
        assert faults(tmp_path, Bids(channels={"FLAIR": "FLAIR"})) == []

    def test_a_file_in_the_folder_of_another_subject(self, tmp_path: Path) -> None:
        touch(plain(tmp_path), ["sub-01/anat/sub-04_FLAIR.nii.gz"])
        assert ("error", "sub-04") in [fault[:2] for fault in faults(tmp_path)]
        assert any("folder of another subject" in fault for _, _, fault in faults(tmp_path))

    def test_a_link_to_nowhere(self, tmp_path: Path) -> None:
        path = plain(tmp_path) / "sub-01/anat/sub-01_T1w.nii.gz"
        path.unlink()
        path.symlink_to(".git/annex/objects/gone")
        (finding,) = LAYOUT.scan(tmp_path).findings
        assert (finding.case, finding.fault) == (
            "sub-01",
            "the file of the channel T1w is a link to nowhere.",
        )
        assert "datalad get" in finding.cure

    @pytest.mark.parametrize("name", ["dataset_description.json", "T1w.json", "participants.json"])
    @pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
    def test_broken_descriptions_are_told_at_once(self, tmp_path: Path, name: str, content: str) -> None:
        (plain(tmp_path) / name).write_text(content)
        with pytest.raises(InputError) as caught:
            LAYOUT.scan(tmp_path)
        assert caught.value.file == str(tmp_path / name)

    @pytest.mark.parametrize("content", [b"", b"id\tage\n", b"\xff\xfe"])
    def test_a_broken_table_of_participants(self, tmp_path: Path, content: bytes) -> None:
        (plain(tmp_path) / "participants.tsv").write_bytes(content)
        with pytest.raises(InputError) as caught:
            LAYOUT.scan(tmp_path)
        assert caught.value.file == str(tmp_path / "participants.tsv")


class TestSegmentations:
    @staticmethod
    def dseg(root: Path) -> Path:
        return tree(root, "sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/anat/sub-{0}_desc-lesions_dseg.nii.gz")

    @pytest.mark.parametrize("name", ["dseg.tsv", "desc-lesions_dseg.tsv"])
    def test_one_table_for_all(self, tmp_path: Path, name: str) -> None:
        table(self.dseg(tmp_path), name, "1\tliver", "2\ttumour")
        labels = LAYOUT.scan(tmp_path).cohort.labels
        assert dict(labels.values) == {"background": 0, "liver": 1, "tumour": 2}
        assert labels.roles == {"background": "background", "liver": "organ", "tumour": "lesion"}

    def test_a_table_beside_each(self, tmp_path: Path) -> None:
        self.dseg(tmp_path)
        table(tmp_path, "dseg.tsv", "9\twrong")
        for s in SUBJECTS:
            table(tmp_path, f"sub-{s}/anat/sub-{s}_desc-lesions_dseg.tsv", "0\tbackground", "7\tlesion")
        assert dict(LAYOUT.scan(tmp_path).cohort.labels.values) == {"background": 0, "lesion": 7}

    def test_tables_that_differ(self, tmp_path: Path) -> None:
        self.dseg(tmp_path)
        for k, s in enumerate(SUBJECTS):
            table(tmp_path, f"sub-{s}/anat/sub-{s}_desc-lesions_dseg.tsv", f"{k + 1}\tlesion")
        with pytest.raises(InputError, match="names other labels than"):
            LAYOUT.scan(tmp_path)

    def test_a_table_of_another_segmentation_does_not_apply(self, tmp_path: Path) -> None:
        table(self.dseg(tmp_path), "desc-aseg_dseg.tsv", "1\tlesion")
        with pytest.raises(InputError, match=r"no table of its labels") as caught:
            LAYOUT.scan(tmp_path)
        assert "input.layout.labels" in str(caught.value)
        layout = Bids(labels={"background": 0, "plaque": 3})
        assert dict(layout.scan(tmp_path).cohort.labels.values) == {"background": 0, "plaque": 3}

    def test_masks_and_segmentations_are_not_mixed(self, tmp_path: Path) -> None:
        self.dseg(tmp_path)
        first = tmp_path / "sub-01/anat/sub-01_desc-lesions_dseg.nii.gz"
        first.rename(first.with_name("sub-01_desc-lesions_mask.nii.gz"))
        with pytest.raises(InputError, match="is a mask, those of other cases"):
            LAYOUT.scan(tmp_path)

    @pytest.mark.parametrize(
        "rows",
        [["x\tlesion"], ["1"], ["1\ta", "1\tb"], ["1\ta", "2\ta"], ["-1\ta"], ["65536\ta"], ["1.5\ta"]],
    )
    def test_a_broken_table(self, tmp_path: Path, rows: list[str]) -> None:
        table(self.dseg(tmp_path), "dseg.tsv", *rows)
        with pytest.raises(InputError) as caught:
            LAYOUT.scan(tmp_path)
        assert caught.value.file == str(tmp_path / "dseg.tsv")

    def test_a_table_without_its_columns(self, tmp_path: Path) -> None:
        (self.dseg(tmp_path) / "dseg.tsv").write_text("value\tlabel\n1\tx\n")
        with pytest.raises(InputError, match="columns index"):
            LAYOUT.scan(tmp_path)


class TestNames:
    LABEL = st.from_regex(r"[0-9A-Za-z]{1,5}", fullmatch=True)

    @given(LABEL, LABEL | st.just(""), LABEL | st.just(""), st.integers(0, 99999), st.booleans())
    def test_a_copy_is_known_by_its_name(
        self, subject: str, session: str, desc: str, number: int, plain: bool
    ) -> None:
        parts = [f"sub-{subject}", *([f"ses-{session}"] if session else [])]
        case = "_".join(parts)
        parts += [] if plain else ["acq-3d"]
        name = "_".join([*parts, *([f"desc-{desc}"] if desc else []), "T1w.nii.gz"])
        before = parse(name)
        assert before is not None
        if before.copy:  # a host that calls itself a copy is refused
            return
        after = parse(copied(name, f"{case}__syn{number:03d}", case))
        assert after is not None
        assert int(after.copy) == number
        assert replace(after, copy="") == before
        assert copied(name, case, case) == name

    @pytest.mark.parametrize(
        ("case", "subject", "stem"),
        [
            ("case_01", "case_01", ("case01", "")),
            ("sub-01_ses-2", "sub-01_ses-2", ("01", "2")),
            ("sub-01", "sub-01", ("01", "")),
            ("sub01", "sub01", ("01", "")),
            ("subject_A", "subject_A", ("A", "")),
            ("sub_", "sub_", ("sub", "")),
            ("s1_ses-02", "s1", ("s1", "02")),
            ("s1_tp2", "s1", ("s1", "tp2")),
            ("v3", "s2", ("s2", "v3")),
        ],
    )
    def test_stems_of_other_ids(self, case: str, subject: str, stem: tuple[str, str]) -> None:
        assert stem_of(case, subject) == stem

    @given(st.lists(st.text(max_size=6), min_size=1, max_size=5, unique=True))
    def test_channels_of_other_layouts_get_names_of_their_own(self, channels: list[str]) -> None:
        texts = [text for _, text in channel_names(tuple(channels))]
        assert len({text.casefold() for text in texts}) == len(channels)
        for text in texts:
            name = parse(f"sub-01_{text}.nii.gz")
            assert name is not None
            assert name.text == text

    def test_known_channels(self) -> None:
        names = channel_names(("FLAIR", "T1", "T1POST", "ADC", "CT", "acq-3d_T2w", "T1w"))
        assert names == [
            ("anat", "FLAIR"),
            ("anat", "T1w"),
            ("anat", "ce-gadolinium_T1w"),
            ("dwi", "ADC"),
            ("anat", "CT"),
            ("anat", "acq-3d_T2w"),
            ("anat", "acq-6_T1w"),
        ]


class TestDescription:
    @staticmethod
    def described(cohort: Cohort, copies: int = 1) -> dict[str, Any]:
        cases = [(f.case, f) for f in cohort.cases]
        cases += [(f"{f.case}__syn{k:03d}", f) for f in cohort.cases for k in range(copies)]
        return LAYOUT.description(cohort, sorted(cases, key=lambda c: c[0]))

    def test_says_what_made_it_and_of_what(self, tmp_path: Path) -> None:
        (plain(tmp_path) / "dataset_description.json").write_text(
            json.dumps(
                {
                    "Name": "MS",
                    "BIDSVersion": "1.4.0",
                    "License": "CC0",
                    "DatasetDOI": "doi:10.1/x",
                    "GeneratedBy": [{"Name": "converter"}],
                }
            )
        )
        value = json.loads(self.described(LAYOUT.scan(tmp_path).cohort)["dataset_description.json"])
        assert value["Name"] == "MS"
        assert value["DatasetType"] == "derivative"
        assert [made["Name"] for made in value["GeneratedBy"]] == ["lesionsynth", "converter"]
        assert value["SourceDatasets"] == [{"URL": tmp_path.as_uri(), "DOI": "doi:10.1/x"}]
        assert value["License"] == "CC0"

    def test_participants_of_the_output(self, tmp_path: Path) -> None:
        """A row with cells left out is one of that participant all the same."""
        rows = ["participant_id\tage\tsex", "sub-04\t9\tF", "sub-02\t7", "sub-01\t5\tM\t"]
        (plain(tmp_path) / "participants.tsv").write_text("\n".join(rows) + "\n")
        (tmp_path / "participants.json").write_text('{"age": {"Units": "year"}}')
        files = self.described(LAYOUT.scan(tmp_path).cohort)
        assert files["participants.tsv"].decode() == (
            "participant_id\tage\tsex\nsub-01\t5\tM\nsub-02\t7\tn/a\nsub-03\tn/a\tn/a\n"
        )
        assert json.loads(files["participants.json"]) == {"age": {"Units": "year"}}

    def test_sidecars_go_with_their_images(self, tmp_path: Path) -> None:
        plain(tmp_path)
        (tmp_path / "FLAIR.json").write_text('{"SkullStripped": true}')
        (tmp_path / "sub-01/anat/sub-01_FLAIR.json").write_text('{"EchoTime": 0.1}')
        files = self.described(LAYOUT.scan(tmp_path).cohort)
        assert json.loads(files["FLAIR.json"])["SkullStripped"] is True
        assert json.loads(files["T1w.json"])["SkullStripped"] is False
        assert json.loads(files["mask.json"])["Type"] == "Lesion"
        found = [name for name in files if name.startswith("sub-")]
        assert found == ["sub-01/anat/sub-01_FLAIR.json"]  # applies to the copies of the same name too

    def test_a_sidecar_of_an_image_with_desc_is_repeated(self, tmp_path: Path) -> None:
        stem = "sub-{0}/anat/sub-{0}_space-own"
        tree(tmp_path, f"{stem}_desc-preproc_T1w.nii", f"{stem}_desc-lesion_mask.nii")
        (tmp_path / "sub-01/anat/sub-01_space-own_desc-preproc_T1w.json").write_text(
            '{"SpatialReference": "x"}'
        )
        files = self.described(LAYOUT.scan(tmp_path).cohort)
        assert [name for name in files if name.startswith("sub-01")] == [
            "sub-01/anat/sub-01_space-own_desc-preproc_T1w.json",
            "sub-01/anat/sub-01_space-own_desc-preprocSynth000_T1w.json",
        ]

    def test_suffixes_that_are_no_part_of_bids_are_ignored(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub-{0}/anat/sub-{0}_CT.nii.gz", "sub-{0}/anat/sub-{0}_msk.nii.gz")
        ignored = self.described(LAYOUT.scan(tmp_path).cohort)[".bidsignore"].decode().split()
        assert {"*_CT.*", "*_msk.*", "/records", "/cases.csv"} <= set(ignored)

    def test_other_labels_than_a_mask_s_are_a_segmentation(self, tmp_path: Path) -> None:
        table_of = LabelTable({"lesion": 2, "background": 0, "a  b": 1}, {})
        files = CaseFiles("c_1", "c_1", (tmp_path / "0.nii.gz",), tmp_path / "1.nii.gz")
        cohort = Cohort(tmp_path, "nnunet", ("T1",), table_of, (files,))
        assert LAYOUT.label_path(files, "c_1__syn002", cohort) == Path(
            "sub-c1/anat/sub-c1_desc-synth002_dseg.nii.gz"
        )
        assert LAYOUT.description(cohort, [("c_1", files)])["dseg.tsv"].decode() == (
            "index\tname\n0\tbackground\n1\ta b\n2\tlesion\n"
        )

    def test_cases_that_the_table_does_not_list_are_told(self, tmp_path: Path) -> None:
        made_by = {"GeneratedBy": [{"Name": "lesionsynth"}]}
        stem = "sub-{0}/anat/sub-{0}"
        tree(tmp_path, f"{stem}_T1w.nii", f"{stem}_label-lesion_mask.nii", f"{stem}_desc-brain_mask.nii")
        (tmp_path / "dataset_description.json").write_text(json.dumps(made_by))
        lines = [f"{s},{stem}_T1w.nii,{stem}_label-lesion_mask.nii".format(s) for s in SUBJECTS[:2]]
        (tmp_path / "cases.csv").write_text("\n".join(["case,T1,label", *lines]) + "\n")
        (finding,) = LAYOUT.scan(tmp_path).findings
        assert (finding.level, finding.case) == ("error", "sub-03")
        assert "is not in cases.csv" in finding.fault
        assert faults(tmp_path, Bids(channels={"T1": "T1w"})) == []

    @pytest.mark.parametrize("escape", ["../x/sub-01_T1w.nii.gz", "sub-01/anat/T1.nii.gz"])
    def test_a_table_cannot_name_what_it_likes(self, tmp_path: Path, escape: str) -> None:
        made_by = {"GeneratedBy": [{"Name": "lesionsynth"}]}
        root = tmp_path / "data"
        touch(root, [escape, "sub-01/anat/sub-01_label-lesion_mask.nii.gz"])
        (root / "dataset_description.json").write_text(json.dumps(made_by))
        label = "sub-01/anat/sub-01_label-lesion_mask.nii.gz"
        (root / "cases.csv").write_text(f"case,subject,T1,label\na,a,{escape},{label}\n")
        with pytest.raises(InputError, match="not as this layout writes them"):
            LAYOUT.scan(root)
