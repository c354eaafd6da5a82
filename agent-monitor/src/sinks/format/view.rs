//! Reading an event's JSON where members may be missing.

use serde_json::Value;

/// A JSON value, or nothing.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(Option<&'a Value>);

impl<'a> View<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self(Some(value))
    }

    /// The member `path`, names joined by dots.
    pub(super) fn at(self, path: &str) -> Self {
        Self(
            path.split('.')
                .try_fold(self.0, |value, name| value.map(|value| value.get(name)))
                .flatten(),
        )
    }

    pub(super) fn value(self) -> Option<&'a Value> {
        self.0
    }

    pub(super) fn exists(self) -> bool {
        self.0.is_some()
    }

    pub(super) fn text(self, path: &str) -> Option<&'a str> {
        self.at(path).0?.as_str()
    }

    pub(super) fn number(self, path: &str) -> Option<u64> {
        self.at(path).0?.as_u64()
    }

    pub(super) fn items(self, path: &str) -> impl Iterator<Item = View<'a>> {
        let items = self.at(path).0.and_then(Value::as_array);
        items.into_iter().flatten().map(View::new)
    }

    pub(super) fn texts(self, path: &str) -> Vec<&'a str> {
        self.items(path)
            .filter_map(|item| item.0?.as_str())
            .collect()
    }

    /// The instant at `path`, milliseconds since the Unix epoch.
    pub(super) fn millis(self, path: &str) -> Option<i64> {
        let time: jiff::Timestamp = self.text(path)?.parse().ok()?;
        Some(time.as_millisecond())
    }

    /// The event's kind.
    pub(super) fn kind(self) -> &'a str {
        self.text("kind").unwrap_or_default()
    }

    /// What the event is about: the member named by its kind.
    pub(super) fn body(self) -> Self {
        self.at(self.kind())
    }

    /// The arguments of the process at `path` as one line, joined by blanks.
    pub(super) fn command_line(self, path: &str) -> Option<String> {
        let argv = self.texts(path);
        (!argv.is_empty()).then(|| argv.join(" "))
    }

    /// The ends of the connection in the event's body as (source, destination):
    /// who began it, and who was called.
    pub(super) fn ends(self) -> (Self, Self) {
        let body = self.body();
        let (local, remote) = (body.at("local"), body.at("remote"));
        if self.inbound() {
            (remote, local)
        } else {
            (local, remote)
        }
    }

    /// Whether the other end began the connection in the event's body.
    pub(super) fn inbound(self) -> bool {
        self.kind() == "accept" || self.body().text("direction") == Some("inbound")
    }
}
