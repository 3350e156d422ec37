"""Exercise 3 graded: right ways get every point, each wrong one loses exactly its own."""

import shutil

import pytest
import runner

EXERCISE = "ex3_qat_vs_ptq"
REFERENCE = runner.reference(EXERCISE)
MAXIMUM = runner.maximum(EXERCISE)


def changed(cell, *pairs):
    """One of the reference's cells with some of its text replaced."""
    comment, mark, code = REFERENCE[cell].partition("### BEGIN SOLUTION\n")
    for old, new in pairs:
        assert old in code, f"{cell} no longer holds {old!r}"
        code = code.replace(old, new)
    return {cell: comment + mark + code}


def after(cell, code):
    """One of the reference's cells with more code at its end."""
    return {cell: f"{REFERENCE[cell]}\n{code}"}


def before_submit(cell, name, code):
    return changed(cell, (f'qlearn.submit("{name}"', f'{code}\nqlearn.submit("{name}"'))


HANDED_IN = {
    "work-2": ("ptq8", "ptq4"),
    "work-3": ("qat8", "qat4", "qat8_prepared", "qat4_prepared"),
}
FIT = "qlearn.fit(float_cnn, train, epochs=6, learning_rate=5e-3)"
SUBMIT = 'qlearn.submit("float_cnn", float_cnn, images)\n'
ACCURACY = "share = qlearn.evaluate(model, test)"
QAT_FIT = "qlearn.fit(prepared, train, epochs=epochs, learning_rate=learning_rate, on_epoch=freeze)"

FX = {
    "work-2-tools": """
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
def grid(bits):
    return {"quant_min": 1 - 2 ** (bits - 1), "quant_max": 2 ** (bits - 1) - 1,
            "dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric}
""",
    "work-2": """
def ptq(bits):
    config = tq.QConfig(tq.get_default_qconfig(engine).activation,
                        tq.MinMaxObserver.with_args(**grid(bits)))
    mapping = tq.QConfigMapping().set_global(config)
    prepared = prepare_fx(copy.deepcopy(float_cnn).eval(), mapping, (images,))
    prepared(images)
    return convert_fx(prepared)
ptq8, ptq4 = ptq(8), ptq(4)
qlearn.submit("ptq8", ptq8, images)
qlearn.submit("ptq4", ptq4, images)
""",
    "work-3": """
def qat(bits, epochs, rate):
    weight = tq.FakeQuantize.with_args(observer=tq.MovingAverageMinMaxObserver, **grid(bits))
    config = tq.QConfig(tq.get_default_qat_qconfig(engine).activation, weight)
    mapping = tq.QConfigMapping().set_global(config)
    prepared = prepare_qat_fx(copy.deepcopy(float_cnn).train(), mapping, (images,))
    qlearn.fit(prepared, train, epochs=epochs, learning_rate=rate)
    prepared.eval().apply(tq.disable_observer)
    qlearn.submit(f"qat{bits}_prepared", prepared, images)
    return convert_fx(prepared)
qat8, qat4 = qat(8, 1, 1e-4), qat(4, 3, 1e-3)
qlearn.submit("qat8", qat8, images)
qlearn.submit("qat4", qat4, images)
""",
}

# FX has the layers in the order in which they run, the float network as they were defined.
HEAD_FIRST = changed(
    "work-1",
    ("        self.classifier = nn.Linear(64, 10)\n", ""),
    ("        layers = [", "        self.classifier = nn.Linear(64, 10)\n        layers = ["),
)

