//! `tail --filter`: an expression in the Common Expression Language over an event's
//! JSON, asked on the reader's side.

use std::str::FromStr;
use std::sync::Arc;

use cel::{Context, ExecutionError, Program, Value};
use serde_json::Value as Json;

use crate::event::Body;

/// Members that an event of any kind may have.
const COMMON: [&str; 7] = ["schema", "id", "time", "kind", "node", "agent", "process"];

/// An expression that is true of the events to be shown.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    program: Arc<Program>,
}

/// Why an expression is no filter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is not in the language.
    #[error("not an expression of CEL: {0}")]
    Syntax(String),
    /// It names what no event has.
    #[error("no event has a member {name:?}; there are {}", members().collect::<Vec<_>>().join(", "))]
    Member {
        /// What it names.
        name: String,
    },
    /// Neither true nor false comes of it.
    #[error("the filter {filter:?} gives {result}, neither true nor false")]
    NotBoolean {
        /// The expression.
        filter: String,
        /// What comes of it.
        result: String,
    },
    /// It cannot be asked about an event that has all it names.
    #[error("the filter {filter:?} cannot be asked about the event {event}: {why}")]
    Asked {
        /// The expression.
        filter: String,
        /// The event's id.
        event: String,
        /// What is wrong.
        why: String,
    },
}

fn members() -> impl Iterator<Item = &'static str> {
    COMMON.into_iter().chain(Body::KINDS.iter().copied())
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let program =
            Program::compile(text).map_err(|error| FilterError::Syntax(error.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            program: program.into(),
        })
    }
}

impl Filter {
    /// Whether to show an event. One that lacks what the expression names is not shown.
    ///
    /// # Errors
    /// When neither true nor false comes of it, or it names what no event has.
    pub fn lets_pass(&self, event: &Json) -> Result<bool, FilterError> {
        let mut context = Context::default();
        for (name, value) in event.as_object().into_iter().flatten() {
            // JSON is always a value of the language.
            if let Err(error) = context.add_variable(name.as_str(), value) {
                return Err(self.asked(event, &error.to_string()));
            }
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(shown)) => Ok(shown),
            Ok(other) => Err(FilterError::NotBoolean {
                filter: self.text.clone(),
                result: format!("{other:?}"),
            }),
            Err(ExecutionError::NoSuchKey(_)) => Ok(false),
            // A member that other events have, or a slip.
            Err(ExecutionError::UndeclaredReference(name)) => {
                match members().any(|member| member == *name) {
                    true => Ok(false),
                    false => Err(FilterError::Member {
                        name: (*name).clone(),
                    }),
                }
            }
            Err(error) => Err(self.asked(event, &error.to_string())),
        }
    }

    fn asked(&self, event: &Json, why: &str) -> FilterError {
        FilterError::Asked {
            filter: self.text.clone(),
            event: event["id"].as_str().unwrap_or_default().to_owned(),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(filter: &str) -> Result<bool, FilterError> {
        let event = json!({
            "id": "a-1", "kind": "connect",
            "process": {"pid": 7, "uid": 0, "comm": "ssh", "argv": ["ssh", "-N"]},
            "connect": {"remote": {"ip": "203.0.113.1", "port": 443}, "result": "attempted"},
        });
        filter.parse::<Filter>()?.lets_pass(&event)
    }

    #[test]
    fn fields_are_compared_by_their_paths() {
        for (filter, expected) in [
            ("connect.remote.port == 443", true),
            ("connect.remote.port != 443", false),
            ("connect.remote.port in [22, 443] && process.uid == 0", true),
            (
                "process.comm.startsWith('ss') && '-N' in process.argv",
                true,
            ),
            ("process.argv.exists(it, it.contains('-R'))", false),
            ("process.comm.matches('^s.h$')", true),
            ("kind == 'connect' || kind == 'accept'", true),
        ] {
            assert_eq!(asked(filter), Ok(expected), "{filter}");
        }
    }

    #[test]
    fn an_event_without_what_is_named_is_not_shown() {
        for filter in [
            "exec.memfd",
            "alert.severity == 'high'",
            "process.exe == '/bin/sh'",
            "has(process.exe)",
        ] {
            assert_eq!(asked(filter), Ok(false), "{filter}");
        }
    }

    #[test]
    fn mistakes_are_told_and_hide_nothing() {
        assert!(matches!(
            asked("connect.remote.port =="),
            Err(FilterError::Syntax(_))
        ));
        let error = asked("proces.pid == 7").unwrap_err().to_string();
        assert!(error.starts_with("no event has a member \"proces\"; there are schema, "));
        assert!(matches!(
            asked("process.pid"),
            Err(FilterError::NotBoolean { .. })
        ));
        assert!(matches!(
            asked("process.comm > 3"),
            Err(FilterError::Asked { .. })
        ));
    }
}
