//! Building JSON from members that may be missing.

use serde_json::{Map, Value};

/// A JSON object into which only what is there is put.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// With `name`, if there is a value.
    pub(super) fn with(mut self, name: &str, value: impl Into<Member>) -> Self {
        if let Member(Some(value)) = value.into() {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// With all members of `other`.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A value, or nothing. Empty text, lists and objects are nothing.
pub(super) struct Member(Option<Value>);

impl From<Value> for Member {
    fn from(value: Value) -> Self {
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        Self((!empty).then_some(value))
    }
}

impl From<Object> for Member {
    fn from(object: Object) -> Self {
        object.into_value().into()
    }
}

impl From<&str> for Member {
    fn from(text: &str) -> Self {
        Value::from(text).into()
    }
}

impl From<String> for Member {
    fn from(text: String) -> Self {
        Value::from(text).into()
    }
}

impl From<u64> for Member {
    fn from(number: u64) -> Self {
        Value::from(number).into()
    }
}

impl From<i64> for Member {
    fn from(number: i64) -> Self {
        Value::from(number).into()
    }
}

impl From<bool> for Member {
    fn from(truth: bool) -> Self {
        Value::from(truth).into()
    }
}

impl<T: Into<Member>> From<Option<T>> for Member {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self(None), Into::into)
    }
}

impl From<&Value> for Member {
    fn from(value: &Value) -> Self {
        value.clone().into()
    }
}

impl<T: Into<Member>> From<Vec<T>> for Member {
    fn from(items: Vec<T>) -> Self {
        let items = items.into_iter().filter_map(|item| item.into().0).collect();
        Value::Array(items).into()
    }
}
