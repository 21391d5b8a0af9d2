"""A BERT encoder layer as ONNX graphs: in 32-bit floats, and with its big matrix products in 8-bit integers.

Weights take 7 bits a value, one scale for each output; activations 8 bits, one scale for each product. The few columns
whose activations are far larger than the others', which would spoil that scale, are multiplied in floats (Dettmers et
al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022). Seven bits of weight, because a
processor without VNNI adds two products in 16 bits, where those of 8 by 8 bits overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from knowledge_base.stored import FloatArray

WEIGHT_STEPS = 63
WIDE_INPUTS = 8
WIDE_INNER = 16
"""Columns multiplied in floats: of a layer's input, and of its inner layer, whose outliers lie further out."""
MICROSOFT = "com.microsoft"
"""Operators of onnxruntime beyond the standard."""

Integers = NDArray[np.int64]


@dataclass(slots=True)
class Graph:
    """Collects the nodes and constants of an ONNX graph."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        names = [f"n{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def session(self, source: str, results: Sequence[str], width: int) -> onnxruntime.InferenceSession:
        shape = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [shape(source, TensorProto.FLOAT, ["tokens", width])],
            [shape(name, TensorProto.FLOAT, None) for name in results],
            self.constants,
        )
        operators = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=operators)
        model.ir_version = 10
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class Linear:
    """``weight`` has shape (inputs, outputs)."""

    weight: FloatArray
    bias: FloatArray

    def outputs(self, chosen: Integers) -> Linear:
        return Linear(self.weight[:, chosen], self.bias[chosen])


@dataclass(frozen=True, slots=True)
class Norm:
    gain: FloatArray
    bias: FloatArray
    epsilon: float

    def build(self, graph: Graph, value: str) -> str:
        gain, bias = graph.constant(self.gain), graph.constant(self.bias)
        return str(graph.add("LayerNormalization", value, gain, bias, axis=-1, epsilon=self.epsilon))


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer: self-attention and the inner (feed-forward) layer, each added to its input and normalised."""

    heads: int
    attention: Linear
    attended: Linear
    attended_norm: Norm
    inner: Linear
    outer: Linear
    outer_norm: Norm

    def in_floats(self) -> onnxruntime.InferenceSession:
        """Tokens in; out: tokens, then what enters the attention's result and the two halves of the inner layer."""
        graph = Graph()
        mixed = self._attention(graph, in_floats(graph, "tokens", self.attention))
        middle = self._added(graph, in_floats(graph, mixed, self.attended), "tokens", self.attended_norm)
        inner = graph.add("Gelu", in_floats(graph, middle, self.inner), domain=MICROSOFT)
        out = self._added(graph, in_floats(graph, inner, self.outer), middle, self.outer_norm)
        return graph.session("tokens", [out, middle, inner], len(self.outer.bias))

    def add_in_integers(
        self, graph: Graph, source: str, tokens: FloatArray, middle: FloatArray, inner: FloatArray
    ) -> str:
        """The same with integer products, put into ``graph`` behind ``source``; gives the name of what comes out.

        The arrays are activations of samples, shapes (tokens, columns).
        """
        mixed = self._attention(graph, in_integers(graph, source, self.attention, widest(tokens, WIDE_INPUTS)))
        attended = in_integers(graph, mixed, self.attended, np.empty(0, dtype=np.int64))
        added = self._added(graph, attended, source, self.attended_norm)
        wide = widest(inner, WIDE_INNER)
        narrow = np.setdiff1d(np.arange(len(self.inner.bias)), wide)
        entering = in_integers(graph, added, self.inner.outputs(narrow), widest(middle, WIDE_INPUTS))
        narrow_inner = graph.add("Gelu", entering, domain=MICROSOFT)
        wide_inner = graph.add("Gelu", in_floats(graph, added, self.inner.outputs(wide)), domain=MICROSOFT)
        left = Linear(self.outer.weight[narrow], self.outer.bias)
        outer = in_integers(graph, narrow_inner, left, np.empty(0, dtype=np.int64))
        outer = graph.add("Gemm", wide_inner, graph.constant(self.outer.weight[wide]), outer)
        return self._added(graph, outer, added, self.outer_norm)

    def _attention(self, graph: Graph, projected: str) -> str:
        width = len(self.attended.bias)
        split = graph.constant(np.array([-1, self.heads, width // self.heads]))
        query, key, value = (
            graph.add("Transpose", graph.add("Reshape", part, split), perm=[1, 0, 2])
            for part in graph.add("Split", projected, outputs=3, axis=1, num_outputs=3)
        )
        scores = graph.add("FusedMatMul", query, key, domain=MICROSOFT, transB=1)
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        joined = graph.constant(np.array([-1, width]))
        return str(graph.add("Reshape", graph.add("Transpose", mixed, perm=[1, 0, 2]), joined))

    @staticmethod
    def _added(graph: Graph, value: str, to: str, norm: Norm) -> str:
        return norm.build(graph, graph.add("Add", value, to))


def in_floats(graph: Graph, value: str, linear: Linear) -> str:
    return str(graph.add("Gemm", value, graph.constant(linear.weight), graph.constant(linear.bias)))


def in_integers(graph: Graph, value: str, linear: Linear, wide: Integers) -> str:
    scale = np.maximum(np.abs(linear.weight).max(axis=0) / WEIGHT_STEPS, 1e-12).astype(np.float32)
    rounded = np.rint(linear.weight / scale).astype(np.int8)
    narrow = value
    if len(wide):
        mask = np.ones(len(linear.weight), dtype=np.float32)
        mask[wide] = 0.0
        narrow = graph.add("Mul", value, graph.constant(mask))
    constants = [graph.constant(each) for each in (rounded, scale, np.zeros(len(scale), np.int8), linear.bias)]
    product = graph.add("DynamicQuantizeMatMul", narrow, *constants, domain=MICROSOFT)
    if len(wide):
        chosen = graph.add("Gather", value, graph.constant(wide), axis=1)
        product = graph.add("Gemm", chosen, graph.constant(linear.weight[wide]), product)
    return str(product)


def widest(activations: FloatArray, count: int) -> Integers:
    """The columns with the largest values."""
    return np.sort(np.argsort(-np.abs(activations).max(axis=0))[:count]).astype(np.int64)
