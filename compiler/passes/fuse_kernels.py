"""Form kernels: every anchor swallows the float chain behind it for as long as one vector program can hold it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from compiler.backend.anchors import anchor_seed, constant_of, folded_shape
from compiler.backend.kernel_spec import stream_shape
from compiler.backend.registers import ProgramError
from compiler.backend.rows import cut_at_rows, row_input, row_length, row_programs
from compiler.backend.vectorize import SLOTS, Leaves, Seed, vectorize
from compiler.backend.widths import image_bytes
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, shape_of
from compiler.ir import location
from compiler.ir.kernel import VectorProgram
from compiler.passes.fuse_options import Options
from compiler.passes.prepare_kernels import prepare
from isa.errors import ScheduleError

RESHAPING = (*kern.POOLS, qnn.MatmulOp, qnn.ReduceOp)
"""What may stand inside a kernel and whose result has another shape."""


@dataclass(frozen=True)
class FuseKernelsPass(ModulePass):
    """Rewrite qnn functions into kernels, views and joins; a group is FX node names joined by ``+``."""

    name = "fuse-kernels"

    fuse: bool = True
    pool: bool = False
    groups: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        groups = tuple(tuple(group.split("+")) for group in self.groups)
        fuse_kernels(op, Options(self.fuse, self.pool, groups))


def fuse_kernels(module: ModuleOp, options: Options | None = None) -> None:
    """Form the kernels of every function; UnsupportedError where no kernel computes an op, ScheduleError for groups."""
    for function in module.ops:
        if isinstance(function, FuncOp) and function.body.blocks:
            _fuse_function(function.body.block, options or Options())


def _fuse_function(block: Block, options: Options) -> None:
    prepare(block, options.fill_bytes, options.lanes)
    planner = _Planner(block, options)
    _emit(block, planner.plan())


@dataclass(frozen=True, eq=False)
class Group:
    """Ops that become one kernel, view or join, in order, and the value that they give to the rest."""

    members: tuple[Operation, ...]
    result: SSAValue


@dataclass(eq=False)
class _Planner:
    block: Block
    options: Options
    order: dict[Operation, int] = field(init=False)
    groups_of: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    done: set[Operation] = field(default_factory=set[Operation])
    groups: list[Group] = field(default_factory=list[Group])

    def __post_init__(self) -> None:
        self.order = {op: i for i, op in enumerate(self.block.ops)}
        for i, group in enumerate(self.options.groups):
            for node in group:
                self.groups_of.setdefault(node, set()).add(i)

    def plan(self) -> tuple[Group, ...]:
        """Groups in an order in which each one's operands are there."""
        for op in self.order:
            if op in self.done or isinstance(op, (qnn.ConstantOp, qnn.DequantizeOp)):
                continue
            if isinstance(op, (ReturnOp, qnn.ConcatOp, qnn.PadOp, *kern.MOVES)):
                self._store_operands(op)
            if isinstance(op, ReturnOp) or not op.results[0].uses.get_length():
                continue
            with location.blamed(op):
                group = self._grow(op)
            self._add(group)
        self._check_groups()
        return tuple(self.groups)

    def _add(self, group: Group) -> None:
        self.groups.append(group)
        self.done |= set(group.members)

    def _store_operands(self, op: Operation) -> None:
        """A dequantized value that is moved or returned as binary32 is computed by a kernel of its own."""
        for value in op.operands:
            if isinstance(value.owner, qnn.DequantizeOp) and value.owner not in self.done:
                self._add(Group((value.owner,), value))

    def _grow(self, root: Operation) -> Group:
        if isinstance(root, kern.MOVES):
            return self._grow_movement(root)
        if isinstance(root, (qnn.PadOp, qnn.ConcatOp)):
            return Group((root,), root.results[0])
        return self._grow_chain(root)

    def _grow_movement(self, root: Operation) -> Group:
        """Moves up to the one that something else reads: prepared blocks have a chain of their own for each reader."""
        members = [root]
        while (last := _only_user(members[-1].results[0])) is not None and isinstance(last, kern.MOVES):
            if kern.moved([*members, last]) is None:
                break
            members.append(last)
        return Group(tuple(members), members[-1].results[0])

    def _grow_chain(self, root: Operation) -> Group:
        """The longest set of ops from ``root`` on that gives one value and fits one program."""
        members, best = [root], Group((root,), root.results[0])
        _check(best)
        while len(members) < kern.LONGEST_CHAIN and (following := self._next(root, members)) is not None:
            members = sorted([*members, following], key=self.order.__getitem__)
            live = _live_out(members)
            if len(live) != 1 or isinstance(live[0].owner, qnn.DequantizeOp):
                continue
            group = Group(tuple(members), live[0])
            try:
                _check(group)
            except ProgramError:
                break
            best = group
        return best

    def _next(self, root: Operation, members: Sequence[Operation]) -> Operation | None:
        """The first op behind the members that may join them."""
        users = {u for m in members for u in _users(m.results[0])} - set(members)
        # What else a user reads may join beside it: the other arm of a select, say.
        arms = {v.owner for u in users if isinstance(u, kern.CHAIN) for v in u.operands} - users - set(members)
        computed = {op for op in arms if isinstance(op, kern.CHAIN) and not isinstance(op, qnn.DequantizeOp)}
        for found in (users, {op for op in computed if _only_user(op.results[0])}):
            ready = [u for u in found if u in self.order and u not in self.done and self._joins(root, members, u)]
            if ready:
                return min(ready, key=self.order.__getitem__)
        return None

    def _joins(self, root: Operation, members: Sequence[Operation], op: Operation) -> bool:
        if not self._may_join(root, op):
            return False
        # A pool, product or reduction starts anew: what follows has its shape and reads nothing from before it.
        cut = next((m for m in members[1:] if isinstance(m, RESHAPING)), None)
        inside = set(members)
        if isinstance(op, kern.POOLS):
            return cut is None and self._pool_joins(root, op)
        if isinstance(op, qnn.MatmulOp):
            return cut is None and self._product_joins(root, members, op)
        if isinstance(op, kern.ROWS):
            return cut is None and self._row_joins(root, members, op)
        if not isinstance(op, kern.CHAIN) or shape_of(op.results[0]) != shape_of((cut or root).results[0]):
            return False
        if cut is not None:
            inside = {m for m in members if self.order[m] >= self.order[cut]}
        return all(v.owner in inside or self._is_ready(v, set(members)) for v in op.operands)

    def _row_joins(self, root: Operation, members: Sequence[Operation], op: Operation) -> bool:
        """A softmax behind a product whose rows the accumulators hold, any row operation behind elementwise ops."""
        if any(isinstance(m, kern.ROWS) for m in members) or row_input(op).owner not in members:
            return False
        if isinstance(root, kern.ANCHORS):
            short = self.options.row_elements is None or row_length(op) <= self.options.row_elements
            return isinstance(root, qnn.MatmulOp) and isinstance(op, qnn.SoftmaxOp) and short and self._holds(root.b)
        return shape_of(row_input(op)) == shape_of(root.results[0])

    def _product_joins(self, root: Operation, members: Sequence[Operation], op: qnn.MatmulOp) -> bool:
        """Attention: the product of what a softmax of the first product was quantized to, and a stored operand."""
        return (
            isinstance(root, qnn.MatmulOp)
            and any(isinstance(m, qnn.SoftmaxOp) for m in members)
            and isinstance(op.a.owner, qnn.QuantizeOp)
            and op.a.owner in members
            and op.a.uses.get_length() == 1
            and self._is_ready(op.b, set(members))
            and self._holds(root.b, op.b)
        )

    def _holds(self, *factors: SSAValue) -> bool:
        """Whether the SRAM holds these factors of one image side by side."""
        most = self.options.factor_bytes
        return most is None or sum(map(image_bytes, factors)) <= most

    def _pool_joins(self, root: Operation, op: Operation) -> bool:
        value = op.operands[0]
        return (
            self.options.pool
            and isinstance(root, kern.MATRIX)
            and isinstance(op, (qnn.MaxPool2dOp, qnn.AvgPool2dOp))
            and isinstance(value.owner, qnn.QuantizeOp)
            and int_type(value).width.data == 8  # what the window reduction takes
            and value.uses.get_length() == 1
            and (self.options.pool_taps is None or _taps(op) <= self.options.pool_taps)
        )

    def _is_ready(self, value: SSAValue, members: set[Operation]) -> bool:
        owner = value.owner
        if owner in members:
            return False
        if isinstance(owner, qnn.DequantizeOp) and owner not in self.done:
            return self._is_ready(owner.input, members)
        return not isinstance(owner, Operation) or owner in self.done or isinstance(owner, qnn.ConstantOp)

    def _may_join(self, root: Operation, op: Operation) -> bool:
        if not self.options.fuse and not self.options.groups:
            return False
        first, second = self.groups_of.get(_node(root)), self.groups_of.get(_node(op))
        if first is None and second is None:
            return self.options.fuse
        shared = (first or set()) & (second or set())
        # A node that several groups name was cut between its own ops.
        return len(shared) == 1 or (len(shared) > 1 and _node(root) != _node(op))

    def _check_groups(self) -> None:
        """ScheduleError unless each wanted group is in one kernel; nodes that have no op any more are free."""
        free = (qnn.ConstantOp, qnn.DequantizeOp, ReturnOp)
        known = {_node(op) for op in self.order if not isinstance(op, free)}
        formed = [{o.node for m in group.members for o in location.origins(m)} for group in self.groups]
        holders: dict[str, list[int]] = {}
        for i, group in enumerate(formed):
            for node in group:
                holders.setdefault(node, []).append(i)
        for wanted in self.options.groups:
            nodes = [node for node in wanted if node in known]
            held = Counter(i for node in nodes for i in holders[node])
            best = min(held, key=lambda i: (-held[i], i), default=0)
            if held[best] < len(nodes):
                group = formed[best]
                outside = next(n for n in nodes if n not in group)
                raise ScheduleError(
                    f"kernel of nodes {', '.join(wanted)}: {outside} cannot be fused with "
                    f"{', '.join(n for n in nodes if n in group)}; a kernel is one anchor and the elementwise ops "
                    "that only it feeds: split the group there"
                )