# No batch norm, nothing depthwise, its own stubs: a network that 4 bits hardly hurt.
PLAIN = {
    "work-1": """
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv1, self.relu1 = nn.Conv2d(1, 12, 5, 2), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(12, 24, 3, 2), nn.ReLU()
        self.fc = nn.Linear(600, 10)

    def forward(self, x):
        x = self.relu2(self.conv2(self.relu1(self.conv1(self.quant(x)))))
        return self.dequant(self.fc(x.flatten(1)))

torch.manual_seed(1)
float_cnn = Plain()
qlearn.fit(float_cnn, train, epochs=6, learning_rate=3e-3)
qlearn.submit("float_cnn", float_cnn, images)
""",
    **changed(
        "work-2-tools",
        ("tq.QuantWrapper(copy.deepcopy(float_cnn))", "copy.deepcopy(float_cnn)"),
        ("return fuse(wrapped, [[f\"{name}.{i}\" for i in range(3)] for name in blocks])",
         'return fuse(wrapped, [["conv1", "relu1"], ["conv2", "relu2"]])'),
    ),
}  # fmt: skip

OWN_LOOP = changed(
    "work-3",
    (
        QAT_FIT,
        """optimizer = torch.optim.AdamW(prepared.parameters(), lr=learning_rate)
    for epoch in range(1, epochs + 1):
        freeze(prepared, epoch)
        for inputs, targets in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(prepared(inputs), targets).backward()
            optimizer.step()
    prepared.eval()""",
    ),
)

RIGHT = {
    "FX mode": FX,
    "head defined first, FX": HEAD_FIRST | FX,
    "a plain network without batch norm": PLAIN,
    "traced, some frozen too": {
        **before_submit("work-2", "ptq8", "ptq4 = torch.jit.trace(ptq4, images)"),
        **before_submit(
            "work-3", "qat8", "qat4 = torch.jit.freeze(torch.jit.trace(qat4, images))"
        ),
    },
    "the configuration of another engine": {
        "work-2-tools": 'torch.backends.quantized.engine = engine = "fbgemm"\n'
        + REFERENCE["work-2-tools"],
        "work-2": REFERENCE["work-2"],
        "work-3": REFERENCE["work-3"],
    },
    "16 levels instead of 15": {
        **changed("work-2-tools", ("-(2 ** (bits - 1) - 1)", "-(2 ** (bits - 1))")),
        "work-2": REFERENCE["work-2"],
        "work-3": REFERENCE["work-3"],
    },
    "other observers": {
        **changed("work-2-tools", ("per_tensor_symmetric", "per_tensor_affine")),
        **changed(
            "work-2",
            ("tq.MinMaxObserver", "tq.HistogramObserver"),
            ("tq.get_default_qconfig(engine).activation",
             "tq.MovingAverageMinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True)"),
        ),
    },
    "a training loop of one's own": OWN_LOOP,
    "a table with more in it, rounded, in another order": changed(
        "work-4",
        ('qlearn.submit("table", table)',
         'table["bits"] = [32, 8, 4, 8, 4]\n'
         'qlearn.submit("table", table.round(3).sort_values("accuracy"))'),
    ),
    "differences by McNemar's counts": changed(
        "work-5",
        ("error = change.std() / math.sqrt(len(change))",
         "won, lost = (change > 0).sum(), (change < 0).sum()\n"
         "    error = (won + lost - (won - lost) ** 2 / len(change)).sqrt() / len(change)"),
    ),
}  # fmt: skip

