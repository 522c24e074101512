"""Networks of others: left as they are, evaluated with the weights they have now, in any mode, precision and thread."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from tape import Tape
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import alps_fast as af
from alps_fast.energies import CompactNet, DenoiserEnergy, DiffusionPrior
from alps_fast.samplers.graphs import Graphs

FEW = af.Schedule(sigma_max=2.0, sigma_min=0.2, levels=4, steps=3, eta_max=0.2, eta_steps=2)
OP = af.operators.Inpainting((torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float(), noise_std=0.1)
Y = OP.forward(torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(2)))


class Net(nn.Module):
    """Everything that depends on mode, precision and layout: convolutions, norms with statistics, dropout, a linear layer."""

    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.norm = nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.film, self.drop, self.tail = nn.Linear(1, 16), nn.Dropout(0.5), nn.Conv2d(16, channels, 3, padding=1)

    def forward(self, x, t):
        h = self.norm(self.head(x)) + self.film(torch.log(t)[:, None])[..., None, None]
        return x / (1 + 4 * t * t).view(-1, 1, 1, 1) + 0.02 * self.tail(self.drop(torch.nn.functional.silu(h)))


def compact():
    torch.manual_seed(0)
    net = CompactNet(1, 8, (1, 1, 1))
    nn.init.normal_(net.tail.weight, std=0.1)
    return net


MAKE = {
    "denoiser": lambda net, **options: DenoiserEnergy(net, channels=1, **options),
    "diffusion": lambda net, **options: DiffusionPrior(net, 1, probe=False, **options),
}
EVERY = {**{name: (Net, make) for name, make in MAKE.items()}, "compact": (compact, DenoiserEnergy)}


def run(energy, **options):
    return af.sample(Y, OP, energy, **{"chains": 3, "schedule": FEW, "progress": False} | options)


def state(net):
    """All that evaluations could leave behind in a module."""
    return ([(m, m.training) for m in net.modules()],
            [(p, p.requires_grad, p.dtype, p.stride(), p.data_ptr(), p._version, p.grad)
             for p in (*net.parameters(), *net.buffers())])


@pytest.mark.parametrize("precision", ["high", "fast"])
@pytest.mark.parametrize("name", EVERY)
def test_the_callers_network_is_left_alone(name, precision):
    """Validated while it trains, its training goes on: in its mode, its weights where and what they were."""
    make, prior = EVERY[name]
    net = make().train()
    before = state(net)
    energy = prior(net, precision=precision)
    run(energy)
    energy.grad(torch.randn(2, 1, 8, 8, dtype=torch.float64), 0.5)
    assert energy.network is net and all(a is c and b == d for (a, b), (c, d) in zip(before[0], state(net)[0], strict=True))
    assert all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(before[1], state(net)[1], strict=True))
    net(torch.randn(2, 1, 8, 8), torch.ones(2)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_evaluations_are_in_evaluation_mode():
    net, x = Net().train(), torch.randn(4, 1, 8, 8)
    for make in MAKE.values():
        assert torch.equal(make(net).grad(x, 0.5), make(Net().eval()).grad(x, 0.5))


def changed(net):
    other = type(net)() if isinstance(net, Net) else compact()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1).add_(0.01)  # no more: by 1.5 a deep network's states run away
    return other


def optimised(net):
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    sum(p.square().sum() for p in net.parameters()).backward()
    optimiser.step()


CHANGES = {
    "load_state_dict": lambda net: net.load_state_dict(changed(net).state_dict()),
    "assign": lambda net: net.load_state_dict(changed(net).state_dict(), assign=True),
    "optimiser": optimised,
    "statistics": lambda net: net.train()(torch.randn(4, 1, 8, 8), torch.full((4,), 2.0)),
    "half and back": lambda net: net.to(torch.bfloat16).float(),
    "double": lambda net: net.double(),
    "another layer": lambda net: setattr(net, "tail", changed(net).tail),
    "channels-last": lambda net: optimised(net.to(memory_format=torch.channels_last)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("precision", ["high", "fast"])
@pytest.mark.parametrize("name", EVERY)
def test_evaluations_follow_the_weights(name, precision, change):
    make, prior = EVERY[name]
    net, x = make(), torch.randn(2, 1, 8, 8)
    energy = prior(net, precision=precision)
    old, revision = energy.grad(x, 0.5), energy.revision()
    with torch.enable_grad():
        CHANGES[change](net)
    new, wanted = energy.grad(x, 0.5), prior(net, precision=precision).grad(x, 0.5)
    assert torch.equal(new, wanted)
    same = {"double", *(["statistics"] if name == "compact" else []), *(["half and back"] if precision == "fast" else [])}
    assert change in same or not torch.equal(new, old)
    assert energy.revision() != revision or change == "statistics"  # of buffers, which a graph reads where they are


@pytest.mark.parametrize("name", MAKE)
def test_a_run_sees_what_was_changed_through_data(name):
    """As classes that average weights do, uncounted by torch."""
    net = Net()
    energy = MAKE[name](net, precision="fast")
    run(energy)
    for p, q in zip(net.parameters(), changed(net).parameters(), strict=True):
        p.data.copy_(q.data)
    assert torch.equal(run(energy).samples, run(MAKE[name](net, precision="fast")).samples)


class Guided(Net):
    """With an attribute of a number, one of a dictionary, and another forward."""

    scale = 1.0

    def __init__(self):
        super().__init__()
        self.options = {"scale": 1.0}

    def forward(self, x, t):
        return self.scale * self.options["scale"] * super().forward(x, t)


SETTINGS = {
    "attribute": lambda net: setattr(net, "scale", 0.5),
    "option": lambda net: net.options.update(scale=0.5),
    "class": lambda net: setattr(net, "__class__", Net),
    "hook": lambda net: net.register_forward_hook(lambda module, inputs, output: 0.5 * output),
    "hook of a part": lambda net: net.tail.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],)),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MAKE)
def test_a_run_sees_what_was_set_on_a_network(name, setting):
    """A guidance scale, a hook: a twin of before would go on without, and a graph would replay it."""
    net = Guided()
    net.scale, make = 0.9, MAKE[name]
    energy = make(net)
    old, revision = run(energy).samples, energy.revision()
    assert torch.equal(old, run(energy).samples) and energy.revision() == revision
    SETTINGS[setting](net)
    new = run(energy).samples
    assert torch.equal(new, run(make(net)).samples) and not torch.equal(new, old) and energy.revision() != revision


class Around(nn.Module):
    """A module that holds another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x, t)