def _node(op: Operation) -> str:
    origin = location.origin(op)
    return origin.node if origin is not None else ""


def _taps(pool: qnn.MaxPool2dOp | qnn.AvgPool2dOp) -> int:
    """Elements between the first and the last tap of a window, and those."""
    spread = pool.dilation.data if isinstance(pool, qnn.MaxPool2dOp) else (1, 1)
    return prod((k - 1) * d + 1 for k, d in zip(pool.kernel.data, spread, strict=True))


def _users(value: SSAValue) -> Iterator[Operation]:
    return (use.operation for use in value.uses)


def _only_user(value: SSAValue) -> Operation | None:
    users = list(_users(value))
    return users[0] if len(users) == 1 else None


def _live_out(members: Sequence[Operation]) -> list[SSAValue]:
    inside = set(members)
    return [m.results[0] for m in members if any(u not in inside for u in _users(m.results[0]))]


def _inputs(members: Sequence[Operation]) -> list[SSAValue]:
    """What members read from outside, once each: the codes behind dequantizes, but copies read what is stored."""
    inside = set(members)
    values = [v for m in members for v in m.operands if v.owner not in inside]
    if isinstance(members[0], kern.COPIES):
        return values
    return list(dict.fromkeys(v.owner.input if isinstance(v.owner, qnn.DequantizeOp) else v for v in values))


