//! The protocols of one flow, one inside the other.
//!
//! On the outermost layer every parser of the registry is tried. What a carrier
//! hands on begins the next layer, where all are tried again. When bytes that
//! come after something else look like the beginning of a protocol, it is tried
//! from there on, on the innermost layer.

use super::{Answer, Carried, Fact, Input, PROTOCOLS, Parser, Protocol, Side, Wants};

/// Layers in one another: a proxy's handshake, WebSocket, what is in it, and one to spare.
const LAYERS_MAX: usize = 4;

/// Follows one flow through its layers.
pub struct Layers {
    layers: Vec<Layer>,
}

/// Parsers that are fed the same bytes.
struct Layer {
    parsers: Vec<Tried>,
    found: Option<&'static str>,
}

struct Tried {
    protocol: &'static Protocol,
    parser: Box<dyn Parser>,
    found: bool,
}

impl Tried {
    fn new(protocol: &'static Protocol) -> Self {
        Self {
            protocol,
            parser: (protocol.parser)(),
            found: false,
        }
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            layers: vec![Layer::default()],
        }
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            parsers: PROTOCOLS.iter().map(Tried::new).collect(),
            found: None,
        }
    }
}

impl Layers {
    /// Takes the next part of one side's stream and adds what was noticed to `facts`.
    pub fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<Fact>) {
        self.feed_layer(0, side, input, facts);
    }

    /// Bytes of memory that unfinished messages take.
    pub fn held(&self) -> usize {
        let parsers = self.layers.iter().flat_map(|layer| &layer.parsers);
        parsers.map(|tried| tried.parser.held()).sum()
    }

    /// Gives up all that is tried; what was found stays so.
    pub fn let_go(&mut self) {
        for layer in &mut self.layers {
            layer.parsers = Vec::new();
        }
    }

    /// The innermost protocol that was found.
    pub fn protocol(&self) -> Option<&'static str> {
        self.layers.iter().rev().find_map(|layer| layer.found)
    }

    /// What can still be made use of. A parser that needs more wants bytes.
    pub fn wants(&self) -> Wants {
        let mut framed = false;
        let mut most = Wants::Nothing;
        for tried in self.layers.iter().flat_map(|layer| &layer.parsers) {
            most = most.max(match tried.parser.wants() {
                _ if !tried.found => Wants::Bytes,
                Wants::Segments if framed => Wants::Bytes,
                wants => wants,
            });
            framed |= tried.parser.is_framed();
        }
        most
    }

    /// Whether a parser follows its protocol and wants as much at least.
    pub fn is_followed(&self, wants: Wants) -> bool {
        let innermost = self
            .layers
            .last()
            .into_iter()
            .flat_map(|layer| &layer.parsers);
        let mut found = innermost.filter(|tried| tried.found);
        found.any(|tried| tried.parser.wants() >= wants)
    }

    /// Whether these bytes, which come after something else, may begin a
    /// protocol that is not tried now.
    pub fn may_begin(&self, bytes: &[u8]) -> bool {
        let innermost = self.layers.last();
        innermost.is_some_and(|layer| layer.may_begin(bytes).next().is_some())
    }

    /// Tries what these bytes may begin, from here on.
    pub fn begin_again(&mut self, bytes: &[u8]) {
        let Some(innermost) = self.layers.last_mut() else {
            return;
        };
        let mut new: Vec<Tried> = innermost.may_begin(bytes).map(Tried::new).collect();
        new.iter_mut().for_each(|tried| tried.parser.after_other());
        innermost.parsers.append(&mut new);
    }

    fn feed_layer(&mut self, depth: usize, side: Side, input: Input<'_>, facts: &mut Vec<Fact>) {
        let Some(layer) = self.layers.get_mut(depth) else {
            return;
        };
        for carried in layer.feed(side, input, facts) {
            if depth + 1 == LAYERS_MAX {
                return;
            }
            if depth + 1 == self.layers.len() {
                self.layers.push(Layer::default());
            }
            match &carried {
                Carried::Bytes(side, bytes) => {
                    self.feed_layer(depth + 1, *side, Input::Bytes(bytes), facts);
                }
                Carried::Skipped(side, bytes) => {
                    self.feed_layer(depth + 1, *side, Input::Skipped(*bytes), facts);
                }
                Carried::Gap(side) => self.feed_layer(depth + 1, *side, Input::Gap, facts),
            }
        }
    }
}

impl Layer {
    fn may_begin(&self, bytes: &[u8]) -> impl Iterator<Item = &'static Protocol> {
        PROTOCOLS.iter().filter(move |protocol| {
            let mut tried = self.parsers.iter();
            (protocol.begins)(bytes) && !tried.any(|tried| tried.protocol.name == protocol.name)
        })
    }

    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<Fact>) -> Vec<Carried> {
        let mut sole = None;
        let mut carried = Vec::new();
        self.parsers.retain_mut(|tried| {
            if sole.is_some() {
                return false;
            }
            let answer = tried.parser.feed(side, input, facts);
            let name = tried.protocol.name;
            if answer == Answer::Found && !tried.found {
                tried.found = true;
                self.found = Some(name);
                sole = tried.protocol.exclusive.then_some(name);
            }
            // What a carrier carries is for the next layer alone.
            if tried.found {
                carried = tried.parser.carried();
                if !carried.is_empty() {
                    self.found = Some(name);
                    sole = Some(name);
                }
            }
            answer != Answer::NotThis
        });
        if let Some(name) = sole {
            self.parsers.retain(|tried| tried.protocol.name == name);
        }
        carried
    }
}

#[cfg(test)]
mod tests;