def scripted(net):
    return torch.jit.script(net)


def traced(net):
    return torch.jit.trace(net.eval(), (torch.randn(2, 1, 8, 8), torch.ones(2)))


def from_file(net):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", [scripted, traced, from_file, lambda net: Around(scripted(net))])
@pytest.mark.parametrize("name", MAKE)
def test_torchscript_is_a_network_too(name, make):
    """In evaluation mode, left alone, and followed when its weights change, as any other."""
    net, x = make(Net()), torch.randn(3, 1, 8, 8)
    net.train()
    before = [(p, p.requires_grad, p.data_ptr(), p._version) for p in net.parameters()]
    energy, plain = MAKE[name](net), MAKE[name](Net().eval())
    torch.testing.assert_close(energy.grad(x, 0.5), plain.grad(x, 0.5), rtol=0, atol=1e-6)
    assert net.training and before == [(p, p.requires_grad, p.data_ptr(), p._version) for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.1)
    assert torch.equal(energy.grad(x, 0.5), MAKE[name](net).grad(x, 0.5))
    assert not torch.equal(energy.grad(x, 0.5), plain.grad(x, 0.5))
    net.double()
    torch.testing.assert_close(energy.grad(x, 0.5), MAKE[name](net).grad(x, 0.5), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_threads_do_not_meet(name):
    """Two samplers at other levels on one energy, each as alone."""
    make, prior = EVERY[name]
    energy = prior(make())
    schedules = [af.Schedule(sigma_max=high, sigma_min=0.2, levels=8, steps=2) for high in (2.0, 3.0, 5.0, 9.0)]
    alone = [run(energy, schedule=s).samples for s in schedules]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda s: run(energy, schedule=s).samples, 3 * schedules))
    assert all(torch.equal(a, b) for a, b in zip(3 * alone, together, strict=True))