def _check(group: Group) -> None:
    """ProgramError when the chain of a group does not fit its vector programs."""
    members = group.members
    leaves = Leaves({v: i for i, v in enumerate(_inputs(members))}, constant_of)
    anchor = members[0] if isinstance(members[0], kern.ANCHORS) else None
    chain = list(members[1:] if anchor is not None else members)
    pool = next((m for m in chain if isinstance(m, (*kern.POOLS, qnn.MatmulOp))), None)
    seed = None if anchor is None else anchor_seed(anchor, leaves)
    slots = 0
    if pool is not None:
        cut = chain.index(pool)
        slots = _check_chain(chain[:cut], pool.operands[0], leaves, anchor, seed, isinstance(pool, qnn.MatmulOp))
        chain, anchor, seed = chain[cut + 1 :], pool, anchor_seed(pool, leaves)
    slots += _check_chain(chain, group.result, leaves, anchor, seed, isinstance(pool, qnn.MatmulOp))
    if slots > SLOTS:
        raise ProgramError(f"the programs of a kernel have at most {SLOTS} slots, these need {slots}")


def _check_chain(
    ops: Sequence[Operation],
    result: SSAValue,
    leaves: Leaves,
    anchor: Operation | None,
    seed: Seed | None,
    uniform: bool = False,
) -> int:
    """Slots of the programs of a chain; ``uniform`` forbids parameter vectors (the two products differ in channels)."""
    chain = cut_at_rows(ops, result)
    swept: list[tuple[VectorProgram, tuple[int, ...]]] = []
    if chain is None:
        program = vectorize(ops, result, leaves, seed)
    else:
        stages, program = row_programs(chain, leaves, seed)
        swept = [(stage.program, shape_of(row_input(chain.op))) for stage in stages]
    values = list(leaves.operands)
    for each, shape in (*swept, (program, shape_of(result))):
        if uniform and each.params:
            raise ProgramError("a kernel of two products has no per-channel vectors")
        for stream in each.streams:
            if stream.operand is not None and stream.operand >= 0:
                value = values[stream.operand]
                known = constant_of(value) is not None
                stream_shape(shape_of(value), shape, folded_shape(anchor), known)
    return sum(len(each.ops) for each, _ in swept) + len(program.ops)


