"""The compiled kernel for classification: torch's numbers for any size, and the same bits however
they are made.
"""

import numpy as np
import pytest
import torch

from hpo_bench.core import native
from hpo_bench.core.model import Following
from hpo_bench.core.update import State
from hpo_bench.hypergradients.neumann import Neumann, NeumannRows
from hpo_bench.models import relu_classification_native
from hpo_bench.models.relu_classification import ReLUClassification
from hpo_bench.models.relu_classification_native import NativeReLUClassification
from tests.problems import advance, in_force

LIBRARIES = {
    name: native.load(name).library for name in native.variants() if native.wanted() != "0"
}
LIBRARIES = {name: library for name, library in LIBRARIES.items() if library is not None}
LIBRARY = next(iter(LIBRARIES.values()), None)
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-5}
SIZES = [
    (784, 50, 10, 50),
    (1, 1, 2, 1),
    (3, 2, 2, 15),
    (17, 3, 3, 16),
    (16, 7, 4, 33),
    (100, 51, 11, 129),
    (41, 12, 5, 300),
]
NAMES = ("lr", "weight_decay", "momentum")
TERMS = [4, 1, 2]  # of the three repetitions
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason="no compiled kernels")
fused_torch = pytest.mark.skipif(
    native.variants()[0] == "plain", reason="torch multiplies and adds with two roundings"
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).to(dtype)


class Case:
    """Both models of one size, weights of 3 repetitions, and a dataset with the places of some
    batches.
    """

    rows, terms = 3, TERMS

    def __init__(self, size, dtype, library=LIBRARY, batches=1):
        features, hidden, classes, count = size
        self.plain = ReLUClassification(features, hidden, classes, dtype)
        self.kernel = NativeReLUClassification(features, hidden, classes, dtype, library)
        random = np.random.default_rng(0)
        self.inputs = draw(count + 30, features, dtype=dtype)
        self.targets = torch.from_numpy(random.integers(0, classes, count + 30))
        chosen = random.permuted(np.tile(np.arange(count + 30), (batches, self.rows, 1)), axis=-1)
        self.places = torch.from_numpy(chosen)[..., :count]
        self.weights, self.buffer = (
            draw(self.rows, self.plain.layout.count, dtype=dtype, seed=s) / 4 for s in (1, 2)
        )
        self.vectors = draw(2, *self.weights.shape, dtype=dtype, seed=3)
        raw = {name: draw(self.rows, 1, dtype=dtype, seed=4) - 3 for name in NAMES}
        self.hyper = in_force(raw)

    def gathered(self, number=0, model=None):
        places = self.places[number]
        model = model or self.kernel
        return model.batch(
            self.inputs[places], self.targets[places], shared=False, split="training"
        )

    def placed(self, number=0):
        return self.kernel.batch_at(
            self.inputs, self.targets, self.places[number], split="training", first=False
        )

    def made(self, batches, recorded, differentiable, hyper=None):
        """Updates in one call; every recorded row has its validation batch, the first."""
        validation = [self.placed()] * sum(recorded)
        test = self.kernel.batch(self.inputs, self.targets, shared=True, split="test")
        state = State(self.weights, self.buffer)
        following = Following(self.placed(), self.terms, NAMES) if differentiable else None
        return self.kernel.updates(
            state, batches, hyper or self.hyper, recorded, validation, test, following
        )

    def everything(self):
        """Results of every kernel, by name."""
        found = self.kernel.linearise(self.weights, self.placed(), {}, True)
        count = len(self.places)
        made = self.made([self.placed(number) for number in range(count)], [True] * count, True)
        shared = self.kernel.batch(self.inputs, self.targets, shared=True, split="test")
        own = [self.weights, self.buffer]
        one = found.products_of_series(
            self.vectors[0], self.hyper["lr"], self.hyper["weight_decay"], self.terms, own
        )
        assert (one is None) == (made.products is None)
        last = made.products or {
            "last": made.step.linearisation.hessian_product(self.vectors[0]).sum(-1)
        }
        _, error = self.kernel.evaluate(self.weights, shared, {})
        return {
            "loss": found.loss,
            "gradient": found.gradient,
            "products": found.products(self.vectors),
            "alone": self.kernel.loss(self.weights, shared, {})[0],
            "error": error,
            "weights": made.state.weights,
            "buffer": made.state.buffer,
            "finite": made.finite,
            **made.columns,
            "dots": torch.zeros(()) if one is None else one,
            **last,
        }