@pytest.mark.parametrize("mode", [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.no_grad()],
                         ids=["inference", "autocast", "no_grad"])
@pytest.mark.parametrize("name", EVERY)
def test_around_a_run_a_mode_changes_nothing(name, mode):
    make, prior = EVERY[name]
    energy = prior(make())
    with mode:
        first, inside = run(energy), prior(make())
    assert torch.equal(first.samples, run(energy).samples) and torch.equal(run(inside).samples, first.samples)
    with torch.inference_mode():
        made_inside = make()  # of inference tensors, which count no changes
    assert torch.equal(run(prior(made_inside)).samples, first.samples)


@pytest.mark.parametrize("name", EVERY)
def test_torchs_default_dtype_changes_nothing(name):
    make, prior = EVERY[name]
    net, options = make(), [{}, {"method": "measurement"}] + [{"correction": "mala"}] * (name != "diffusion")
    wanted = [run(prior(net), **o).samples for o in options]
    torch.set_default_dtype(torch.float64)
    try:
        found = [run(prior(net), **o).samples for o in options]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MAKE)
def test_half_precision_is_cast_in_and_out(name, dtype):
    """And `precision="fast"` leaves such a network's own precision."""
    x = torch.randn(2, 1, 8, 8)
    single = MAKE[name](Net()).grad(x, 0.5)
    for precision in ("high", "fast"):
        grad = MAKE[name](Net().to(dtype), precision=precision).grad(x, 0.5)
        assert grad.dtype == torch.float32
        error = float((grad - single).norm() / single.norm())
        assert 0 < error < 8 * torch.finfo(dtype).eps  # measured 0.6 and 0.7 eps
    assert run(MAKE[name](Net().to(dtype))).samples.dtype == torch.float32


class Casts(TorchDispatchMode):
    """Counts what becomes bfloat16, by shape."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and out.dtype == torch.bfloat16:
            self.shapes.append(tuple(out.shape))
        return out


@pytest.mark.parametrize("name", MAKE)
def test_fast_casts_weights_once_and_norms_never(name):
    net, x = Net(), torch.randn(2, 1, 8, 8)
    weights = {tuple(p.shape) for p in net.parameters()}
    energy = MAKE[name](net, precision="fast")
    grad = energy.grad(x, 0.5)
    with Casts() as casts:
        energy.grad(x, 0.7)
    assert casts.shapes and not weights & set(casts.shapes)
    twin = energy._foreign.twins[True, x.device].module
    assert twin.head.weight.dtype == twin.film.bias.dtype == torch.bfloat16 and twin.norm.weight.dtype == torch.float32
    exact = MAKE[name](net).grad(x, 0.5)
    assert 1e-5 < float((grad - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.parametrize("name", MAKE)
def test_a_compiled_network_is_compiled_once(name):
    """Over all levels and runs; t is a tensor to it, and modes that it would be compiled for are one."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = Net().train()
    energy = MAKE[name](torch.compile(net, backend=backend))
    found = run(energy)
    with torch.inference_mode():
        run(energy)
    assert len(graphs) == 1 and net.training
    torch.testing.assert_close(found.samples, run(MAKE[name](net)).samples)
    CHANGES["load_state_dict"](net)
    torch.testing.assert_close(run(energy).samples, run(MAKE[name](net)).samples)
    assert len(graphs) == 1


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda energy: pickle.loads(pickle.dumps(energy))])
def test_a_copy_has_a_network_of_its_own(name, copied):
    """After evaluations too; what becomes of the one's weights is nothing to the other."""
    make, x = EVERY[name][0], torch.randn(2, 1, 8, 8)
    energy = DenoiserEnergy(make(), channels=1) if name != "diffusion" else DiffusionPrior(make(), 1, probe=False)
    before = energy.grad(x, 0.5)
    other = copied(energy)
    optimised(energy.network)
    assert torch.equal(other.grad(x, 0.5), before) and not torch.equal(energy.grad(x, 0.5), before)


