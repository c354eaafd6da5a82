//! Values of an event's fields, as rules see them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::event::{AgentState, Direction, FlowState, Outcome, Transport};

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'e> {
    /// Text, or a word of a fixed set.
    Text(&'e str),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Bool(bool),
    /// An IP address.
    Ip(IpAddr),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Bool(yes) => yes.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What kind of values a field has.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// One text.
    Text,
    /// Several texts, which `joined` puts together with spaces.
    Texts,
    /// One or several of these words.
    Word(fn() -> Vec<&'static str>),
    /// One or several whole numbers.
    Number,
    /// Yes or no; a field that is left out is no.
    Bool,
    /// One or several IP addresses.
    Ip,
}

impl Type {
    /// In a sentence: a field of this type is …
    pub fn described(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Texts => "a list of texts",
            Self::Word(_) => "a word",
            Self::Number => "a number",
            Self::Bool => "`true` or `false`",
            Self::Ip => "an IP address",
        }
    }

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Texts => "list of texts",
            Self::Word(_) => "word",
            Self::Number => "number",
            Self::Bool => "true or false",
            Self::Ip => "IP address",
        }
    }
}

/// Asked of each value in turn, until one answers yes.
pub type Test<'t> = &'t mut dyn FnMut(Value<'_>) -> bool;

/// What can be a field: nothing, a value, or several.
pub trait Seen {
    /// Whether `test` says yes to one of the values.
    fn see(&self, test: Test<'_>) -> bool;
}

impl Seen for str {
    fn see(&self, test: Test<'_>) -> bool {
        test(Value::Text(self))
    }
}

impl Seen for String {
    fn see(&self, test: Test<'_>) -> bool {
        self.as_str().see(test)
    }
}

impl Seen for bool {
    fn see(&self, test: Test<'_>) -> bool {
        test(Value::Bool(*self))
    }
}

impl Seen for IpAddr {
    fn see(&self, test: Test<'_>) -> bool {
        test(Value::Ip(*self))
    }
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Seen for $type {
            fn see(&self, test: Test<'_>) -> bool {
                test(Value::Number(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )*};
}
numbers! { u8 u16 u32 u64 i32 }

impl<T: Seen + ?Sized> Seen for &T {
    fn see(&self, test: Test<'_>) -> bool {
        (**self).see(test)
    }
}

impl<T: Seen + ?Sized> Seen for Arc<T> {
    fn see(&self, test: Test<'_>) -> bool {
        (**self).see(test)
    }
}

impl<T: Seen> Seen for Option<T> {
    fn see(&self, test: Test<'_>) -> bool {
        self.as_ref().is_some_and(|value| value.see(test))
    }
}

impl<T: Seen> Seen for [T] {
    fn see(&self, test: Test<'_>) -> bool {
        self.iter().any(|value| value.see(test))
    }
}

impl<T: Seen> Seen for Vec<T> {
    fn see(&self, test: Test<'_>) -> bool {
        self.as_slice().see(test)
    }
}

/// Several values that are members of something.
pub struct Each<'e, T>(pub &'e [T], pub fn(&T, Test<'_>) -> bool);

impl<T> Seen for Each<'_, T> {
    fn see(&self, test: Test<'_>) -> bool {
        self.0.iter().any(|item| (self.1)(item, test))
    }
}

/// A number that is text in JSON.
pub struct AsText(pub u64);

impl Seen for AsText {
    fn see(&self, test: Test<'_>) -> bool {
        // 20 digits are the longest that a u64 has.
        let mut digits = [0; 20];
        let mut place = digits.len();
        let mut rest = self.0;
        loop {
            place -= 1;
            // One digit fits in a byte.
            digits[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        std::str::from_utf8(&digits[place..]).is_ok_and(|text| text.see(test))
    }
}

impl Seen for Transport {
    fn see(&self, test: Test<'_>) -> bool {
        match self {
            Self::Tcp => "tcp".see(test),
            Self::Udp => "udp".see(test),
            Self::Icmp => "icmp".see(test),
            Self::Icmp6 => "icmp6".see(test),
            Self::Other(number) => AsText(u64::from(*number)).see(test),
        }
    }
}

/// The words of an enum: one more variant does not compile without its word.
macro_rules! words {
    ($($enum:ident $name:ident { $($variant:ident $word:literal)* })*) => {$(
        impl Seen for $enum {
            fn see(&self, test: Test<'_>) -> bool {
                let word = match self { $(Self::$variant => $word,)* };
                test(Value::Text(word))
            }
        }
        /// Its words, as in JSON.
        pub const $name: &[&str] = &[$($word),*];
    )*};
}

words! {
    Direction DIRECTIONS { Outbound "outbound" Inbound "inbound" }
    Outcome OUTCOMES {
        Attempted "attempted" Established "established" Refused "refused"
        Unreachable "unreachable" TimedOut "timed_out" Reset "reset" Abandoned "abandoned"
        FailedLocally "failed_locally"
    }
    FlowState FLOW_STATES {
        Open "open" Identified "identified" Update "update" Failed "failed" Closed "closed"
    }
    AgentState AGENT_STATES { Appeared "appeared" Updated "updated" Gone "gone" }
}
