"""Whose a steered model is: never anybody's who did not ask for it, and nobody's afterwards."""

import asyncio
import contextvars
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Barrier, Event, Thread

import pytest
import torch
from mixed import term
from steered import FORMS, mixture
from tiny import tiny
from torch import nn
from torch.utils.checkpoint import checkpoint
from vectors import batch, hooks, logits

from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import last_logits
from weightsteer.inference.forward import Positions, reading
from weightsteer.steering import claims, steer
from weightsteer.terms import Dense, Sum
from weightsteer.vector import WeightVector

ELSEWHERE, SUSPENDED = "steered or measured in", "waits inside its `with`"


class Setup:
    """A model, two vectors, and the logits that each must give."""

    def __init__(self):
        self.model, _ = tiny("qwen3")
        self.u, self.v, self.ids = mixture(self.model, 0), mixture(self.model, 1, shift=3), batch(2)
        self.plain = self.now()
        with steer(self.model, self.u, 1.0):
            self.with_u = self.now()
        with steer(self.model, self.v, -1.0):
            self.with_v = self.now()

    def now(self):
        return logits(self.model, self.ids)

    def is_plain(self):
        """Whether nothing is left, in the model or of the claims."""
        return hooks(self.model) == 0 and not claims._active and torch.equal(self.now(), self.plain)


@pytest.fixture
def at():
    found = Setup()
    yield found
    assert found.is_plain(), "the model must be what it was"
    with steer(found.model, found.u, 0.0):
        assert claims._held.get() == claims._of_thread() == tuple(claims._active), "claims that ended must not pile up"


def refused(work, reason):
    with pytest.raises(WeightsteerError, match=reason):
        work()


def in_thread(work, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()


def test_two_threads_get_their_own_numbers_or_an_error(at):
    """The logits of one thread must not be those of the other's vector: once 191 of 200 were, and no error."""
    start = Barrier(2)

    def work(vector, alpha, expected):
        right = wrong = explained = 0
        start.wait()
        for _ in range(100):
            try:
                with steer(at.model, vector, alpha):
                    found = at.now()
            except WeightsteerError as error:
                explained += ELSEWHERE in str(error)
                continue
            right, wrong = (right + 1, wrong) if torch.equal(found, expected) else (right, wrong + 1)
        return right, wrong, explained

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(work, at.u, 1.0, at.with_u), pool.submit(work, at.v, -1.0, at.with_v)]
    counts = [run.result() for run in runs]
    assert [wrong for _, wrong, _ in counts] == [0, 0]
    assert all(sum(each) == 100 for each in counts)
    assert sum(right for right, _, _ in counts) >= 100, "one of the two always has the model"


def test_a_lock_is_enough(at):
    """The advice of the message must work: threads that take turns are all right, all the time."""
    lock = claims.threading.Lock()

    def work(vector, alpha, expected):
        found = []
        for _ in range(50):
            with lock, steer(at.model, vector, alpha):
                found.append(torch.equal(at.now(), expected))
        return all(found)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(work, at.u, 1.0, at.with_u), pool.submit(work, at.v, -1.0, at.with_v)]
    assert all(run.result() for run in runs)


def test_plain_passes_of_another_thread_are_refused(at):
    """The baseline of a comparison, measured beside a steered run, would be steered."""
    with steer(at.model, at.u, 1.0):
        refused(lambda: in_thread(at.now), ELSEWHERE)
        refused(lambda: in_thread(last_logits, at.model, at.ids.tolist()), ELSEWHERE)
        assert torch.equal(at.now(), at.with_u)
    assert torch.equal(in_thread(at.now), at.plain)


def test_measurements_share_a_model_with_nobody(at):
    """The hooks of a sweep cut positions off and repeat rows, and a second one's would do so to the first."""
    rows = at.ids.tolist()
    with reading(at.model, Positions.of_rows(torch.tensor([[1], [2]]))):
        refused(lambda: in_thread(at.now), ELSEWHERE)
        refused(lambda: in_thread(last_logits, at.model, rows), ELSEWHERE)
        refused(lambda: in_thread(enter, at.model, at.u, 1.0), ELSEWHERE)
        assert at.now().shape[1] == 1
    assert torch.equal(in_thread(last_logits, at.model, rows), at.plain[:, -1])


def test_a_pass_that_had_begun_is_refused_as_well(at):
    """Steering that begins in the middle of another thread's pass makes half of its layers steered."""
    halfway, steered = Event(), Event()

    def wait(*_):
        halfway.set()
        steered.wait(10)

    handle = at.model.model.layers[1].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(at.now)
        halfway.wait(10)
        with steer(at.model, at.u, 1.0):
            steered.set()
            refused(run.result, ELSEWHERE)
    handle.remove()