class Stepwise(Net):
    """With a break of the graph."""

    def forward(self, x, t):
        torch._dynamo.graph_break()
        return super().forward(x, t)


def in_place(net, **options):
    net.compile(**options)
    return net


def its_forward(net, **options):
    net.forward = torch.compile(net.forward, **options)
    return net


COMPILED = {"in place": in_place, "a module": torch.compile, "its forward": its_forward}


@pytest.mark.parametrize("way", COMPILED)
def test_options_of_torch_compile_are_kept(way):
    """Backend and its options, one graph for all sizes, no break of it; the caller's own is left as it is."""
    torch._dynamo.reset()
    graphs, given = [], {"answer": 42}

    def backend(graph, inputs, options):
        graphs.append(options)
        return graph.forward

    net = COMPILED[way](Net().train(), backend=backend, dynamic=True, fullgraph=True, options=given)
    before = vars(net).copy()
    prior = MAKE["diffusion"](net)
    for h, w in ((9, 12), (10, 7), (13, 5)):
        x = torch.randn(2, 1, h, w)
        torch.testing.assert_close(prior.grad(x, 0.5), MAKE["diffusion"](Net()).grad(x, 0.5))
    assert graphs == [given] and vars(net) == before
    run(prior)
    broken = MAKE["diffusion"](COMPILED[way](Stepwise(), backend=backend, fullgraph=True, options=given))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        broken.grad(torch.randn(2, 1, 8, 8), 0.5)


def test_what_is_compiled_once_a_prior_is_there_runs_compiled():
    torch._dynamo.reset()
    graphs, net, x = [], Net(), torch.randn(2, 1, 8, 8)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    prior = MAKE["diffusion"](net)
    before = prior.grad(x, 0.5)
    net.compile(backend=backend)
    torch.testing.assert_close(prior.grad(x, 0.5), before)
    assert len(graphs) == 1


def test_options_that_are_not_given_back_are_told(monkeypatch):
    """By a torch whose compiled calls are no Python functions."""
    class Opaque:
        def __init__(self, call):
            self.call = call

        def __call__(self, *arguments, **named):
            return self.call(*arguments, **named)

    net, x = Net(), torch.randn(2, 1, 8, 8)
    net._compiled_call_impl = Opaque(net._call_impl)
    monkeypatch.setattr(nn.Module, "compile", lambda module: vars(module).update(_compiled_call_impl=module._call_impl))
    with pytest.warns(UserWarning, match="network: it was compiled in place.*torch.compile\\(network, …\\)"):
        prior = MAKE["diffusion"](net)
    torch.testing.assert_close(prior.grad(x, 0.5), MAKE["diffusion"](Net()).grad(x, 0.5))


@pytest.mark.parametrize("decorate", [torch.no_grad(), torch.autocast("cpu", torch.float16, enabled=False),
                                      lambda call: lambda x, t: call(x, t=t), lambda call: partial(call),
                                      lambda call: lambda x, t, call=call: call(x, t), lambda call: lambda *a, c=call: c(*a),
                                      lambda call: (lambda calls: lambda x, t: calls[0]["it"](x, t))([{"it": (call,)[0]}]),
                                      lambda call: partial(lambda x, t, c: c(x, t), c=call)])
def test_a_forward_under_a_decorator_is_that_of_the_twin(decorate):
    """A module's own, put in its place: in evaluation mode, on the twin's weights, the caller's as it was."""
    net, x = Net().train(), torch.randn(2, 1, 8, 8)
    net.forward = decorated = decorate(net.forward)
    prior = MAKE["diffusion"](net)
    torch.testing.assert_close(prior.grad(x, 0.5), MAKE["diffusion"](Net()).grad(x, 0.5))
    assert net.forward is decorated and net.training
    optimised(net)
    torch.testing.assert_close(prior.grad(x, 0.5), MAKE["diffusion"](net).grad(x, 0.5))
    assert not torch.equal(prior.grad(x, 0.5), MAKE["diffusion"](Net()).grad(x, 0.5))


