//! `settings`: the numbers of a detector that a rule changes.

use super::keys::Report;
use super::problem::{nearest, quoted};
use super::yaml::{Node, Value};
use crate::detect::{Detector, Settings};

/// What is wrong with numbers where nothing goes by them.
pub const NO_DETECTOR: &str = "only a detector's rule has `settings`";

/// Reads the map of numbers; what the detector does not have is an error.
pub fn read(node: &Node, detector: &Detector, report: &mut Report<'_>) -> Settings {
    let mut settings = Settings::default();
    let Value::Map(members) = &node.value else {
        let message = format!("`settings` must be a map of numbers, not {}", node.what());
        report.add(&node.span, message, None);
        return settings;
    };
    for (key, value) in members {
        let name = key.text().unwrap_or_default();
        let known = detector.settings.iter().find(|it| it.name == name);
        let number = value.text().and_then(|text| text.parse().ok());
        match (known, number) {
            (None, _) => {
                let names = || detector.settings.iter().map(|it| it.name);
                let help = nearest(name, names()).unwrap_or_else(|| match names().next() {
                    Some(_) => format!("it has {}", names().collect::<Vec<_>>().join(", ")),
                    None => "it has none".to_owned(),
                });
                let message = format!(
                    "the detector `{}` has no setting {}",
                    detector.name,
                    quoted(name)
                );
                report.add(&key.span, message, Some(help));
            }
            (Some(setting), Some(number)) if (1..=Settings::MAX).contains(&number) => {
                settings.set(setting, number);
            }
            (Some(setting), _) => {
                let message = format!(
                    "`{name}` must be a whole number from 1 to {}",
                    Settings::MAX
                );
                report.add(&value.span, message, Some(setting.about.to_owned()));
            }
        }
    }
    settings
}