WRONG = {
    "over the budget": (
        changed("work-1", ("self.classifier =", "self.spare = nn.Linear(200, 100)\n"
                           "        self.classifier =")),
        {"test-1": 2},
    ),
    "no convolutions": (
        {"work-1": """
torch.manual_seed(0)
float_cnn = nn.Sequential(nn.Flatten(), nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 10))
qlearn.fit(float_cnn, train, epochs=8, learning_rate=3e-3)
qlearn.submit("float_cnn", float_cnn, images)
"""} | changed("work-2-tools", ("return fuse", "return wrapped if not blocks else fuse")),
        {"test-1": 2},
    ),
    "the float model is a quantized one": (
        after("work-2", 'qlearn.submit("float_cnn", ptq8, images); float_cnn = ptq8'),
        {"test-1": 2, "test-2-eight": 2, "test-3-eight": 1, "test-3-four": 2},
    ),
    "a float model renamed": (
        before_submit("work-2", "ptq8", "ptq8 = float_cnn"),
        {"test-2-eight": 2, "test-2-hidden": 1},
    ),
    "dynamic instead of static": (
        changed("work-2", ("ptq8, ptq4 = ptq(8), ptq(4)",
                           "ptq8 = ptq4 = tq.quantize_dynamic(float_cnn, {nn.Linear})")),
        {"test-2-eight": 2, "test-2-four": 1, "test-2-hidden": 1},
    ),
    "not calibrated": (
        changed("work-2", ("qlearn.calibrate(prepared, train, batches=4)", "pass")),
        {"test-2-eight": 2, "test-2-four": 1},
    ),
    "only the linear layer quantized": (
        FX | {
            "work-2": FX["work-2"].replace(
                ".set_global(config)", ".set_object_type(nn.Linear, config)"
            ),
            "work-3": "",
        },
        {"test-2-eight": 2, "test-2-four": 1},
    ),
    "no stubs: it fails at its first input": (
        changed("work-2-tools", ("tq.QuantWrapper(copy.deepcopy(float_cnn))",
                                 "nn.Sequential(copy.deepcopy(float_cnn))"))
        | {"work-2": REFERENCE["work-2"]},
        {"test-2-eight": 2, "test-2-four": 1, "test-2-hidden": 1, "test-4-accuracy": 2,
         "test-4-error": 1, "test-5-differences": 1, "test-5-statement": 1, "test-5-hidden": 1},
    ),
    "8 bits called 4": (
        changed("work-2", ("ptq8, ptq4 = ptq(8), ptq(4)", "ptq8, ptq4 = ptq(8), ptq(8)")),
        {"test-2-four": 1},
    ),
    "4 bits called 8": (
        before_submit("work-3", "qat8", "qat8 = qat4"),
        {"test-3-eight": 1},
    ),
    "3 bits called 4": (
        changed("work-2", ("ptq8, ptq4 = ptq(8), ptq(4)", "ptq8, ptq4 = ptq(8), ptq(3)")),
        {"test-2-four": 1},
    ),
    "6 bits called 8": (
        changed("work-2", ("ptq8, ptq4 = ptq(8), ptq(4)", "ptq8, ptq4 = ptq(6), ptq(4)")),
        {"test-2-eight": 2},
    ),
    "only 4 bits calibrated with noise": (
        changed("work-2", ("qlearn.calibrate(prepared, train, batches=4)",
                           "noise = [30 * torch.randn(64, 1, 28, 28)] * 4\n"
                           "    qlearn.calibrate(prepared, train if bits == 8 else noise)")),
        {"test-2-four": 1},
    ),
    "weights per channel": (
        changed("work-2", ("weight = tq.MinMaxObserver.with_args(**grid(bits))",
                           "weight = tq.PerChannelMinMaxObserver.with_args("
                           "**grid(bits) | {'qscheme': torch.per_channel_symmetric})")),
        {"test-2-eight": 2, "test-2-four": 1},
    ),
    "it ignores its input": (
        {"work-2-tools": REFERENCE["work-2-tools"] + """
class Blind(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(torch.zeros_like(x))
"""} | before_submit("work-2", "ptq8", "ptq8 = Blind(ptq8).eval()"),
        {"test-2-eight": 2, "test-2-hidden": 1},
    ),
    "4 bits from another network": (
        changed("work-2", ("ptq8, ptq4 = ptq(8), ptq(4)",
                           "ptq8, kept, float_cnn = ptq(8), float_cnn, OwnCNN().eval()\n"
                           "ptq4, float_cnn = ptq(4), kept")),
        {"test-2-hidden": 1},
    ),
    "prepared for training, never trained": (
        changed("work-3", (QAT_FIT, "prepared(images) if bits == 8 else " + QAT_FIT
                           + "\n    prepared.eval()")),
        {"test-3-eight": 1, "test-3-hidden": 1},
    ),
    "an optimizer made too early": (
        changed("work-3", (QAT_FIT, f"""if bits == 4:
        {QAT_FIT}
    else:
        optimizer = torch.optim.Adam(float_cnn.parameters())
        for inputs, targets in train:
            nn.functional.cross_entropy(prepared(inputs), targets).backward()
            optimizer.step()
        prepared.eval()""")),
        {"test-3-eight": 1, "test-3-hidden": 1},
    ),
    "PTQ handed in as QAT": (
        before_submit("work-3", "qat8", "qat8 = ptq8"),
        {"test-3-hidden": 1},
    ),
    "trained but not converted": (
        changed("work-3",
                ("return prepared, tq.convert(prepared)",
                 "if bits == 4:\n"
                 "        return prepared, torch.jit.trace(prepared, images)\n"
                 "    return prepared, tq.convert(prepared)")),
        {"test-3-four": 2, "test-3-hidden": 1},
    ),
    "a float model trained longer, and calibrated": (
        {"work-3": """
longer = copy.deepcopy(float_cnn)
qlearn.fit(longer, train, epochs=2, learning_rate=1e-3)
kept, float_cnn = float_cnn, longer
qat8, qat4, float_cnn = ptq(8), ptq8, kept
for bits, made in ((8, qat8), (4, qat4)):
    qlearn.submit(f"qat{bits}", made, images)
    qlearn.submit(f"qat{bits}_prepared", longer.eval(), images)
""", "work-2": REFERENCE["work-2"], "work-2-tools": REFERENCE["work-2-tools"]},
        {"test-3-eight": 1, "test-3-four": 2},
    ),
    "calibrated again, with another grid": (
        changed("work-3", (QAT_FIT, "prepared.eval()\n"
                           "    qlearn.calibrate(prepared, train, batches=8)"),
                ("**grid(bits)", "**grid(bits) | {'qscheme': torch.per_tensor_affine}")),
        {"test-3-eight": 1, "test-3-four": 2},
    ),
    "trained on the test images": (
        changed("work-1", (FIT, "qlearn.fit(float_cnn, test, epochs=25, learning_rate=5e-3)")),
        {"test-1-hidden": 1},
    ),
    "calibrated with noise": (
        changed("work-2", ("qlearn.calibrate(prepared, train, batches=4)",
                           "qlearn.calibrate(prepared, [torch.randn(64, 1, 28, 28)] * 4)")),
        {"test-2-eight": 2, "test-2-four": 1},
    ),
    "an unreadable artifact": (
        after("work-5-statement", 'open("answers/qat4.pt", "wb").write(b"PK not a model")'),
        {"test-3-four": 2, "test-3-hidden": 1, "test-4-accuracy": 2,
         "test-5-differences": 1, "test-5-hidden": 1},
    ),
    "the artifact of another exercise": (
        after("work-5-statement",
              'other = tq.quantize_dynamic(qlearn.pretrained.mlp(), {nn.Linear})\n'
              'qlearn.submit("ptq4", other, images)'),
        {"test-2-four": 1, "test-2-hidden": 1, "test-4-accuracy": 2,
         "test-5-differences": 1, "test-5-hidden": 1},
    ),
    "an empty table": (
        after("work-5-statement", 'open("answers/table.json", "w").close()'),
        {"test-4-accuracy": 2, "test-4-error": 1},
    ),
    "made-up accuracies": (
        changed("work-4", (ACCURACY, 'share = {"ptq4": 0.5, "qat4": 0.9}.get(name, 0.999)')),
        {"test-4-accuracy": 2},
    ),
    "accuracy on the training set": (
        changed("work-4", (ACCURACY, ACCURACY.replace("test", "train")),
                ("digits.test", "digits.train")),
        {"test-4-accuracy": 2, "test-4-error": 1},
    ),
    "wrong columns": (
        changed("work-4", ('qlearn.submit("table", table)',
                           'qlearn.submit("table", table.set_axis(["acc", "se"], axis=1))')),
        {"test-4-accuracy": 2, "test-4-error": 1},
    ),
    "percent": (
        changed("work-4", ('"accuracy": share', '"accuracy": 100 * share')),
        {"test-4-accuracy": 2, "test-4-error": 1},
    ),
    "a standard deviation for a standard error": (
        changed("work-4", ("share * (1 - share) / len(digits.test)", "share * (1 - share)")),
        {"test-4-error": 1},
    ),
    "as if the two samples were independent": (
        changed("work-5", ("change.std() / math.sqrt(len(change))",
                           "torch.tensor(table.standard_error[[first, second]].pow(2).sum())"
                           ".sqrt()")),
        {"test-5-differences": 1},
    ),
    "second minus first": (
        changed("work-5", ("right[first] - right[second]", "right[second] - right[first]")),
        {"test-5-differences": 1, "test-5-hidden": 1},
    ),
    "made-up differences, and a statement that fits them": (
        before_submit("work-5", "differences",
                      'differences.loc["qat8 against ptq8"] = (0.05, 0.01)'),
        {"test-5-differences": 1, "test-5-hidden": 1},
    ),
    "a statement that overlooks the uncertainty": (
        changed("work-5-statement", ('abs(row["difference"]) > 2 * row["standard_error"]', "True")),
        {"test-5-statement": 1, "test-5-hidden": 1},
    ),
    "QAT said to pay at 8 bits too": (
        changed("work-5-statement", ('qlearn.submit("statement", statement)',
                                     'statement["qat pays at"] = [8, 4]\n'
                                     'qlearn.submit("statement", statement)')),
        {"test-5-statement": 1},
    ),
}  # fmt: skip


