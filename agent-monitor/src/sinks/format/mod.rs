//! How an event is written for a receiver: pure functions from its stored JSON.
//!
//! The store holds the events this program wrote, in the shape of
//! [`crate::event`]. A receiver that has a schema of its own gets the same event
//! in that schema: [`ocsf`], [`ecs`] or [`cef`]. Nothing an agent says is left
//! out where the schema has a place for it, and everything an agent says stays
//! inside the value it is put in.

#![forbid(unsafe_code)]

mod build;
mod cef;
mod ecs;
mod ocsf;
mod plain;
mod view;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::config::Format;
use view::View;

impl Format {
    /// The stored event `json` in this format: one line, without its end.
    pub fn line(self, json: &str) -> String {
        if self == Self::Json {
            return json.to_owned();
        }
        // The store holds what this program wrote. If it cannot be read back all the
        // same, it still goes out, as what it is.
        let Ok(event) = serde_json::from_str::<Value>(json) else {
            return json.to_owned();
        };
        let view = View::new(&event);
        match self {
            Self::Json => json.to_owned(),
            Self::Ocsf => ocsf::map(view).to_string(),
            Self::Ecs => ecs::map(view).to_string(),
            Self::Cef => cef::map(view),
            Self::Plain => plain::map(view),
        }
    }
}