def tape(recorded_run, device):
    with Tape() as recorded:
        result = recorded_run()
    return recorded.replay, result


@pytest.mark.parametrize("name", EVERY)
def test_a_graph_is_recorded_again_once_weights_have_changed(name):
    make, prior = EVERY[name]
    net = make()
    options = {"chains": 3, "schedule": FEW, "progress": False}
    graphed = af.Sampler(OP, prior(net), **options)
    graphed._graphs = Graphs(tape, "cpu")
    for _ in range(3):
        replayed = graphed(Y)
    assert len(graphed._graphs.recorded) == 1  # of all levels
    CHANGES["load_state_dict"](net)
    wanted = run(prior(net))
    for _ in range(3):
        found = graphed(Y)
        assert torch.equal(found.samples, wanted.samples) and not torch.equal(found.samples, replayed.samples)


def bare(x, t):
    return 0.5 * x


class Wrapped(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, t):
        return self.function(x, t)


@pytest.mark.parametrize("function, sentence", [
    (lambda x, t: x[:, :1], r"^network: got output of shape \(2, 1, 8, 8\); wanted that of x, \(2, 3, 8, 8\)"),
    (torch.no_grad()(bare), "^network: got an output that autograd cannot follow to x .*; wanted one that it can, or a Diffus"),
    (torch.inference_mode()(bare), "^network: got an output that autograd cannot follow"),
    (lambda x, t: (x, t), "^network: got output of type tuple; wanted a tensor"),
])
def test_outputs_that_are_no_denoisers_are_refused(function, sentence):
    with pytest.raises(af.ArgumentError, match=sentence):
        DenoiserEnergy(Wrapped(function), channels=3).grad(torch.randn(2, 3, 8, 8), 0.5)


def test_code_for_contiguous_images_alone():
    net = Wrapped(lambda x, t: 0.5 * x.view(len(x), -1).view(x.shape))
    x = torch.randn(2, 3, 8, 8)
    for make in (lambda **o: DenoiserEnergy(net, channels=3, **o), lambda **o: DiffusionPrior(net, 3, probe=False, **o)):
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            make().grad(x, 0.5)
        assert make(channels_last=False).grad(x, 0.5).shape == x.shape


def test_a_network_that_cannot_be_copied_is_named():
    net = Wrapped(bare)
    net.held = (i for i in range(3))
    with pytest.raises(af.ArgumentError, match="^network: got a Wrapped that copy.deepcopy does not take .* or a function"):
        DiffusionPrior(net, 1)
    assert DiffusionPrior(lambda x, t: net(x, t), 1, probe=False).grad(torch.ones(1, 1, 8, 8), 0.5).mean() == 0.5


class Writes(nn.Module):
    """D of N(0, .16), or the noise in x; one that computes in the memory of its argument, as in-place layers do."""

    def __init__(self, predicts, inplace):
        super().__init__()
        self.predicts, self.inplace = predicts, inplace

    def forward(self, x, t):
        t = t.view(-1, 1, 1, 1)
        by = (0.16 if self.predicts == "image" else t) / (0.16 + t * t)
        return x.mul_(by) if self.inplace else x * by


@pytest.mark.parametrize("predicts", ["image", "noise"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_network_may_write_into_what_it_is_given(predicts, channels_last):
    """The mean was off by 5 % of the image, without a word, by a network that predicts images."""
    runs = [af.sample(Y, OP, DiffusionPrior(Writes(predicts, inplace), 1, predicts=predicts, channels_last=channels_last),
                      chains=2, schedule=FEW, progress=False) for inplace in (False, True)]
    assert torch.equal(runs[0].mean, runs[1].mean) and torch.equal(runs[0].samples, runs[1].samples)


def test_an_energy_that_writes_into_x_is_refused():
    class Mine(af.energies.Energy):
        channels = 1

        def _grad(self, x, t):
            return x.mul_(t * t / (0.16 + t * t))

    with pytest.raises(af.ArgumentError, match="^energy: got a Mine that writes into the x it is given; wanted one"):
        af.sample(Y, OP, Mine(), chains=2, schedule=FEW, progress=False)