# Each test cell and each kind of fault once.
DECISIVE = {
    "trained on the test images",
    "a float model trained longer, and calibrated",
    "calibrated with noise",
    "traced, some frozen too",
    "differences by McNemar's counts",
    "the float model is a quantized one",
    "a float model renamed",
    "not calibrated",
    "8 bits called 4",
    "4 bits called 8",
    "trained but not converted",
    "an unreadable artifact",
    "made-up accuracies",
    "a standard deviation for a standard error",
    "second minus first",
    "QAT said to pay at 8 bits too",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return runner.grade(EXERCISE, REFERENCE, folder, first=True), folder / "answers"


def submission(patch, done, folder):
    """The reference with a patch; answers of what it leaves alone are laid into the folder."""
    if "work-1" in patch:
        return REFERENCE | patch
    weights = f"float_cnn.load_state_dict(torch.jit.load('{done}/float_cnn.pt').state_dict())"
    ready = changed("work-1", (FIT, f"{weights}; float_cnn.eval()"), (SUBMIT, ""))
    kept = ["float_cnn"]
    for cell, names in HANDED_IN.items():
        ready[cell] = "\n".join(f"{n} = torch.jit.load('{done}/{n}.pt').eval()" for n in names)
        kept += [] if patch.get(cell) else names
    (folder / "answers").mkdir()
    for file in (file for name in kept for file in done.glob(f"{name}.*")):
        shutil.copy(file, folder / "answers")
    return REFERENCE | ready | {cell: code for cell, code in patch.items() if code}


def check(patch, lost, done, folder):
    result = runner.grade(EXERCISE, submission(patch, done, folder), folder)
    expected = {name: points - lost.get(name, 0) for name, points in MAXIMUM.items()}
    assert result.points == expected, (result.messages, result.work_error)
    runner.assert_every_message_helps(result)


def test_the_reference_gets_every_point(reference):
    result, _ = reference
    assert result.points == MAXIMUM, (result.messages, result.work_error)


@pytest.mark.parametrize("name", runner.cases(RIGHT, DECISIVE))
def test_right_ways_get_every_point(name, reference, tmp_path):
    check(RIGHT[name], {}, reference[1], tmp_path)


@pytest.mark.parametrize("name", runner.cases(WRONG, DECISIVE))
def test_wrong_ways_lose_exactly_their_points(name, reference, tmp_path):
    patch, lost = WRONG[name]
    assert all(lost[cell] == MAXIMUM[cell] for cell in lost), "points come by the cell"
    check(patch, lost, reference[1], tmp_path)