def close(a, b):
    scale = a.abs().max().clamp(min=1)
    torch.testing.assert_close(b / scale, a / scale, rtol=0, atol=TOLERANCE[a.dtype])


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@needs_kernels
@both_dtypes
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_gives_the_numbers_of_torch(size, dtype):
    case = Case(size, dtype)
    expected = case.plain.linearise(case.weights, case.gathered(model=case.plain), {}, True)
    for batch in (case.placed(), case.gathered()):
        found = case.kernel.linearise(case.weights, batch, {}, True)
        close(expected.loss, found.loss)
        close(expected.gradient, found.gradient)
        close(expected.products(case.vectors), found.products(case.vectors))
        equal(found.products(case.vectors)[1], found.hessian_product(case.vectors[1]))
        close(expected.loss, case.kernel.loss(case.weights, batch, {})[0])
    shared = case.kernel.batch(case.inputs, case.targets, shared=True, split="test")
    for theirs, ours in zip(
        case.plain.evaluate(case.weights, shared, {}),
        case.kernel.evaluate(case.weights, shared, {}),
        strict=True,
    ):
        close(theirs, ours)


@needs_kernels
def test_rows_read_in_place_are_rows_gathered_bit_by_bit():
    case = Case((41, 12, 5, 30), torch.float32)
    ours, theirs = (
        case.kernel.linearise(case.weights, batch, {}, True)
        for batch in (case.placed(), case.gathered())
    )
    equal(ours.gradient, theirs.gradient)
    equal(ours.products(case.vectors), theirs.products(case.vectors))


@needs_kernels
def test_inputs_that_lie_column_by_column_are_read_right():
    case = Case((41, 12, 5, 30), torch.float32)
    expected = case.everything()
    case.inputs = case.inputs.T.contiguous().T
    for name, values in case.everything().items():
        equal(values, expected[name])


@needs_kernels
@both_dtypes
def test_exponentials_and_logarithms_are_exact_to_a_few_last_digits(dtype):
    model = NativeReLUClassification(1, 1, 2, dtype, LIBRARY)
    lowest = {torch.float32: -87.0, torch.float64: -700.0}[dtype]
    score = torch.cat(
        [
            torch.linspace(lowest, 0, 5000, dtype=torch.float64).to(dtype),
            torch.zeros(1, dtype=dtype),
        ]
    )
    weights = torch.zeros(len(score), model.layout.count, dtype=dtype)
    weights[:, -1] = score  # scores (0, score) for class 0, whatever the inputs
    batch = model.batch(
        torch.zeros(1, 1, dtype=dtype),
        torch.zeros(1, dtype=torch.int64),
        shared=True,
        split="training",
    )
    found = model.linearise(weights, batch, {}, False)
    exact = score.double()
    last_digit = torch.finfo(dtype).eps
    chance = torch.sigmoid(exact)
    torch.testing.assert_close(found.gradient[:, -1].double(), chance, rtol=3 * last_digit, atol=0)
    torch.testing.assert_close(
        found.loss.double(), torch.log1p(torch.exp(exact)), rtol=2 * last_digit, atol=last_digit
    )


@needs_kernels
@fused_torch
@both_dtypes
@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("per_weight", [True, False])
@pytest.mark.parametrize("updates", [1, 4])
def test_updates_in_one_call_are_updates_one_by_one_bit_by_bit(
    dtype, updates, per_weight, differentiable
):
    case = Case((41, 12, 5, 150), dtype, batches=updates)
    case.weights[1, 3] = torch.inf
    hyper = case.hyper
    if per_weight:
        hyper = in_force({**case.hyper.raw, "lr": case.vectors[1] - 3})
    before, batches = case.weights.clone(), [case.placed(number) for number in range(updates)]
    recorded = [number % 2 == 1 for number in range(updates)]
    made = case.made(batches, recorded, differentiable, hyper)
    equal(case.weights, before)
    state, losses, tests, finite = State(case.weights, case.buffer), [], [], []
    test = case.kernel.batch(case.inputs, case.targets, shared=True, split="test")
    for batch, due in zip(batches, recorded, strict=True):
        last = state
        found = case.kernel.linearise(state.weights, batch, {}, True)
        if due:
            losses.append(found.loss)
            tests.append(case.kernel.evaluate(state.weights, test, {})[1])
        finite.append((state.weights * 0).sum(-1) + found.loss * 0)
        state, _ = advance(state, found, hyper, None)
    equal(made.state.weights, state.weights)
    equal(made.state.buffer, state.buffer)
    equal(made.finite, torch.stack(finite))
    assert set(made.columns) == (
        {"train_loss", "test_loss", "test_metric", "validation_loss"} if losses else set()
    )
    if losses:
        equal(made.columns["train_loss"], torch.stack(losses))
        equal(made.columns["test_metric"], torch.stack(tests))
    assert (made.step is not None) == differentiable
    if differentiable:
        equal(made.step.weights, last.weights)
        equal(made.step.memory, last.buffer)
        ours, theirs = made.step.linearisation, found
        equal(ours.hessian_product(case.vectors[0]), theirs.hessian_product(case.vectors[0]))