def test_a_part_of_the_model_is_the_model(at):
    """Entering by the decoder alone, or with a strength of zero, must not go around the claim."""
    with steer(at.model.model.layers[0], mlp_vector(at.model), 1.0, other_base=True):
        refused(lambda: in_thread(enter, at.model, at.u, 1.0), ELSEWHERE)
    with steer(at.model, at.u, 0.0):
        refused(lambda: in_thread(enter, at.model.model.layers[0], mlp_vector(at.model), 1.0), ELSEWHERE)
        other, _ = tiny("qwen3")
        in_thread(enter, other, at.u, 1.0)  # another model is nobody's


def mlp_vector(model):
    return WeightVector({"mlp.up_proj": Sum((64, 32), [(1.0, Dense(torch.ones(64, 32)))])}, {})


def enter(model, vector, alpha):
    with steer(model, vector, alpha, other_base=True):
        pass


def test_tasks_do_not_see_each_other(at):
    """A server that awaits between passes would answer one request with the vector of another."""

    async def request(vector, alpha, expected, entered, go_on):
        with steer(at.model, vector, alpha):
            entered.set()
            await go_on.wait()
            return torch.equal(at.now(), expected)

    async def serve():
        entered, go_on = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(request(at.u, 1.0, at.with_u, entered, go_on), name="first")
        await entered.wait()
        refused(at.now, "asyncio task 'first'")
        with pytest.raises(WeightsteerError, match=ELSEWHERE):
            await request(at.v, -1.0, at.with_v, entered, go_on)
        go_on.set()
        assert await first
        await request(at.v, -1.0, at.with_v, entered, go_on)

    asyncio.run(serve())


def test_what_a_task_starts_inside_is_steered(at):
    """The usual way of an asynchronous program is a thread for the pass; it must not run unsteered, nor be refused."""

    async def work():
        with steer(at.model, at.u, 1.0):
            both = await asyncio.gather(asyncio.to_thread(at.now), asyncio.to_thread(at.now))
            with pytest.raises(WeightsteerError, match=ELSEWHERE):  # has no context to go by
                await asyncio.get_running_loop().run_in_executor(None, at.now)
        assert all(torch.equal(found, at.with_u) for found in both)

    asyncio.run(work())
    found = []
    with steer(at.model, at.u, 1.0):
        thread = Thread(target=contextvars.copy_context().run, args=(lambda: found.append(at.now()),))
        thread.start()
        thread.join()
    assert torch.equal(found[0], at.with_u)


def test_siblings_inside_one_context_do_not_mix(at):
    """Two tasks that both inherit the outer vector each add one of their own: the second must not get both."""

    async def inner(wait):
        with steer(at.model, at.v, -1.0):
            await wait.wait()

    async def outer():
        with steer(at.model, at.u, 1.0):
            wait = asyncio.Event()
            task = asyncio.create_task(inner(wait))
            await asyncio.sleep(0)
            refused(at.now, ELSEWHERE)
            refused(lambda: enter(at.model, at.v, 0.5), ELSEWHERE)
            wait.set()
            await task
            assert torch.equal(at.now(), at.with_u)

    asyncio.run(outer())


def streamed(at, vector):
    with steer(at.model, vector, 1.0):
        for _ in range(2):
            yield at.now()


def test_a_suspended_generator_does_not_steer_its_caller(at):
    """The loop over a stream of steered outputs would compare them with steered outputs."""
    stream = streamed(at, at.u)
    assert torch.equal(next(stream), at.with_u)
    refused(at.now, SUSPENDED)
    refused(lambda: enter(at.model, at.v, 1.0), "'streamed'")
    refused(lambda: next(streamed(at, at.v)), SUSPENDED)
    assert torch.equal(next(stream), at.with_u)
    stream.close()
    assert at.is_plain()
    stream = streamed(at, at.u)
    next(stream)
    del stream  # no cycle may keep it: the model would stay refused until the collector comes by
    assert at.is_plain()
    assert all(torch.equal(found, at.with_u) for found in streamed(at, at.u))


def test_a_generator_that_hides_its_with_is_found(at):
    """Through helpers the ``with`` is not in the generator's own lines, and the leak is the same."""

    @contextmanager
    def helper():
        with steer(at.model, at.u, 1.0):
            yield

    class Helper:
        def __enter__(self):
            self.inner = steer(at.model, at.u, 1.0)
            self.inner.__enter__()

        def __exit__(self, *error):
            self.inner.__exit__(*error)

    def by_stack():
        with ExitStack() as stack:
            stack.enter_context(steer(at.model, at.u, 1.0))
            yield at.now()

    def by_helper(manager):
        with manager:
            yield at.now()

    def by_delegate():
        yield from streamed(at, at.u)

    for stream in (by_stack(), by_helper(helper()), by_helper(Helper()), by_delegate()):
        assert torch.equal(next(stream), at.with_u)
        refused(at.now, SUSPENDED)
        stream.close()


