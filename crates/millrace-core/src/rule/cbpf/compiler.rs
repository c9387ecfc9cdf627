//! The state of a translation: the assembler, and what is known at the current point of the program.

use super::super::kernel::{HeaderFields, NodeLabels, Reason};
use super::super::program::{NodeId, Program};
use super::layout::{Layout, SCRATCH_WORDS};
use super::target::CbpfTarget;
use crate::bpf::classic::{Assembler, Label, code};

pub(super) struct Compiler<'p> {
    pub(super) program: &'p Program,
    pub(super) a: Assembler,
    pub(super) layout: Layout,
    pub(super) labels: NodeLabels<Label>,
    /// Payload bytes that every path to the current point has checked to be there.
    pub(super) min_len: u32,
    /// Scratch words in use. They are allocated as a stack, above the layout's.
    pub(super) scratch_used: u32,
    /// The label to which the prologue sends packets without a queue, and the program's result for them.
    pub(super) no_datagram: Option<(Label, u32)>,
    /// X holds the offset of the UDP header.
    pub(super) x_is_udp_offset: bool,
}

impl<'p> Compiler<'p> {
    pub(super) fn new(program: &'p Program, target: CbpfTarget) -> Self {
        let (layout, scratch_used) = Layout::new(target, HeaderFields::of(program));
        let mut compiler = Compiler {
            program,
            a: Assembler::default(),
            layout,
            labels: NodeLabels::new(program.nodes.len()),
            min_len: 0,
            scratch_used,
            no_datagram: None,
            x_is_udp_offset: false,
        };
        // The prologue ends where the first node begins.
        compiler.label_for(0);
        compiler
    }

    /// The label for a jump from here to a node.
    pub(super) fn label_for(&mut self, node: NodeId) -> Label {
        self.label_for_len(node, self.min_len)
    }

    /// The label for a jump to a node that is only taken when the payload has at least `min_len` bytes.
    pub(super) fn label_for_len(&mut self, node: NodeId, min_len: u32) -> Label {
        self.labels.jump_to(node, min_len, || self.a.label())
    }

    pub(super) fn goto(&mut self, node: NodeId) {
        let to = self.label_for(node);
        self.a.goto(to);
    }

    /// Places a label here. Other paths lead here too, and may have left anything in X.
    pub(super) fn place(&mut self, label: Label) {
        self.a.place(label);
        self.x_is_udp_offset = false;
    }

    /// X ← A
    pub(super) fn tax(&mut self) {
        self.a.op(code::TAX, 0);
        self.x_is_udp_offset = false;
    }

    /// Allocates a scratch word, until [`Compiler::free`].
    pub(super) fn alloc(&mut self) -> Result<u32, Reason> {
        if self.scratch_used == SCRATCH_WORDS {
            return Err(format!(
                "it needs more intermediate results than fit beside the header fields in {SCRATCH_WORDS} words of scratch memory"
            ));
        }
        self.scratch_used += 1;
        Ok(self.scratch_used - 1)
    }

    /// A newly allocated scratch word ← A
    pub(super) fn save(&mut self) -> Result<u32, Reason> {
        let slot = self.alloc()?;
        self.a.op(code::ST, slot);
        Ok(slot)
    }

    /// Frees the scratch word that was allocated last.
    pub(super) fn free(&mut self) {
        self.scratch_used -= 1;
    }
}