@needs_kernels
@fused_torch
@both_dtypes
@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("names", [NAMES, NAMES[::-2]])
@pytest.mark.parametrize(
    "size", [(784, 50, 10, 50), (17, 30, 3, 33), (5, 8, 2, 16), (41, 60, 5, 97)]
)
def test_what_follows_the_last_update_is_what_calls_of_its_own_give_bit_by_bit(
    size, names, updates, dtype
):
    case = Case(size, dtype, batches=updates + 1)
    case.weights[1, 3] = torch.inf
    batches, second = [case.placed(number) for number in range(updates)], case.placed(updates)
    short = case.kernel.batch_at(
        case.inputs, case.targets, case.places[updates][:, :5], split="validation", first=False
    )
    test = case.kernel.batch(case.inputs, case.targets, shared=True, split="test")
    state = State(case.weights, case.buffer)
    for batch in batches:
        found = case.kernel.linearise(state.weights, batch, {}, True)
        state, step = advance(state, found, case.hyper, None)
    for other in (second, short, test):
        following = Following(other, TERMS, names)
        made = case.kernel.updates(
            State(case.weights, case.buffer),
            batches,
            case.hyper,
            [False] * updates,
            [],
            test,
            following,
        )
        assert made.step is None
        equal(made.state.weights, state.weights)
        equal(made.state.buffer, state.buffer)
        gradient = case.kernel.linearise(state.weights, other, {}, False).gradient
        expected = step.products_of_series(gradient, TERMS, names)
        assert made.products.keys() == expected.keys()
        for name, values in made.products.items():
            assert torch.isfinite(values[[0, 2]]).all()
            equal(values, expected[name])


@needs_kernels
def test_where_inner_products_do_not_do_what_follows_is_left_to_the_last_update():
    case = Case((17, 30, 3, 33), torch.float32)
    per_weight = in_force({**case.hyper.raw, "weight_decay": case.vectors[1] / 9 - 2})
    assert case.made([case.placed()], [False], True).step is None
    made = case.made([case.placed()], [False], True, per_weight)
    assert made.products is None
    assert made.step is not None
    neither = case.made([case.placed()], [False], False)
    assert neither.products is None
    assert neither.step is None


@needs_kernels
@both_dtypes
@pytest.mark.parametrize("look_back", [1, 2, 5])
@pytest.mark.parametrize("size", [(784, 50, 10, 50), (17, 30, 3, 33), (5, 8, 2, 16)])
def test_hypergradients_by_inner_products_are_those_of_the_series(size, look_back, dtype):
    case = Case(size, dtype)
    state = State(case.weights, case.buffer)
    found = case.kernel.linearise(case.weights, case.placed(), {}, True)
    _, step = advance(state, found, case.hyper, None)
    plain = case.plain.linearise(case.weights, case.gathered(model=case.plain), {}, True)
    _, reference = advance(state, plain, case.hyper, None)
    ours, theirs = (
        Neumann(look_back).estimate([s], case.vectors[0], NAMES) for s in (step, reference)
    )
    assert step.products_of_series(case.vectors[0], [look_back] * case.rows, NAMES) is not None
    for name in NAMES:
        close(theirs[name], ours[name])
        (only,) = Neumann(look_back).estimate([step], case.vectors[0], [name]).values()
        equal(only, ours[name])


@needs_kernels
def test_rows_with_look_backs_of_their_own_are_bitwise_alone():
    case = Case((17, 30, 3, 33), torch.float32)
    found = case.kernel.linearise(case.weights, case.placed(), {}, True)
    _, step = advance(State(case.weights, case.buffer), found, case.hyper, None)
    together = NeumannRows(5, None, (1, 5, 3)).estimate([step], case.vectors[0], NAMES)
    for row, look_back in enumerate((1, 5, 3)):
        alone = Neumann(look_back).estimate([step], case.vectors[0], NAMES)
        for name in NAMES:
            equal(together[name][row], alone[name][row])