def _emit(block: Block, groups: Sequence[Group]) -> None:
    """Replace the qnn ops of ``block``, constants aside, by the ops of ``groups``."""
    old = [op for op in block.ops if not isinstance(op, (qnn.ConstantOp, ReturnOp))]
    end = block.last_op
    assert isinstance(end, ReturnOp), "a function ends in func.return"
    stored: dict[SSAValue, SSAValue] = {}
    names = _Names()
    for group in groups:
        op = _build(group, stored, names(group))
        op.location = location.fuse(group.members)
        block.insert_op_before(op, end)
        stored[group.result] = op.results[0]
    for i, value in enumerate(end.operands):
        end.operands[i] = stored.get(value, value)
    for op in reversed(old):
        op.detach()
        op.erase()


def _build(group: Group, stored: dict[SSAValue, SSAValue], name: str) -> Operation:
    first = group.members[0]
    if isinstance(first, qnn.ConcatOp):
        inputs = [stored.get(v, v) for v in first.inputs]
        return kern.ConcatOp(name, inputs, first.axis.value.data, first.output.type)
    inputs = _inputs(group.members)
    body = Block(arg_types=[v.type for v in inputs])
    inner: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for op in group.members:
        for value in op.operands:
            if value not in inner and isinstance(value.owner, qnn.DequantizeOp):
                inner[value] = _clone(value.owner, inner, body)
        inner[op.results[0]] = _clone(op, inner, body)
    body.add_op(kern.YieldOp(inner[group.result]))
    kind = kern.ViewOp if kern.is_view(group.members) else kern.KernelOp
    return kind(name, [stored.get(v, v) for v in inputs], body, group.result.type)


def _clone(op: Operation, values: dict[SSAValue, SSAValue], body: Block) -> SSAValue:
    copy = op.clone(value_mapper=dict(values))
    body.add_op(copy)
    return copy.results[0]


class _Names:
    """The FX node of a group's first op, or the op's name; numbered where it was used before."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def __call__(self, group: Group) -> str:
        first = group.members[0]
        name = _node(first) or first.name.removeprefix("qnn.")
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return name if not count else f"{name}.{count}"
