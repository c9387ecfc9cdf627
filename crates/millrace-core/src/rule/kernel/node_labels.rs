//! Labels for the nodes of a program in its translation, and what is known there about the payload's length.

use super::super::program::NodeId;

/// The label of each node that is reached, with the shortest payload that can arrive there.
///
/// This is a forward data-flow analysis whose meet is the minimum over all predecessors. One pass is enough: edges only point
/// forward, so all predecessors of a node have been translated before it.
pub(crate) struct NodeLabels<L> {
    /// Label, and payload bytes that are there on every path so far. `None` for a node that no path leads to yet.
    nodes: Vec<Option<(L, u32)>>,
}

impl<L: Copy> NodeLabels<L> {
    pub(crate) fn new(nodes: usize) -> Self {
        NodeLabels { nodes: vec![None; nodes] }
    }

    /// The label for a jump to the node, from a point where the payload has at least `min_len` bytes. `make` makes the label at
    /// the first jump.
    pub(crate) fn jump_to(&mut self, node: NodeId, min_len: u32, make: impl FnOnce() -> L) -> L {
        // A node that does not exist gets a label that is never placed, which the assemblers refuse.
        let Some(known) = self.nodes.get_mut(node as usize) else { return make() };
        let (label, least) =
            known.map_or_else(|| (make(), min_len), |(label, least)| (label, least.min(min_len)));
        *known = Some((label, least));
        label
    }

    /// The node's label and the shortest payload that arrives there; `None` when no path leads to it.
    pub(crate) fn entry(&self, node: usize) -> Option<(L, u32)> {
        self.nodes.get(node).copied().flatten()
    }
}