@needs_kernels
def test_large_batches_clipping_and_a_learning_rate_for_each_weight_take_the_series_itself():
    case = Case((17, 30, 3, 61), torch.float64)
    state = State(case.weights, case.buffer)
    per_weight = in_force({**case.hyper.raw, "lr": case.vectors[1] / 9 - 2})

    def offered(hyper, clip):
        found = case.kernel.linearise(case.weights, case.placed(), {}, True)
        step = advance(state, found, hyper, clip)[1]
        return step.products_of_series(case.vectors[0], [3] * case.rows, NAMES) is not None

    assert not offered(case.hyper, None)
    case.places = case.places[..., :60]
    assert offered(case.hyper, None)
    assert not offered(per_weight, None)
    assert not offered(case.hyper, 1.0)


@needs_kernels
def test_what_is_not_finite_stays_in_its_row():
    case = Case((17, 12, 3, 20), torch.float32, batches=2)
    clean, others = case.everything(), [0, 2]
    original = case.weights
    for place in (0, 17 * 12, 17 * 12 + 12, -1):  # first layer, its bias, second layer, its bias
        for value in (torch.nan, torch.inf):
            case.weights = original.clone()
            case.weights[1, place] = value
            found = case.everything()
            assert not torch.isfinite(found["loss"][1])
            assert torch.isnan(found["error"][1])
            assert torch.isnan(found["finite"][:, 1]).all()
            for name in ("loss", "gradient", "error", "weights", "buffer"):
                equal(found[name][others], clean[name][others])
            equal(found["train_loss"][:, others], clean["train_loss"][:, others])
            equal(found["dots"][:, others], clean["dots"][:, others])


@needs_kernels
def test_the_first_of_equal_scores_is_the_prediction():
    model = NativeReLUClassification(2, 3, 4, torch.float32, LIBRARY)
    weights = torch.zeros(1, model.layout.count)
    weights[0, -3:-1] = 1  # classes 1 and 2 score 1
    targets = torch.tensor([0, 1, 2, 3, 1])
    batch = model.batch(torch.ones(5, 2), targets, shared=True, split="test")
    assert model.evaluate(weights, batch, {})[1].item() == pytest.approx(3 / 5)


@needs_kernels
@both_dtypes
@pytest.mark.parametrize("size", SIZES)
def test_instruction_sets_agree_bit_by_bit(size, dtype):
    libraries = [library for name, library in LIBRARIES.items() if name != "plain"]
    first, *rest = [
        Case(size, dtype, library, batches=3).everything() for library in libraries or [LIBRARY]
    ]
    for other in rest:
        for name, values in first.items():
            equal(values, other[name])


@needs_kernels
@both_dtypes
def test_a_row_alone_is_a_row_among_others_bit_by_bit(dtype):
    case = Case((41, 12, 5, 20), dtype, batches=3)
    whole = case.everything()
    weights, buffer, vectors, places, raw = (
        case.weights,
        case.buffer,
        case.vectors,
        case.places,
        case.hyper.raw,
    )
    for row in range(3):
        case.rows, case.terms = 1, TERMS[row : row + 1]
        case.weights, case.buffer, case.vectors = weights[[row]], buffer[[row]], vectors[:, [row]]
        case.places = places[:, [row]]
        case.hyper = in_force({name: value[[row]] for name, value in raw.items()})
        for name, values in case.everything().items():
            axis = (
                0
                if name
                in ("loss", "gradient", "alone", "error", "weights", "buffer", "last", *NAMES)
                else 1
            )
            equal(values, whole[name].narrow(axis, row, 1))


@needs_kernels
def test_a_cpu_takes_the_kernel():
    cpu, elsewhere = torch.device("cpu"), torch.device("meta")
    taken = relu_classification_native.make(4, 7, 3, torch.float32, cpu)
    assert isinstance(taken, NativeReLUClassification)
    assert (
        type(relu_classification_native.make(4, 7, 3, torch.float32, elsewhere))
        is ReLUClassification
    )


@needs_kernels
def test_a_step_of_several_updates_differentiates_as_one_made_alone():
    case = Case(
        (17, 30, 3, 61), torch.float32, batches=3
    )  # more rows than are summed up in the same call
    batches = [case.placed(number) for number in range(3)]
    step = case.made(batches, [False] * 3, True).step
    found = case.kernel.linearise(step.weights, batches[-1], {}, True)
    _, alone = advance(State(step.weights, step.memory), found, case.hyper, None)
    for name, value in Neumann(5).estimate([step], case.vectors[0], NAMES).items():
        equal(value, Neumann(5).estimate([alone], case.vectors[0], NAMES)[name])
