//! Which header fields a program reads, so that a translation extracts no others.

use super::super::load::Load;
use super::super::program::{Action, AddressField, Key, Node, Operand, Program, Spread, Step};

/// The header fields that a program reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeaderFields {
    pub(crate) src: bool,
    pub(crate) dst: bool,
    pub(crate) ports: bool,
}

impl HeaderFields {
    pub(crate) fn of(program: &Program) -> Self {
        let mut fields = HeaderFields::default();
        for node in &program.nodes {
            match node {
                Node::Range { value, .. } | Node::Set { value, .. } => fields.add_operand(program, *value),
                Node::Compare { left, right, .. } => {
                    fields.add_operand(program, *left);
                    fields.add_operand(program, *right);
                }
                Node::Switch { load, .. } => fields.add_load(*load),
                Node::Address { which, .. } => fields.add_address(*which),
                Node::SameAddress { .. } => (fields.src, fields.dst) = (true, true),
                Node::Do { action: Action::Spread { by, .. }, .. } => fields.add_spread(program, by),
                Node::Do { .. } | Node::Goto(_) | Node::Bytes { .. } => {}
            }
        }
        fields
    }

    fn add_all(&mut self) {
        *self = HeaderFields { src: true, dst: true, ports: true };
    }

    fn add_address(&mut self, which: AddressField) {
        match which {
            AddressField::Src => self.src = true,
            AddressField::Dst => self.dst = true,
        }
    }

    fn add_load(&mut self, load: Load) {
        self.ports |= matches!(load, Load::SrcPort | Load::DstPort);
    }

    fn add_operand(&mut self, program: &Program, value: Operand) {
        match value {
            Operand::Load(load) => self.add_load(load),
            Operand::Code(code) => {
                for step in code.of(&program.steps) {
                    if let Step::Load(load) | Step::With(_, load) = step {
                        self.add_load(*load);
                    }
                }
            }
        }
    }

    fn add_spread(&mut self, program: &Program, by: &Spread) {
        match by {
            Spread::Mod(value) => self.add_operand(program, *value),
            Spread::HashFlow => self.add_all(),
            Spread::HashLoad(load) => self.add_load(*load),
            Spread::Hash(keys) => {
                for key in keys.of(&program.keys) {
                    match key {
                        Key::Number(value) => self.add_operand(program, *value),
                        Key::Address(which) => self.add_address(*which),
                        Key::Flow => self.add_all(),
                        Key::Bytes { .. } => {}
                    }
                }
            }
            Spread::RoundRobin { .. } | Spread::Random | Spread::Cpu | Spread::RxQueue => {}
        }
    }
}
