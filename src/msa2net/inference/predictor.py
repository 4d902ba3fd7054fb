"""`Predictor`: from a path, an array or a Case to a Segmentation on the same grid.

Importing this imports no torch, so that exported networks are applied without it.
Axes: C channels, Z slices, H rows, W columns, K classes; h, w are the network's rows and columns.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import NDArray

from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.geometry import note_on_slices
from msa2net.data.io.readers import read_channels, read_path, stem
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, memory_guard
from msa2net.inference.engine import Engine, Pending, Resampling, Slice
from msa2net.inference.run_folder import read_facts
from msa2net.inference.validation_scores import describe_networks
from msa2net.options import InferenceOptions, NetworkKeywords
from msa2net.quality.monitor import QualityMonitor
from msa2net.quality.reference_ranges import ReferenceRanges

if TYPE_CHECKING:
    from torch import nn

    from msa2net.inference.torch_backend import EnsembleMember, Flip


class Segmenter:
    """Cases through an engine: what `Predictor` and `OnnxPredictor` do, whatever computes.

    Attributes:
        preprocessing: how images become inputs of the first network.
        label_names: one name per class, background first.
        reference_ranges: of the first network's training cases; None if they were not noted.
        performance: a line on each network's validation; none of networks made in memory.
        warnings: sentences that speak against a network: unfinished, or classes hardly found.
    """

    def __init__(
        self,
        engine: Engine,
        label_names: tuple[str, ...],
        reference_ranges: ReferenceRanges | None = None,
    ) -> None:
        self.preprocessing = engine.groups[0].preprocessing
        self.label_names = label_names
        self.reference_ranges = reference_ranges
        self.performance: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self._engine = engine

    @property
    def batch_slices(self) -> int:
        """Slices, or windows of slices, that go through a network at once."""
        return self._engine.batch

    def __call__(
        self,
        source: str | Path | Sequence[str | Path] | NDArray[Any] | Case,
        spacing_mm: tuple[float, ...] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            source: a file, a list of files (the channels of one volume, in order), a Case, or an
                array (H, W), (H, W, 3) for colour, or (Z, H, W).
            spacing_mm: of an array's voxels along (Z, H, W); None if unknown.

        Raises:
            DataError: unreadable, of another kind than the network was trained for, or a spacing
                that is none.
            ConfigError: it does not fit into memory, not even a single slice at a time.
        """
        if isinstance(source, str | Path):
            case = read_path(Path(source))
        elif isinstance(source, Case):
            case = source
        elif isinstance(source, Sequence):
            files = [Path(path) for path in source]
            case = read_channels(files, stem(files[0]))
        else:
            case = _case_from_array(source, spacing_mm)
        return next(self.segment([case]))

    def segment(
        self, cases: Iterable[Case], monitor: QualityMonitor | None = None
    ) -> Iterator[Segmentation]:
        """Segment cases one after another, filling batches across their borders.

        Memory holds one batch of slices and the labels of the cases in it; class probabilities
        exist for one batch only. A batch that does not fit into memory is halved, as are those
        after it. Results come in the order of the cases.

        Args:
            cases: them.
            monitor: assesses every case, before its result comes.
        """
        found = self._segment(cases, ("probabilities",), monitor)
        return (segmentation for (segmentation,) in found)

    def segment_both_ways(
        self, cases: Iterable[Case], monitor: QualityMonitor | None = None
    ) -> Iterator[tuple[Segmentation, Segmentation]]:
        """Segment cases once, and go back to their grids twice: as `segment`, and as published.

        The published evaluation of volumes takes the most probable class at the network's size
        and enlarges that by nearest neighbour, see `Preprocessing.invert_labels`.

        Raises:
            ConfigError: of networks with different preprocessing, whose labels lie on no common
                grid before they are brought back.
        """
        self._require_one_grid()
        found = self._segment(cases, ("probabilities", "labels"), monitor)
        return ((own, published) for own, published in found)

    def segment_as_published(self, cases: Iterable[Case]) -> Iterator[Segmentation]:
        """Segment cases as the published evaluation of volumes does, see `segment_both_ways`.

        Raises:
            ConfigError: of networks with different preprocessing.
        """
        self._require_one_grid()
        return (segmentation for (segmentation,) in self._segment(cases, ("labels",), None))

    def _require_one_grid(self) -> None:
        if len(self._engine.groups) > 1:
            raise ConfigError(
                "networks with different preprocessing have no labels in common to enlarge as "
                "published; score them one by one"
            )

    def note(self, case: Case) -> str | None:
        """Say in one sentence if a case is not cut into its own slices; None if it is."""
        return note_on_slices(case.geometry, self.preprocessing.orientation)

    def _segment(
        self, cases: Iterable[Case], ways: tuple[Resampling, ...], monitor: QualityMonitor | None
    ) -> Iterator[tuple[Segmentation, ...]]:
        engine = self._engine
        pending: list[Pending] = []
        queue: list[Slice] = []
        for case in cases:
            with memory_guard(f"segmenting {case.source or case.id}"):
                owner = engine.begin(case, ways)
                if monitor is not None:
                    owner.watch = monitor.begin(case, self.preprocessing, self.label_names)
                pending.append(owner)
                depth = owner.image.shape[1]
                for index in range(depth):
                    queue.append(engine.prepare(owner, index))
                    if sum(entry.owner.windows for entry in queue) >= engine.batch:
                        engine.run(queue)
                if depth >= engine.batch:
                    engine.run(queue)
            del case, owner  # a volume is not kept while the next is being read
            while pending and pending[0].done == pending[0].image.shape[1]:
                yield self._finish(pending.pop(0), monitor)
        engine.run(queue)
        yield from (self._finish(owner, monitor) for owner in pending)

    def _finish(self, pending: Pending, monitor: QualityMonitor | None) -> tuple[Segmentation, ...]:
        case = pending.case
        if monitor is not None and pending.watch is not None:
            with memory_guard(f"measuring the structures of {case.source or case.id}"):
                monitor.finish(pending.watch, next(iter(pending.labels.values())))
        own = (self.preprocessing.from_plane(labels, case) for labels in pending.labels.values())
        return tuple(
            Segmentation(case.id, labels, self.label_names, case.geometry) for labels in own
        )


