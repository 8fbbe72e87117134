"""Finds the blocks of an ONNX graph by what repeats in it, never by what its nodes are called.

A transformer's block is one attention core (two MatMuls of activations around a Softmax) and the weight GEMMs that belong to it:
those that feed the core directly (q, k, v), and those that come after it and before the next core is fed (out, fc, proj). A
convolutional trunk's block is the convolutions between a tensor and the sum in which its two ways meet again. An attention that
makes one token of many after the last block belongs to no block: it pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.judge.residual import ResidualBlock, Trunk, find_trunk
from harness.records.graph import OnnxConstant, OnnxGraph, OnnxNode

QUANTIZE = frozenset({"QuantizeLinear", "TRT_FP8QuantizeLinear"})
DEQUANTIZE = frozenset({"DequantizeLinear", "TRT_FP8DequantizeLinear"})
QDQ = QUANTIZE | DEQUANTIZE

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})  # what TensorRT can compute in FP8
_GEMMS = frozenset({"MatMul", "Gemm"})
# Nodes that move or retype numbers without computing new ones; a walk may pass them.
MOVES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Between scores and Softmax: the scaling, and the additive mask.
_SCORES = MOVES | QDQ | {"Add", "Div", "Mul"}

# A tensor's shape says nothing about its numbers: a walk along numbers ends there.
_SHAPES = frozenset({"Shape", "Size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGemm:
    """A MatMul, Gemm or Conv with constant weights.

    Attributes:
        activation, weight: names of its two operand tensors.
        constant: the initializer at the end of the weight operand's chain.
    """

    node: OnnxNode
    activation: str
    weight: str
    constant: OnnxConstant


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Scores MatMul, Softmax and context MatMul of one attention."""

    scores: OnnxNode
    softmax: OnnxNode
    context: OnnxNode

    @property
    def node_names(self) -> frozenset[str]:
        """The three nodes that a fused attention layer must carry."""
        return frozenset({self.scores.name, self.softmax.name, self.context.name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block.

    Attributes:
        core: its attention; None in a block of convolutions.
        gemms: its products with weights: MatMul and Gemm of a transformer's block, Conv of a convolutional one.
    """

    index: int
    core: AttentionCore | None
    gemms: tuple[WeightGemm, ...]

    @property
    def product_names(self) -> tuple[str, ...]:
        """Its products with weights, and the three nodes of its attention."""
        return (*(gemm.node.name for gemm in self.gemms), *(self.core.node_names if self.core is not None else ()))


class GraphView:
    """An `OnnxGraph` with the questions that structure asks of it."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph

    @cached_property
    def producers(self) -> Mapping[str, OnnxNode]:
        """Tensor name to the node that makes it."""
        return {output: node for node in self.graph.nodes for output in node.outputs if output}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[OnnxNode, ...]]:
        """Tensor name to the nodes that read it."""
        found: dict[str, list[OnnxNode]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def readers(self, tensor: str) -> tuple[OnnxNode, ...]:
        """The nodes that compute with `tensor`, past those that only move or retype it."""
        found: dict[str, OnnxNode] = {}
        pending = [tensor]
        while pending:
            for node in self.consumers.get(pending.pop(), ()):
                if node.op_type in MOVES:
                    pending.extend(node.outputs)
                else:
                    found[node.name] = node
        return tuple(found.values())

    def dequantized(self, tensor: str) -> OnnxNode | None:
        """The DequantizeLinear that `tensor` is a moved or retyped output of."""
        node = self.source(tensor, MOVES)
        return node if node is not None and node.op_type in DEQUANTIZE else None

    def is_quantized(self, node: OnnxNode) -> tuple[bool, bool]:
        """For each operand of a product, whether it ends at a DequantizeLinear."""
        first, second = (self.dequantized(tensor) is not None for tensor in node.inputs[:2])
        return first, second

    @cached_property
    def of_type(self) -> Mapping[str, tuple[OnnxNode, ...]]:
        """Operator to the nodes of that operator, in graph order."""
        found: dict[str, list[OnnxNode]] = {}
        for node in self.graph.nodes:
            found.setdefault(node.op_type, []).append(node)
        return {op_type: tuple(nodes) for op_type, nodes in found.items()}

    def of_types(self, op_types: frozenset[str]) -> tuple[OnnxNode, ...]:
        """The nodes of these operators, in the order of the operators' names."""
        return tuple(node for op_type in sorted(op_types) for node in self.of_type.get(op_type, ()))

    @cached_property
    def _block_of_product(self) -> Mapping[str, int]:
        return {name: block.index for block in self.blocks for name in block.product_names}

    def block_of(self, node: OnnxNode) -> int | None:
        """Index of the block that a product, or a Q/DQ or moving node before one, belongs to; None when it belongs to none."""
        pending, seen = [node], {node.name}
        while pending:
            node = pending.pop()
            if node.name in self._block_of_product:
                return self._block_of_product[node.name]
            if node.op_type in MOVES | QDQ:
                after = [reader for output in node.outputs for reader in self.consumers.get(output, ()) if reader.name not in seen]
                seen.update(reader.name for reader in after)
                pending.extend(after)
        return None

    @cached_property
    def by_name(self) -> Mapping[str, OnnxNode]:
        """Node name to node."""
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def op_types(self) -> Mapping[str, str]:
        """Node name to operator."""
        return {node.name: node.op_type for node in self.graph.nodes}

    def source(self, tensor: str, passing: frozenset[str]) -> OnnxNode | None:
        """The first node upstream of `tensor` that is not one of `passing`, following first inputs."""
        node = self.producers.get(tensor)
        while node is not None and node.op_type in passing and node.inputs:
            node = self.producers.get(node.inputs[0])
        return node

    def constant_behind(self, tensor: str) -> OnnxConstant | None:
        """The initializer that `tensor` is a moved or de-quantized form of; None when it is computed."""
        node = self.producers.get(tensor)
        while node is not None and node.op_type in MOVES | QDQ and node.inputs:
            tensor = node.inputs[0]
            node = self.producers.get(tensor)
        return self.graph.constants.get(tensor) if node is None or node.op_type == "Constant" else None

    @cached_property
    def weight_gemms(self) -> Mapping[str, WeightGemm]:
        """Node name to weight GEMM, in graph order."""
        return {node.name: gemm for node in self.graph.nodes if (gemm := self._weight_gemm(node)) is not None}

    @cached_property
    def weight_products(self) -> Mapping[str, WeightGemm]:
        """Node name to weight GEMM or convolution, in graph order."""
        found = ((node.name, self.weight_gemms.get(node.name) or self._convolution(node)) for node in self.graph.nodes)
        return {name: product for name, product in found if product is not None}

    def _convolution(self, node: OnnxNode) -> WeightGemm | None:
        if node.op_type != "Conv" or len(node.inputs) < 2:
            return None
        constant = self.constant_behind(node.inputs[1])
        return WeightGemm(node=node, activation=node.inputs[0], weight=node.inputs[1], constant=constant) if constant else None

    def _weight_gemm(self, node: OnnxNode) -> WeightGemm | None:
        if node.op_type not in _GEMMS or len(node.inputs) < 2:
            return None
        constants = [self.constant_behind(name) for name in node.inputs[:2]]
        if (constants[0] is None) == (constants[1] is None):
            return None  # two activations, or two constants: neither is an activation times a weight
        side = 0 if constants[0] is not None else 1
        constant = constants[side]
        assert constant is not None  # for the type checker: `side` is the one that is not None
        return WeightGemm(node=node, activation=node.inputs[1 - side], weight=node.inputs[side], constant=constant)

    @cached_property
    def cores(self) -> tuple[AttentionCore, ...]:
        """Attention cores, in graph order."""
        softmaxes = (node for node in self.graph.nodes if node.op_type == "Softmax")
        return tuple(core for softmax in softmaxes if (core := self._core(softmax)) is not None)

    def _core(self, softmax: OnnxNode) -> AttentionCore | None:
        scores = self._activation_gemm_before(softmax.inputs[0])
        context = next(self._activation_gemms_after(softmax.outputs[0]), None)
        if scores is None or context is None:
            return None
        return AttentionCore(scores=scores, softmax=softmax, context=context)

    def _activation_gemm_before(self, tensor: str) -> OnnxNode | None:
        pending = [tensor]
        while pending:
            node = self.producers.get(pending.pop())
            if node is None:
                continue
            if node.op_type == "MatMul" and node.name not in self.weight_gemms:
                return node
            if node.op_type in _SCORES:
                pending.extend(node.inputs)
        return None

    def _activation_gemms_after(self, tensor: str) -> Iterator[OnnxNode]:
        for node in self.consumers.get(tensor, ()):
            if node.op_type == "MatMul" and node.name not in self.weight_gemms:
                yield node
            elif node.op_type in MOVES | QDQ:
                yield from self._activation_gemms_after(node.outputs[0])

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks of the tower, in graph order; what lies before the first and after the last belongs to none."""
        if self._trunk is not None:
            return tuple(self._block_of_convolutions(index, block) for index, block in enumerate(self._trunk.blocks))
        found = self._attentions
        return found[:-1] if self.pooling is not None else found

    @property
    def attention_blocks(self) -> tuple[tuple[Block, AttentionCore], ...]:
        """The blocks that have an attention, each with it."""
        return tuple((block, block.core) for block in self.blocks if block.core is not None)

    @property
    def pooling(self) -> AttentionCore | None:
        """The attention that pools the last block's tokens, where the tower has one."""
        return self._pooling.core if self._pooling is not None else None

    @cached_property
    def pooling_products(self) -> frozenset[str]:
        """Names of that attention's nodes, and of the weight GEMMs that belong to it as a block's belong to a block."""
        return frozenset(self._pooling.product_names) if self._pooling is not None else frozenset()

    @cached_property
    def _pooling(self) -> Block | None:
        """The last attention, when it pools: after a convolutional trunk, or with queries that no input reaches, since they are learned.

        That its weights have other shapes than the blocks' does not make it one: a block that lost a layer has them too.
        """
        *before, last = self._attentions or (None,)
        pools = last is not None and (self._trunk is not None or (bool(before) and self._has_learned_queries(self.cores[-1])))
        return last if pools else None

    def _has_learned_queries(self, core: AttentionCore) -> bool:
        inputs = {port.name for port in self.graph.inputs}
        pending, seen = [core.scores.inputs[0]], set[str]()
        while pending:
            tensor = pending.pop()
            node = self.producers.get(tensor)
            if tensor in inputs:
                return False
            if node is not None and node.name not in seen and node.op_type not in _SHAPES:
                seen.add(node.name)
                pending.extend(node.inputs)
        return True

    @cached_property
    def _trunk(self) -> Trunk | None:
        return find_trunk(self.graph.nodes, self.producers) if len(self.cores) < 2 else None

    def _block_of_convolutions(self, index: int, block: ResidualBlock) -> Block:
        gemms = (self.weight_products.get(node.name) for node in block.convolutions)
        return Block(index=index, core=None, gemms=tuple(gemm for gemm in gemms if gemm is not None))

    @cached_property
    def _attentions(self) -> tuple[Block, ...]:
        before = [self._gemms_feeding(core) for core in self.cores]
        feeding = {gemm.node.name for gemms in before for gemm in gemms}
        after = self._gemms_after_cores(feeding)
        if len(after) > 1:
            after[-1] = after[-1][: len(after[0])]  # what the last block has beyond the first one's is the head
        return tuple(Block(index=index, core=core, gemms=(*before[index], *after[index])) for index, core in enumerate(self.cores))

    @cached_property
    def irregularity(self) -> str | None:
        """Why the blocks cannot all have been found, in words; None when they repeat as blocks do.

        A block whose attention is not recognised would otherwise vanish from every count that the graph itself sets.
        """
        if self._trunk is not None:
            return self._odd_convolution(self._trunk)
        shapes = [_shapes_of(block) for block in self.blocks]
        odd = next((index for index, found in enumerate(shapes) if found != shapes[0]), None)
        if odd is not None:
            return f"block {odd} has {len(shapes[odd])} weight GEMMs of other shapes than block 0's {len(shapes[0])}"
        placed = {gemm.node.name for block in self._attentions for gemm in block.gemms}
        left = [name for name in self.weight_gemms if name not in placed]
        if shapes and len(left) >= len(shapes[0]):
            return f"{len(left)} weight GEMMs belong to no block, first {left[0]}: as many as a block has"
        return None

    def _odd_convolution(self, trunk: Trunk) -> str | None:
        if trunk.strays:
            return f"{len(trunk.strays)} convolutions after the first block belong to none, first {trunk.strays[0].name}"
        convolutions = (node for block in trunk.blocks for node in block.convolutions)
        bare = next((node.name for node in convolutions if node.name not in self.weight_products), None)
        return f"the convolution {bare} has no constant weight" if bare is not None else None

    def _gemms_feeding(self, core: AttentionCore) -> tuple[WeightGemm, ...]:
        """Weight GEMMs from which the core is reached without passing another weight GEMM."""
        found: dict[str, WeightGemm] = {}
        seen: set[str] = set()
        pending = [*core.scores.inputs, *core.context.inputs]
        while pending:
            tensor = pending.pop()
            node = self.producers.get(tensor)
            if node is None or tensor in seen or node.op_type in _SHAPES:
                continue
            seen.add(tensor)
            if node.name in self.weight_gemms:
                found[node.name] = self.weight_gemms[node.name]
            else:
                pending.extend(node.inputs)
        return tuple(gemm for name, gemm in self.weight_gemms.items() if name in found)

    def _gemms_after_cores(self, feeding: set[str]) -> list[list[WeightGemm]]:
        """For each core, the weight GEMMs that have it as their last core upstream, without those that feed the next."""
        depth: dict[str, int] = {}
        ends = {core.context.name for core in self.cores}
        after: list[list[WeightGemm]] = [[] for _ in self.cores]
        for node in self.graph.nodes:
            cores_upstream = max((depth.get(name, 0) for name in node.inputs), default=0) + (node.name in ends)
            depth.update(dict.fromkeys(node.outputs, cores_upstream))
            if cores_upstream and node.name in self.weight_gemms and node.name not in feeding:
                after[cores_upstream - 1].append(self.weight_gemms[node.name])
        return after


def _shapes_of(block: Block) -> list[tuple[int, ...]]:
    """Shapes of a block's weights, whichever way round and in whichever order an exporter stores them."""
    return sorted(tuple(sorted(gemm.constant.shape)) for gemm in block.gemms)
