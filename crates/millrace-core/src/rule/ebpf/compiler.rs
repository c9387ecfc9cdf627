//! The state of a translation: the assembler, and what is known at the current point of the program.

use super::super::kernel::NodeLabels;
use super::super::program::{NodeId, Program};
use crate::bpf::ebpf::{Assembler, Label};

/// How the program reads packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It calls `bpf_skb_load_bytes_relative`, with offsets from the network header.
    Relative,
    /// Through a pointer, which is compared with the end of the frame first, as the verifier demands.
    Direct,
}

pub(super) struct Compiler<'a, 'p> {
    pub(super) program: &'p Program,
    pub(super) a: &'a mut Assembler,
    pub(super) access: Access,
    pub(super) labels: NodeLabels<Label>,
    /// Payload bytes that every path to the current point has checked to be there.
    pub(super) min_len: u32,
    /// The label at which the program continues when a load fails although the length said it would not, and for packets
    /// without a queue.
    pub(super) no_datagram: Label,
    /// For early drops: the first node that is not translated, and where a jump to it or any later node leads instead.
    pub(super) exit: Option<(NodeId, Label)>,
    /// For early drops: the rules that drop, and the label where each drop is counted.
    pub(super) drops: Vec<(u16, Label)>,
}

impl<'a, 'p> Compiler<'a, 'p> {
    pub(super) fn new(
        a: &'a mut Assembler,
        program: &'p Program,
        access: Access,
        no_datagram: Label,
    ) -> Self {
        let labels = NodeLabels::new(program.nodes.len());
        let mut compiler =
            Compiler { program, a, access, labels, min_len: 0, no_datagram, exit: None, drops: Vec::new() };
        // The first node begins where the headers are found.
        compiler.label_for(0);
        compiler
    }

    /// The label for a jump from here to a node.
    pub(super) fn label_for(&mut self, node: NodeId) -> Label {
        self.label_for_len(node, self.min_len)
    }

    /// The label for a jump to a node that is only taken when the payload has at least `min_len` bytes.
    pub(super) fn label_for_len(&mut self, node: NodeId, min_len: u32) -> Label {
        match self.exit {
            Some((from, exit)) if node >= from => exit,
            _ => self.labels.jump_to(node, min_len, || self.a.label()),
        }
    }

    pub(super) fn goto(&mut self, node: NodeId) {
        let to = self.label_for(node);
        self.a.jump(to);
    }
}