class Predictor(Segmenter):
    """One network, or several whose probabilities are averaged, with all it takes to apply them.

    It may be called from several threads; one at a time computes. A network that is being trained
    is in evaluation mode while it predicts, and no longer.

    Attributes:
        model: the first network; in bfloat16 a copy of it, whose weights are reduced.
        preprocessing: how images become its inputs.
        label_names: one name per class, background first.
        flips: the mirrored copies of an input whose outputs the first network's are averaged with.
        reference_ranges: of the first network's training cases; None if they were not noted.
        performance: see `Segmenter`.
        warnings: see `Segmenter`.
    """

    def __init__(
        self,
        model: "nn.Module",
        preprocessing: Preprocessing,
        label_names: tuple[str, ...],
        batch_slices: int | None = None,
        *,
        flips: "tuple[Flip, ...]" = (),
        others: "Sequence[EnsembleMember]" = (),
        reference_ranges: ReferenceRanges | None = None,
        **options: Unpack[NetworkKeywords],
    ) -> None:
        """Make a predictor of networks in memory; `load` makes one of run folders.

        Args:
            model: (B, C, h, w) → logits (B, K, h, w).
            preprocessing: how images become its inputs.
            label_names: one name per class, background first.
            batch_slices: see `InferenceOptions`.
            flips: mirrored copies of an input whose outputs are averaged with the plain one's.
            others: networks with the same classes and channels, averaged with the first.
            reference_ranges: see the class.
            options: see `InferenceOptions`; precision and compile are those of the first network.
                What `model` learns later does not reach a network that is compiled, or a copy in
                bfloat16.

        Raises:
            ConfigError: no such mode or precision, a device that does not compute in it, an
                overlap outside [0, 1), no slices in a batch, MONAI missing for sliding windows, or
                networks trained in different orientations.
        """
        from msa2net.inference.ensemble import group_members
        from msa2net.inference.torch_backend import EnsembleMember, sliding_window_inference

        chosen = InferenceOptions(batch_slices=batch_slices, **options)
        if chosen.mode == "sliding":
            sliding_window_inference()  # missing, it is said before anything is read
        first = EnsembleMember(
            model, preprocessing, flips, reference_ranges, chosen.precision, compile=chosen.compile
        )
        groups = group_members([first, *others])
        super().__init__(Engine(groups, len(label_names), chosen), label_names, reference_ranges)
        self.model = first.model
        self.flips = flips

    @classmethod
    def load(
        cls,
        run: str | Path | Sequence[str | Path],
        device: str = InferenceOptions.device,
        batch_slices: int | None = InferenceOptions.batch_slices,
        *,
        flips: bool = InferenceOptions.flips,
        **options: Unpack[NetworkKeywords],
    ) -> "Predictor":
        """Load a run folder's network, or several folders' as an ensemble.

        Args:
            run: folder with `model.json` and `model.safetensors`, or a list of them, such as the
                folds of a cross-validation: their probabilities are averaged.
            device: see `InferenceOptions`, as for all that follow.
            batch_slices: see there.
            flips: test-time augmentation by mirroring.
            options: mode, overlap, precision, compile.

        Raises:
            WeightsError: not a run folder, or its weights do not fit.
            ConfigError: no such device, mode or precision, a device that does not compute in it,
                runs that cannot be averaged, flips that were not trained with, or MONAI is missing
                for sliding windows.
        """
        runs = [Path(one) for one in ([run] if isinstance(run, str | Path) else run)]
        chosen = InferenceOptions(device=device, batch_slices=batch_slices, flips=flips, **options)
        return cls.open(runs, chosen)

    @classmethod
    def open(cls, runs: Sequence[Path], options: InferenceOptions) -> "Predictor":
        """Load run folders' networks; see `load`."""
        from msa2net.inference.ensemble import load_members

        members, label_names = load_members(runs, options)
        first, *others = members
        predictor = cls(
            first.model,
            first.preprocessing,
            label_names,
            options.batch_slices,
            flips=first.flips,
            others=others,
            reference_ranges=first.reference_ranges,
            mode=options.mode,
            overlap=options.overlap,
            precision=options.precision,
            compile=options.compile,
            block_bytes=options.block_bytes,
        )
        known = [(one, read_facts(one)) for one in runs]
        predictor.performance, predictor.warnings = describe_networks(known)
        return predictor


def _case_from_array(array: NDArray[Any], spacing_mm: tuple[float, ...] | None) -> Case:
    """Make a Case of (H, W), (H, W, 3) or (Z, H, W); colour is told by its last axis of 3."""
    if array.ndim == 2:
        image_CZHW = array[None, None]
    elif array.ndim == 3 and array.shape[-1] == 3:
        image_CZHW = array.transpose(2, 0, 1)[:, None]
    elif array.ndim == 3 and array.shape[-1] != 4:
        image_CZHW = array[None]
    else:
        raise DataError(
            f"an array of shape {array.shape} is not understood: give (H, W), (H, W, 3) for "
            "colour without transparency, (Z, H, W) for a volume, or a Case"
        )
    if spacing_mm is None:
        return Case("array", image_CZHW)
    if len(spacing_mm) != 3 or not all(0 < mm < math.inf for mm in spacing_mm):
        raise DataError(
            f"a spacing of {spacing_mm} is not understood: give three lengths in mm, between "
            "slices, rows and columns"
        )
    depth, height, width = (float(mm) for mm in spacing_mm)
    return Case("array", image_CZHW, geometry=Geometry.from_spacing((depth, height, width)))