def test_context_managers_made_of_generators_are_fine(at):
    """They wait at their yield too, while the body of their ``with`` runs, and that is what they are for."""

    @contextmanager
    def mine():
        with steer(at.model, at.u, 1.0):
            yield

    def stream():
        with mine():
            yield at.now()

    with mine():
        assert torch.equal(at.now(), at.with_u)
    with ExitStack() as stack:
        stack.enter_context(mine())
        assert torch.equal(at.now(), at.with_u)
    assert all(torch.equal(found, at.with_u) for found in stream())
    assert all(torch.equal(found, at.with_u) for found in (steered(at) for _ in range(2)))


def steered(at):
    with steer(at.model, at.u, 1.0):
        return at.now()


def test_a_suspended_asynchronous_generator_does_not_steer_its_caller(at):
    """Streams of servers are asynchronous generators: the same leak."""

    async def stream():
        with steer(at.model, at.u, 1.0):
            yield at.now()

    async def work():
        outputs = stream()
        assert torch.equal(await anext(outputs), at.with_u)
        refused(at.now, SUSPENDED)
        with pytest.raises(WeightsteerError, match=SUSPENDED):
            await asyncio.to_thread(at.now)
        await outputs.aclose()
        assert at.is_plain()

    asyncio.run(work())


def test_a_generator_that_moves_to_another_thread_is_told(at):
    """It began in one thread and is read in another: its steering stayed behind."""
    stream = streamed(at, at.u)
    next(stream)
    refused(lambda: in_thread(next, stream), ELSEWHERE)
    assert at.is_plain()


def test_a_context_may_be_left_by_another_thread(at):
    """What a thread leaves behind for another to close must go all the same, or the model is steered for good."""
    context = steer(at.model, at.u, 1.0)
    in_thread(context.__enter__)
    refused(at.now, ELSEWHERE)
    context.__exit__(None, None, None)
    gc.collect()


def test_gradient_checkpoints_are_recomputed_with_the_steering(at):
    """The pass that backward repeats must be the steered one, or the gradients are those of another model."""
    layer, states = at.model.model.layers[0].mlp, torch.randn(2, 9, 32)

    def gradient(run):
        x = states.clone().requires_grad_()
        with steer(at.model, at.u, 1.0):
            run(x).square().sum().backward()
        return x.grad

    expected = gradient(layer)
    for reentrant in (False, True):
        assert torch.equal(gradient(lambda x, how=reentrant: checkpoint(layer, x, use_reentrant=how)), expected)


def test_the_threads_of_autograd_belong_to_who_calls_backward(at):
    """On a GPU the checkpoint is recomputed in a thread of autograd, which has no context but this one thing."""
    with steer(at.model, at.u, 1.0):
        (claim,) = claims._active
        assert claims._of_thread() == (claim,)

        def as_autograd():
            claims._keep_in_thread((claim,))  # as autograd hands it on
            return at.now()

        assert torch.equal(in_thread(as_autograd), at.with_u)
    assert claims._of_thread() == ()


class Small(nn.Sequential):
    """Linear layers: tracing a whole decoder takes seconds."""

    def __init__(self):
        super().__init__(nn.Embedding(300, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        self.requires_grad_(False)


def test_compiled_models_ask_as_well():
    """A compiled graph runs none of our Python: without a guard it would be used by every thread and task."""
    torch._dynamo.reset()
    model, ids, form = Small(), batch(), next(iter(FORMS.values()))[0]
    terms = {str(i): Sum((8, 8), [(0.2, term(form, model[i], torch.Generator().manual_seed(i)))]) for i in (1, 2)}
    vector = WeightVector(terms, {})
    compiled, plain = torch.compile(model, backend="eager", fullgraph=True), model(ids)
    broken = torch.compile(model, backend="eager")
    with steer(model, vector, 1.0):
        expected = model(ids)
        assert torch.equal(compiled(ids), expected)
        for one in (broken, compiled):
            refused(lambda one=one: in_thread(one, ids), ELSEWHERE)
        assert torch.equal(compiled(ids), expected)

    def stream():
        with steer(model, vector, 1.0):
            yield broken(ids)

    outputs = stream()
    assert torch.equal(next(outputs), expected)
    refused(lambda: broken(ids), SUSPENDED)
    outputs.close()

    async def work():
        async def hold(wait):
            with steer(model, vector, 1.0):
                assert torch.equal(broken(ids), expected)
                await wait.wait()

        wait = asyncio.Event()
        task = asyncio.create_task(hold(wait))
        await asyncio.sleep(0)
        refused(lambda: broken(ids), ELSEWHERE)
        wait.set()
        await task

    asyncio.run(work())
    assert torch.equal(compiled(ids), plain)
